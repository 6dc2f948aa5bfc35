"""Thousands of describe-and-match calls of changing sizes: memory, threads and file handles do not grow.

`make soak` runs 5,000 of them; the tests some hundred.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from lisrd.model import LISRD

_CALLS = int(os.environ.get("LISRD_SOAK_CALLS", "150"))

#: Bytes by which memory may differ between the second and the last third: allocators keep what they may need again.
_SLACK = 24 * 2**20


def _used() -> tuple[int, int, int]:
    """Resident bytes, threads, open files."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE"), threading.active_count(), len(os.listdir("/proc/self/fd"))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("describer", ["lisrd-sift", "pyramid"])
def test_nothing_grows_over_many_calls(describer: str, photograph: np.ndarray) -> None:
    model, rng = LISRD.from_pretrained(describer), np.random.default_rng(0)
    used = []
    for _ in range(_CALLS):
        height, width = rng.integers(48, 160, 2)
        top, left = rng.integers(0, 300, 2)
        image = np.ascontiguousarray(photograph[top : top + height, left : left + width])
        model.match_images(
            image, np.ascontiguousarray(np.rot90(image)), max_keypoints=int(rng.integers(1, 200))
        )
        used.append(_used())
    memory, threads, files = (np.array(column) for column in zip(*used, strict=True))
    third = _CALLS // 3
    grown = np.median(memory[-third:]) - np.median(memory[third : 2 * third])
    print(
        f"{describer}: {_CALLS} calls, memory {memory[third] / 2**20:.0f} MB, {grown / 2**20:+.1f} MB after it"
    )
    assert grown < _SLACK
    assert threads[-1] <= threads[third]
    assert files[-1] <= files[third]
