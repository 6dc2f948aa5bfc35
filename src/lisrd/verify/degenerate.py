"""Inputs and results that define no model, told apart from bugs: each check returns the reason, or ""."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lisrd.verify.geometry import MINIMUM_MATCHES, Kind, Problem

#: Points closer to a line than this (root mean square, pixels) fix no homography: localisation noise decides.
LINE_WIDTH = 0.5
#: A homography that shrinks or grows areas more than this has collapsed; keypoints do not match across it.
LARGEST_AREA_CHANGE = 1e4


def reason_against_input(kind: Kind, problem: Problem, dropped: int) -> str:
    """Why these matches cannot define a model of this kind; "" when they may."""
    needed = MINIMUM_MATCHES[kind]
    count = len(problem.points0)
    if count < needed:
        lost = f" ({dropped} more are not finite)" if dropped else ""
        return f"too few matches: {count}{lost}, a {_words(kind)} needs {needed}"
    for points in (problem.points0, problem.points1):
        distinct = len(np.unique(points, axis=0))
        if distinct == 1:
            return "all matches share one point"
        if distinct < needed:
            return f"too few distinct points: {distinct}, a {_words(kind)} needs {needed}"
        if on_a_line(points):
            return "all matches lie on a line"
    return ""


def reason_against_model(kind: Kind, model: np.ndarray, problem: Problem, inliers: np.ndarray) -> str:
    """Why a solver's model is no answer; "" when it is one."""
    if not np.isfinite(model).all():
        return "the solver's model is not finite"
    needed = MINIMUM_MATCHES[kind]
    if inliers.sum() < needed:
        return f"no consensus: {inliers.sum()} inliers, a {_words(kind)} needs {needed}"
    points0, points1 = problem.points0[inliers], problem.points1[inliers]
    if on_a_line(points0) or on_a_line(points1):
        return "all inliers lie on a line"
    if kind == "homography" and _on_a_line_but_one(points0):
        return "all inliers but one lie on a line"
    if kind == "homography" and _collapses(model, points0):
        return "the homography collapses the image"
    return ""


def on_a_line(points: Float[np.ndarray, "S dims"]) -> bool:
    """Whether pixels lie within `LINE_WIDTH` of one line.

    Points of the world have no unit: for them the width is a millionth of their extent.
    """
    if len(points) < 3:
        return True
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False) / np.sqrt(len(points))
    return bool(spread[1] <= (LINE_WIDTH if points.shape[1] == 2 else 1e-6 * spread[0]))


def _on_a_line_but_one(points: Float[np.ndarray, "S 2"]) -> bool:
    """Whether the homography keeps a degree of freedom: a line and one point do not fix it."""
    distinct = np.unique(points, axis=0)
    centred = distinct - distinct.mean(0)
    normal = np.linalg.svd(centred, full_matrices=False)[2][1]
    return on_a_line(np.delete(distinct, np.abs(centred @ normal).argmax(), axis=0))


def _collapses(H: np.ndarray, points: np.ndarray) -> bool:
    area = np.linalg.det(H) / (points @ H[2, :2] + H[2, 2]) ** 3  # how H scales areas at each point
    return bool(area.min() < 1 / LARGEST_AREA_CHANGE or area.max() > LARGEST_AREA_CHANGE)


def _words(kind: Kind) -> str:
    return {"fundamental": "fundamental matrix", "essential": "essential matrix"}.get(
        kind, kind.replace("_", " ")
    )
