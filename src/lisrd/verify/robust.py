"""From matches with outliers to a model: one interface over OpenCV's estimators and PoseLib."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.errors import InputError
from lisrd.verify.degenerate import reason_against_input, reason_against_model
from lisrd.verify.geometry import Geometry, Kind, Problem, residuals
from lisrd.verify.opencv_solvers import solve_ransac, solve_usac
from lisrd.verify.polish import polish_homography
from lisrd.verify.poselib_solvers import solve_poselib

Points = np.ndarray | Tensor

METHODS: dict[str, Callable[[Kind, str, Problem], np.ndarray | None]] = {
    "usac": solve_usac,
    "magsac": solve_usac,
    "poselib": solve_poselib,
    "ransac": solve_ransac,
}
#: The homographies of the other methods are left as their library gives them.
POLISHED = ("usac", "magsac")
#: Where doubt begins in polishing, as a part of the threshold.
POLISH_SCALE = 1 / 3


def estimate(
    points0: Points,
    points1: Points,
    model: Kind = "homography",
    method: str = "usac",
    threshold: float = 2.0,
    scores: Points | None = None,
    intrinsics0: Points | None = None,
    intrinsics1: Points | None = None,
    seed: int = 0,
    max_iterations: int = 10_000,
    confidence: float = 0.9999,
) -> Geometry:
    """The model that most matches agree with.

    `points0` (S, 2) and `points1` (S, 2) are matched pixels, row by row; for "absolute_pose" `points0` (S, 3)
    are points of the world. `threshold` is in pixels. `scores` (S,), higher is better, let the methods that
    can (all but "ransac") sample the confident matches first (PROSAC). "essential" needs both intrinsics
    (3 x 3), "absolute_pose" those of image 1. The same input and `seed` give the same answer.

    "ransac" is OpenCV's classic one, for comparison. The defaults gave the most homographies within 1, 3 and 5
    pixels on turned webcam images and on viewpoint pairs: "usac" (the MSAC score), 2 pixels, PROSAC, and at
    last a polish (`lisrd.verify.polish`).

    Degenerate matches (too few, on a line, one point, not finite) give a Geometry without a model that says
    why. Matches that are not finite are never inliers. Raises InputError for shapes that do not fit, for
    unknown names and for missing intrinsics, MissingExtraError for "poselib" where it is not installed.
    """
    _check_names(model, method, threshold)
    array0 = as_matrix(points0, "points0", 3 if model == "absolute_pose" else 2)
    array1 = as_matrix(points1, "points1", 2)
    if len(array0) != len(array1):
        raise InputError(
            f"points0 has {len(array0)} rows and points1 {len(array1)}: pass one row per match in both"
        )
    K0 = _intrinsics(intrinsics0, "intrinsics0", needed=model == "essential")
    K1 = _intrinsics(intrinsics1, "intrinsics1", needed=model in ("essential", "absolute_pose"))
    order = _order(array0, array1, scores)
    problem = Problem(
        array0[order], array1[order], threshold, scores is not None, seed, max_iterations, confidence, K0, K1
    )
    found, inliers, reason = _solve(model, method, problem, dropped=len(array0) - len(order))
    mask = np.zeros(len(array0), dtype=bool)
    mask[order] = inliers
    return Geometry(found, mask, model, method, reason)


def _solve(
    kind: Kind, method: str, problem: Problem, dropped: int
) -> tuple[np.ndarray | None, Bool[np.ndarray, " S"], str]:
    nobody = np.zeros(len(problem.points0), dtype=bool)
    reason = reason_against_input(kind, problem, dropped)
    if reason:
        return None, nobody, reason
    solved = METHODS[method](kind, method, problem)
    if solved is None:
        return None, nobody, "no consensus: the estimator found no model"
    if kind == "homography" and method in POLISHED and np.isfinite(solved).all():
        solved = polish_homography(solved, problem.points0, problem.points1, POLISH_SCALE * problem.threshold)
    solved = _normalised(kind, solved)
    inliers = residuals(kind, solved, problem) <= problem.threshold
    reason = reason_against_model(kind, solved, problem, inliers)
    return (None, nobody, reason) if reason else (solved, inliers, "")


def _normalised(kind: Kind, model: np.ndarray) -> Float[np.ndarray, "3 columns"]:
    """One representative of models that are defined up to a factor."""
    if kind == "absolute_pose":
        return model
    with np.errstate(divide="ignore", invalid="ignore"):  # the check of the model reports what is not finite
        return model / (model[2, 2] if kind == "homography" else np.linalg.norm(model))


def _order(array0: np.ndarray, array1: np.ndarray, scores: Points | None) -> np.ndarray:
    """Indices of the finite matches, the most confident first; as given where there are no scores."""
    finite = np.isfinite(array0).all(1) & np.isfinite(array1).all(1)
    if scores is None:
        return np.flatnonzero(finite)
    confidence = _array(scores)
    if confidence.shape != (len(array0),):
        raise InputError(f"scores have the shape {confidence.shape}: pass one per match, ({len(array0)},)")
    order = np.argsort(-confidence, kind="stable")  # NaN sorts last
    return order[finite[order]]


def _check_names(model: str, method: str, threshold: float) -> None:
    if model not in get_args(Kind):
        raise InputError(f"model {model!r} is unknown: use one of {', '.join(get_args(Kind))}")
    if method not in METHODS:
        raise InputError(f"method {method!r} is unknown: use one of {', '.join(METHODS)}")
    if not threshold > 0:
        raise InputError(f"threshold is {threshold}: it is a distance in pixels and must be positive")


def as_matrix(points: Points, name: str, columns: int) -> Float[np.ndarray, "S columns"]:
    array = _array(points)
    if array.ndim != 2 or array.shape[1] != columns:
        raise InputError(f"{name} has the shape {array.shape}: pass one row per match, (S, {columns})")
    return array


def _intrinsics(intrinsics: Points | None, name: str, needed: bool) -> Float[np.ndarray, "3 3"] | None:
    if intrinsics is None:
        if needed:
            raise InputError(f"{name} is missing: this model needs the 3 x 3 camera matrix")
        return None
    array = _array(intrinsics)
    if array.shape != (3, 3) or not np.isfinite(array).all() or abs(np.linalg.det(array)) < 1e-12:
        raise InputError(f"{name} has the shape {array.shape}: pass an invertible 3 x 3 camera matrix")
    return array


def _array(values: Points) -> Float[np.ndarray, "..."]:
    # numpy has no bfloat16, so that the tensor is widened first.
    plain = values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)
    return np.ascontiguousarray(plain, dtype=np.float64)
