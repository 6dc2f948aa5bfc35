"""What verification answers with: a model, its inliers, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

Kind = Literal["homography", "fundamental", "essential", "absolute_pose"]

#: Fewer matches do not decide between the several solutions of the minimal solvers (of 7, 5 and 3 matches).
MINIMUM_MATCHES: dict[str, int] = {"homography": 4, "fundamental": 8, "essential": 6, "absolute_pose": 6}


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """One two-view model. `model is None` is an ordinary answer, and `reason` says why.

    `model` is 3 x 3 (homography: image 0 to image 1, last entry 1; fundamental and essential: x1' M x0 = 0,
    unit norm) or, for an absolute pose, the 3 x 4 world-to-camera [R | t]. `inliers` are the matches whose
    residual in pixels (see `residuals`) is at most the threshold, whichever method found the model.
    """

    model: Float[np.ndarray, "3 columns"] | None
    inliers: Bool[np.ndarray, " S"]
    kind: Kind
    method: str
    reason: str = ""

    def __bool__(self) -> bool:
        return self.model is not None

    @property
    def num_inliers(self) -> int:
        return int(self.inliers.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Finite matches, the most confident first when `ordered`, and what a solver has to know about them."""

    points0: Float[np.ndarray, "S dims"]  # pixels; for an absolute pose 3D points
    points1: Float[np.ndarray, "S 2"]
    threshold: float  # pixels
    ordered: bool
    seed: int
    max_iterations: int
    confidence: float
    intrinsics0: Float[np.ndarray, "3 3"] | None = None
    intrinsics1: Float[np.ndarray, "3 3"] | None = None


def project(points: Float[np.ndarray, "S 2"], H: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "S 2"]:
    """Points through a homography; not a number beyond its horizon, where H mirrors and no camera looks.

    The area change of H at a point is det(H) / w^3, so the side that is seen has w of the determinant's sign.
    """
    homogeneous = points @ H[:, :2].T + H[:, 2]
    w = homogeneous[:, 2:]
    return homogeneous[:, :2] / np.where(w * np.linalg.det(H) > 0, w, np.nan)


def residuals(kind: Kind, model: Float[np.ndarray, "3 columns"], problem: Problem) -> Float[np.ndarray, " S"]:
    """Pixels by which each match misses the model; infinite where the model has no answer.

    Homography and pose: distance in image 1. Fundamental and essential: Sampson distance (Hartley and
    Zisserman, Multiple View Geometry, equation 11.9).
    """
    if kind == "homography":
        distance = np.linalg.norm(project(problem.points0, model) - problem.points1, axis=1)
    elif kind == "absolute_pose":
        assert problem.intrinsics1 is not None
        camera = problem.points0 @ model[:, :3].T + model[:, 3]
        distance = np.linalg.norm(project_camera(camera, problem.intrinsics1) - problem.points1, axis=1)
    else:
        distance = _sampson(_in_pixels(kind, model, problem), problem.points0, problem.points1)
    return np.nan_to_num(distance, nan=np.inf, posinf=np.inf)


def project_camera(
    camera: Float[np.ndarray, "S 3"], intrinsics: Float[np.ndarray, "3 3"]
) -> Float[np.ndarray, "S 2"]:
    """Points in the camera's frame to pixels; not a number behind the camera."""
    pixels = camera @ intrinsics.T
    depth = pixels[:, 2:]
    return pixels[:, :2] / np.where(depth > 0, depth, np.nan)


def _in_pixels(kind: Kind, model: np.ndarray, problem: Problem) -> Float[np.ndarray, "3 3"]:
    if kind == "fundamental":
        return model
    assert problem.intrinsics0 is not None
    assert problem.intrinsics1 is not None
    return np.linalg.inv(problem.intrinsics1).T @ model @ np.linalg.inv(problem.intrinsics0)


def _sampson(F: np.ndarray, points0: np.ndarray, points1: np.ndarray) -> Float[np.ndarray, " S"]:
    lines1 = points0 @ F[:, :2].T + F[:, 2]
    lines0 = points1 @ F[:2] + F[2]
    error = (lines1[:, :2] * points1).sum(1) + lines1[:, 2]
    gradient = (lines1[:, :2] ** 2).sum(1) + (lines0[:, :2] ** 2).sum(1)
    return np.abs(error) / np.sqrt(np.where(gradient > 0, gradient, np.nan))
