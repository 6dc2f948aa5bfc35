"""Ctrl-C at any moment: gone within two seconds, no traceback, exit code 130, and the next run goes on from there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisrd.image import write_image
from lisrd.scale import extract, image_names, write_pairs
from small_describer import SmallDescriber
from small_training import SMALL

pytestmark = [pytest.mark.slow, pytest.mark.long]

#: Seconds from Ctrl-C to the end of a process that has a core to itself.
_PATIENCE = 2.0
#: Processes of the commands that have several.
_PROCESSES = {"train": 2, "evaluate with workers": 3}

TRAINING = f"""
{SMALL}
[run]
batch_size = 2
precision = "float32"
validation_triplets = 2
"""


def _as_in_a_terminal() -> None:
    """A shell that runs the tests in the background has them ignore SIGINT, and children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, their features, all pairs, and a training configuration: minutes of work for every command."""
    root = tmp_path_factory.mktemp("collection")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for number in range(120):
        noise = cv2.GaussianBlur(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8), (0, 0), 2)
        write_image(
            root / "images" / f"{number:03d}.png", cv2.normalize(noise, None, 0, 255, cv2.NORM_MINMAX)
        )
    extract(root / "images", root / "features.h5", SmallDescriber(), max_keypoints=1000)
    names = image_names(root / "features.h5")
    write_pairs([(a, b) for i, a in enumerate(names) for b in names[i + 1 :]], root / "pairs.txt")
    rows = [f"../images/{a} ../images/{b} 1 0 0 0 1 0 0 0 1" for a in names[:60] for b in names[60:]]
    (root / "truth").mkdir()
    (root / "truth" / "pairs.txt").write_text("\n".join(rows))
    (root / "training.toml").write_text(TRAINING)
    return root


def _commands(root: Path, out: Path) -> dict[str, tuple[list[str], Callable[[], bool]]]:
    """Each command, and whether it is in the middle of its work."""
    evaluating = ["evaluate", f"{root}/truth", "--layout", "pairs", "--describers", "root-sift"]
    return {
        "extract": (
            ["extract", f"{root}/images", "-o", f"{out}/f.h5", "--describer", "root-sift"],
            lambda: (out / "f.h5.parts" / "writing.tmp").exists(),
        ),
        "match-pairs": (
            ["match-pairs", f"{root}/features.h5", f"{root}/pairs.txt", "-o", f"{out}/m.h5"],
            lambda: (out / "m.h5.parts" / "writing.tmp").exists(),
        ),
        "train": (
            ["train", f"{root}/training.toml", "--data", f"{root}/images", "--out", f"{out}/run"],
            lambda: (out / "run" / "metrics.jsonl").exists(),
        ),
        "evaluate": (
            [*evaluating, "--out", f"{out}/e"],
            lambda: len(list(out.glob("e/features/*/*.npz"))) > 2,
        ),
        "evaluate with workers": (
            [*evaluating, "--out", f"{out}/w", "--workers", "2"],
            lambda: len(list(out.glob("w/features/*/*.npz"))) > 2,
        ),
    }


@pytest.mark.parametrize("moment", [0.3])  # seconds into the work; more of them found nothing more
@pytest.mark.parametrize("command", ["extract", "match-pairs", "train", "evaluate", "evaluate with workers"])
def test_ctrl_c_stops_at_once_and_leaves_what_resumes(
    command: str, moment: float, collection: Path, tmp_path: Path
) -> None:
    arguments, is_busy = _commands(collection, tmp_path)[command]
    process = subprocess.Popen(
        [sys.executable, "-m", "lisrd", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_as_in_a_terminal,
    )
    waited = time.monotonic()
    while not is_busy() and process.poll() is None and time.monotonic() - waited < 120:
        time.sleep(0.02)
    time.sleep(moment)
    assert process.poll() is None, "it ended before it was interrupted"
    started = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    _, said = process.communicate(timeout=60)
    seconds = time.monotonic() - started
    assert "Traceback" not in said, said
    assert process.returncode == 130, said
    processes = _PROCESSES.get(command, 1)
    sharing = max(1, processes / len(os.sched_getaffinity(0)))
    assert seconds / _slowdown() / sharing < _PATIENCE
    assert not list(tmp_path.rglob(".*.npz"))


def _slowdown() -> float:
    """How many times longer than alone a process takes now, beside whatever else runs on this machine."""
    wall, busy = time.perf_counter(), time.process_time()
    while time.process_time() - busy < 0.2:
        pass
    return (time.perf_counter() - wall) / 0.2


def test_what_ctrl_c_left_is_continued(collection: Path, tmp_path: Path) -> None:
    arguments, is_busy = _commands(collection, tmp_path)["match-pairs"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lisrd", *arguments], stderr=subprocess.DEVNULL, preexec_fn=_as_in_a_terminal
    )
    while not is_busy():
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    pairs = (collection / "pairs.txt").read_text().splitlines()[:200]
    (tmp_path / "few.txt").write_text("\n".join(pairs))
    again = [sys.executable, "-m", "lisrd", "match-pairs", arguments[1], tmp_path / "few.txt", *arguments[3:]]
    answer = json.loads(subprocess.run([*again, "--json"], capture_output=True, check=True).stdout)
    assert answer["skipped"] > 0
    assert answer["matched"] + answer["skipped"] == 200
