"""Robust estimation by PoseLib: LO-RANSAC, then non-linear refinement with a robust loss.

Larsson et al., https://github.com/PoseLib/PoseLib.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lisrd.errors import MissingExtraError
from lisrd.verify.geometry import Kind, Problem


def solve_poselib(kind: Kind, method: str, problem: Problem) -> np.ndarray | None:
    """The model by PoseLib; samples by PROSAC when the problem is ordered. Raises MissingExtraError."""
    try:
        import poselib
    except ImportError as error:
        raise MissingExtraError("poselib", "method 'poselib'") from error
    points0, points1, options = problem.points0, problem.points1, _options(problem)
    if kind == "homography":
        model, info = poselib.estimate_homography(points0, points1, options, {})
    elif kind == "fundamental":
        model, info = poselib.estimate_fundamental(points0, points1, options, {})
    elif kind == "essential":
        cameras = _camera(problem.intrinsics0, points0), _camera(problem.intrinsics1, points1)
        pose, info = poselib.estimate_relative_pose(points0, points1, *cameras, options, {})
        model = cross_matrix(pose.t) @ pose.R
    else:
        pose, info = poselib.estimate_absolute_pose(
            points1, points0, _camera(problem.intrinsics1, points1), options, {}
        )
        model = pose.Rt
    return model if info["num_inliers"] > 0 else None


def cross_matrix(t: np.ndarray) -> np.ndarray:
    """[t]x, so that [t]x v is the cross product of t and v."""
    return np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])


def _options(problem: Problem) -> dict[str, Any]:
    return {
        "max_reproj_error": problem.threshold,
        "max_epipolar_error": problem.threshold,
        "max_iterations": problem.max_iterations,
        "success_prob": problem.confidence,
        "progressive_sampling": problem.ordered,
        "seed": problem.seed,
    }


def _camera(intrinsics: np.ndarray | None, points: np.ndarray) -> dict[str, Any]:
    assert intrinsics is not None
    width, height = np.ceil(points.max(0)) + 1  # PoseLib stores the size and does not use it
    return {
        "model": "PINHOLE",
        "width": int(width),
        "height": int(height),
        "params": [intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]],
    }
