"""Do two images show the same place? Yes, no or unsure, from what the robust model found.

Wrong matches agree with some model by chance: with a handful of inliers, a small part of the matches, in a corner.
A logistic function of those three tells chance from truth; its numbers come from pairs of one scene and of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from lisrd.errors import InputError
from lisrd.verify.geometry import Geometry
from lisrd.verify.robust import Points, as_matrix

Answer = Literal["yes", "no", "unsure"]

#: Cells per side over the extent of all matches, for the spread of the inliers.
_CELLS = 4


@dataclass(frozen=True, slots=True)
class Calibration:
    """Logistic weights of `evidence`, and the probabilities at which the answer is yes or no."""

    bias: float
    weights: tuple[float, float, float]
    yes: float
    no: float


#: From `python -m benchmarks.calibrate_verdict ROOT`: 200 pairs of different scenes and 92 of one, each with
#: root-sift and pyramid, 500 and 2000 keypoints of SIFT. Homography: none of the 800 false results is called one
#: place, 98.8 % of the 322 verifiable ones are. Fundamental matrix, whose line is a weaker constraint than a
#: point: 0.5 % and 90.4 %; pairs of a place that was left out of the fit: 1.2 % and 89.4 %.
CALIBRATIONS: dict[str, Calibration] = {
    "homography": Calibration(bias=-28.34, weights=(9.58, 15.14, 15.20), yes=0.8269, no=0.2101),
    "fundamental": Calibration(bias=-24.47, weights=(4.26, 28.84, 6.03), yes=0.8610, no=0.1130),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """`answer`, the probability that the images show one place, and what it rests on."""

    answer: Answer
    probability: float
    num_inliers: int
    inlier_ratio: float
    spread: float  # part of the cells with matches that hold inliers, of the image where it is less

    def __str__(self) -> str:
        return f"{self.answer} ({self.probability:.2f}): {self.num_inliers} inliers, {self.inlier_ratio:.0%}"


def same_place(geometry: Geometry, points0: Points, points1: Points) -> Verdict:
    """Whether the images show the same place, from `geometry` and the matches (S, 2) it was estimated from.

    Calibrated for homographies and fundamental matrices as `lisrd.verify.stage` finds them first, at its default
    threshold. Raises InputError for other kinds of model and for shapes that do not fit.
    """
    if geometry.kind not in CALIBRATIONS:
        raise InputError(
            f"no verdict from a model of kind {geometry.kind!r}: use {' or '.join(CALIBRATIONS)}"
        )
    calibration = CALIBRATIONS[geometry.kind]
    facts = evidence(geometry, points0, points1)
    logit = calibration.bias + float(np.dot(calibration.weights, facts))
    probability = 1 / (1 + math.exp(-max(min(logit, 50.0), -50.0)))
    answer: Answer = "unsure"
    if probability >= calibration.yes:
        answer = "yes"
    elif probability <= calibration.no:
        answer = "no"
    ratio = geometry.num_inliers / max(len(geometry.inliers), 1)
    return Verdict(answer, probability, geometry.num_inliers, ratio, float(facts[2]))


def evidence(geometry: Geometry, points0: Points, points1: Points) -> Float[np.ndarray, "3"]:
    """log(1 + inliers), their part of the matches, their spread: what the verdict weighs."""
    places = as_matrix(points0, "points0", 2), as_matrix(points1, "points1", 2)
    if {len(p) for p in places} != {len(geometry.inliers)}:
        raise InputError("geometry belongs to other matches: pass those that it was estimated from")
    if not geometry.num_inliers:
        return np.zeros(3)
    spread = min(_spread(p[np.isfinite(p).all(1)], p[geometry.inliers]) for p in places)
    return np.array([math.log1p(geometry.num_inliers), geometry.inliers.mean(), spread])


def _spread(everywhere: Float[np.ndarray, "S 2"], inliers: Float[np.ndarray, "K 2"]) -> float:
    low, extent = everywhere.min(0), np.maximum(np.ptp(everywhere, axis=0), 1e-6)

    def cells(points: np.ndarray) -> int:
        cell = np.minimum((points - low) / extent * _CELLS, _CELLS - 1).astype(int)
        return len(np.unique(cell, axis=0))

    return cells(inliers) / cells(everywhere)
