"""The data sets of the field, each in the layout its authors publish, as lists of `EvaluationPair`."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

from lisrd.errors import InputError
from lisrd.evaluate.datasets.homography_pairs import homography_pairs
from lisrd.evaluate.datasets.hpatches import hpatches_pairs
from lisrd.evaluate.datasets.pose_pairs import pose_pairs
from lisrd.evaluate.datasets.rdnim import rdnim_pairs
from lisrd.evaluate.datasets.records import EvaluationPair
from lisrd.evaluate.datasets.sweep import sweep_pairs

LAYOUTS: dict[str, Callable[..., list[EvaluationPair]]] = {
    "hpatches": hpatches_pairs,
    "rdnim": rdnim_pairs,
    "pairs": homography_pairs,
    "poses": pose_pairs,
    "sweep": sweep_pairs,
}


def load_pairs(root: str | Path, layout: str, **options: Any) -> list[EvaluationPair]:
    """All pairs of the data set at `root`; options belong to the layout's own function.

    Raises `InputError` for an unknown layout or option and for an absent data set.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout '{layout}'; use one of {', '.join(LAYOUTS)}")
    reader = LAYOUTS[layout]
    known = list(signature(reader).parameters)[1:]
    unknown = sorted(set(options) - set(known))
    if unknown:
        takes = ", ".join(known) or "none"
        raise InputError(f"the layout '{layout}' has no option {', '.join(unknown)}; it takes: {takes}")
    return reader(Path(root), **options)
