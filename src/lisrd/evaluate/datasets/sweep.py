"""Synthetic sweeps over any folder of images: each with itself, turned and darkened by known amounts.

The photograph is the same, so whatever is lost, the rotation or the light took. Parts: `nothing`, `rotation`,
`illumination`, `both`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch

from lisrd.errors import InputError
from lisrd.evaluate.datasets.preparation import Darken, LongestSide, Rotate, Step
from lisrd.evaluate.datasets.records import EvaluationImage, EvaluationPair, require_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".ppm", ".bmp", ".tif", ".tiff")
ANGLES = (0.0, 15.0, 30.0, 60.0, 90.0, 135.0, 180.0)
STOPS = (0.0, 1.0, 2.0, 3.0)


def sweep_pairs(
    root: Path, angles: Sequence[float] = ANGLES, stops: Sequence[float] = STOPS, longest_side: int = 640
) -> list[EvaluationPair]:
    """Every image of `root` (and below) at every angle (degrees) and loss of light (stops on average).

    Raises `InputError` where there are no images.
    """
    require_folder(root, "sweep", "images, in any folders", "your own photographs")
    images = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not images:
        raise InputError(
            f"no images in {root}: a sweep needs some, with one of the suffixes {', '.join(SUFFIXES)}"
        )
    settings = list(product(angles, stops))
    return [_pair(path, path.relative_to(root), a, s, longest_side) for path in images for a, s in settings]


def _pair(path: Path, name: Path, angle: float, stops: float, longest_side: int) -> EvaluationPair:
    image0 = EvaluationImage(path, (LongestSide(longest_side),))
    seed = zlib.crc32(name.as_posix().encode())  # each image under light of its own, always the same
    changes: list[Step] = [Rotate(angle)] if angle else []
    changes += [Darken(stops, seed)] if stops else []
    return EvaluationPair(
        name=f"{name.as_posix()}@{angle:g}deg{stops:g}stops",
        scene=name.as_posix(),
        part=_part(angle, stops),
        image0=image0,
        image1=image0.then(*changes),
        H_0to1=torch.eye(3, dtype=torch.float64),  # both come from one file: their steps are the truth
        tags={"angle": angle, "stops": stops},
    )


def _part(angle: float, stops: float) -> str:
    match bool(angle), bool(stops):
        case False, False:
            return "nothing"
        case True, False:
            return "rotation"
        case False, True:
            return "illumination"
        case _:
            return "both"
