"""Inputs and results that define no model, told apart from bugs: each check returns the reason, or ""."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lisrd.verify.geometry import MINIMUM_MATCHES, Kind, Problem

#: Points closer to a line than this (root mean square, pixels) fix no homography: localisation noise decides.
LINE_WIDTH = 0.5
#: A homography that shrinks or grows areas more than this has collapsed; keypoints do not match across it.
LARGEST_AREA_CHANGE = 1e4
#: Among so many matches there are nearly always distinct ones enough.
_FEW = 64


def reason_against_input(kind: Kind, problem: Problem, dropped: int) -> str:
    """Why these matches cannot define a model of this kind; "" when they may."""
    needed = MINIMUM_MATCHES[kind]
    count = len(problem.points0)
    if count < needed:
        lost = f" ({dropped} more are not finite)" if dropped else ""
        return f"too few matches: {count}{lost}, a {_words(kind)} needs {needed}"
    for points in (problem.points0, problem.points1):
        distinct = len(_distinct(points[:_FEW]))
        if distinct < needed:
            distinct = len(_distinct(points))
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
    distinct = _distinct(points)
    centred = distinct - distinct.mean(0)
    normal = np.linalg.svd(centred, full_matrices=False)[2][1]
    return on_a_line(np.delete(distinct, np.abs(centred @ normal).argmax(), axis=0))


def _distinct(points: Float[np.ndarray, "S dims"]) -> Float[np.ndarray, "D dims"]:
    if points.shape[1] != 2:
        return np.unique(points, axis=0)
    as_numbers = np.ascontiguousarray(points).view(np.complex128)[:, 0]  # sorted in a fifth of the time
    return np.unique(as_numbers).view(np.float64).reshape(-1, 2)


def _collapses(H: np.ndarray, points: np.ndarray) -> bool:
    area = np.linalg.det(H) / (points @ H[2, :2] + H[2, 2]) ** 3  # how H scales areas at each point
    return bool(area.min() < 1 / LARGEST_AREA_CHANGE or area.max() > LARGEST_AREA_CHANGE)


def _words(kind: Kind) -> str:
    return {"fundamental": "fundamental matrix", "essential": "essential matrix"}.get(
        kind, kind.replace("_", " ")
    )
