"""Matching beside the direct formulation and beside plain nearest neighbours; time and memory as N grows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

from torch import Tensor

from benchmarks.direct import match_direct, match_plain
from benchmarks.inputs import feature_pair, generator, unit
from benchmarks.timing import Comparison, Effort, Run, interleaved
from lisrd.match import match

_OURS = "match(): turn, online selection, mutual nearest neighbours; 4 x 128-d"
#: The direct formulation holds three N x 4 x N tensors: 6 GB at 11,000 keypoints.
_DIRECT_UP_TO = 8192


def comparisons(counts: tuple[int, ...], largest: int) -> Iterator[Comparison]:
    """Rows against the direct formulation at each count, against plain 512-d and 128-d neighbours at the largest."""
    for count in counts:
        pair = feature_pair(count)
        yield Comparison(
            f"match_{count}_vs_direct",
            _OURS,
            "1024-d meta descriptors per keypoint, N x 4 x N tensors, float32; no turn",
            lambda pair=pair: match(*pair),
            lambda pair=pair: match_direct(*pair),
        )
    pair = feature_pair(largest)
    for dim in (512, 128):
        plain = plain_pair(largest, dim)
        yield Comparison(
            f"match_{largest}_vs_plain_nn{dim}",
            _OURS,
            f"one product of {dim}-d descriptors, argmax both ways, float32",
            lambda: match(*pair),
            lambda plain=plain: match_plain(*plain),
        )


def plain_pair(count: int, dim: int) -> tuple[Tensor, Tensor]:
    g = generator(dim)
    return unit((count, dim), g), unit((count, dim), g)


def growth(counts: tuple[int, ...], effort: Effort) -> list[dict[str, float]]:
    """Seconds of each matcher at each number of keypoints."""
    return [{"keypoints": count, **interleaved(_matchers(count), effort)} for count in counts]


def _matchers(count: int) -> dict[str, Run]:
    pair = feature_pair(count)
    plain128, plain512 = plain_pair(count, 128), plain_pair(count, 512)
    runs: dict[str, Run] = {
        "ours": lambda: match(*pair),
        "plain_nn512": lambda: match_plain(*plain512),
        "plain_nn128": lambda: match_plain(*plain128),
    }
    if count <= _DIRECT_UP_TO:
        runs["direct"] = lambda: match_direct(*pair)
    return runs


def memory(counts: tuple[int, ...]) -> list[dict[str, float]]:
    """Peak megabytes over the input, each count in a process of its own."""
    rows = []
    for count in counts:
        command = [sys.executable, "-m", "benchmarks.peak_memory", str(count)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows.append(json.loads(output))
    return rows
