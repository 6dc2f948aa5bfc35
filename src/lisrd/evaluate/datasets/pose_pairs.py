"""Relative pose from SuperGlue's list of pairs (ScanNet-1500, MegaDepth-1500, YFCC): ROOT/pairs.txt, rows

    image0 image1 turns0 turns1 K0 (9) K1 (9) T_0to1 (16)

`turns` are the quarter turns counter-clockwise that put an image upright; intrinsics and pose belong to the
image as stored. The list may be any file: pass it as `pairs_file`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lisrd.errors import InputError
from lisrd.evaluate.datasets.preparation import LongestSide, QuarterTurns, Step
from lisrd.evaluate.datasets.records import EvaluationImage, EvaluationPair, require_folder
from lisrd.evaluate.metrics.pose import RelativePose
from lisrd.text_files import read_lines

ROW = "image0 image1 turns0 turns1 K0(9) K1(9) T_0to1(16)"
SOURCE = "the SuperGlue repository (lists for ScanNet and YFCC) and the data sets' own project pages (images)"
NAMES = ("pairs.txt", "scannet_test_pairs_with_gt.txt", "megadepth_test_pairs_with_gt.txt")


def pose_pairs(
    root: Path, pairs_file: Path | None = None, longest_side: int | None = None
) -> list[EvaluationPair]:
    """The pairs of the list, images shrunk to `longest_side` where that is given.

    Raises `InputError` where the list is missing or empty, or a row is not of SuperGlue's format.
    """
    require_folder(root, "poses", f"images and a list with rows `{ROW}`", SOURCE)
    table = pairs_file or next((root / n for n in NAMES if (root / n).is_file()), root / NAMES[0])
    if not table.is_file():
        raise InputError(f"no list of pairs at {table}: rows are `{ROW}`; get it from {SOURCE}")
    resize = (LongestSide(longest_side),) if longest_side else ()
    lines = [line.split() for line in read_lines(table)]
    pairs = [_pair(root, words, f"{table}:{n}", resize) for n, words in enumerate(lines, 1) if words]
    if not pairs:
        raise InputError(f"{table} lists no pairs: rows are `{ROW}`")
    return pairs


def _pair(root: Path, words: list[str], where: str, resize: tuple[Step, ...]) -> EvaluationPair:
    if len(words) != 38:
        raise InputError(f"{where} has {len(words)} columns, not 38: rows are `{ROW}`")
    try:
        turns0, turns1 = int(words[2]), int(words[3])
        numbers = np.array(words[4:], dtype=np.float64)
    except ValueError:
        raise InputError(f"{where}: the third column on must be numbers: rows are `{ROW}`") from None
    image0 = EvaluationImage(root / words[0], (*resize, *_upright(turns0)))
    image1 = EvaluationImage(root / words[1], (*resize, *_upright(turns1)))
    pose, broken = _checked_pose(numbers, where)
    scene = Path(words[0]).parent.as_posix()
    return EvaluationPair(f"{words[0]}-{words[1]}", scene, "all", image0, image1, None, pose, broken)


def _upright(turns: int) -> tuple[Step, ...]:
    return (QuarterTurns(turns),) if turns % 4 else ()


def _checked_pose(numbers: np.ndarray, where: str) -> tuple[RelativePose | None, str | None]:
    K0, K1, T = (torch.from_numpy(part.copy()) for part in np.split(numbers, [9, 18]))
    pose = RelativePose(K0.reshape(3, 3), K1.reshape(3, 3), T.reshape(4, 4))
    if not np.isfinite(numbers).all() or abs(float(torch.linalg.det(pose.T_0to1[:3, :3])) - 1) > 0.01:
        return None, f"broken pose: {where} holds no rotation"
    return pose, None
