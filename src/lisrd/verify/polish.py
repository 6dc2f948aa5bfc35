"""The last step of a robust homography: every near match counts by how well it fits, none decides alone.

An estimator's own last step is least squares over its inliers, in which a match two pixels off weighs as much
as an exact one. Gauss-Newton with Cauchy weights lets the exact ones decide; on real pairs this is the
difference between the right plane and the right pixel.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from lisrd.verify.geometry import project

#: Matches beyond this many scales are outliers: Cauchy weights alone would let a crowd of them pull.
CUT = 4.0


def polish_homography(
    H: Float[np.ndarray, "3 3"],
    points0: Float[np.ndarray, "S 2"],
    points1: Float[np.ndarray, "S 2"],
    scale: float,
    iterations: int = 15,
) -> Float[np.ndarray, "3 3"]:
    """The homography near `H` of least robust distance in image 1; `scale` (pixels) is where doubt begins.

    Returns `H` itself, scaled to last entry 1, where fewer than five matches are near or no step helps.
    """
    normalise0, normalise1 = _normalisation(points0), _normalisation(points1)
    to_pixels = np.linalg.inv(normalise1)
    inside = _unit(normalise1 @ H @ np.linalg.inv(normalise0))
    normalised0, normalised1 = project(points0, normalise0), project(points1, normalise1)
    relative = scale * normalise1[0, 0]
    best = _robust_cost(inside, normalised0, normalised1, relative)
    for _ in range(iterations):
        candidate = _step(inside, normalised0, normalised1, relative)
        cost = np.inf if candidate is None else _robust_cost(candidate, normalised0, normalised1, relative)
        if candidate is None or not cost < best * (1 - 1e-9):
            break
        inside, best = candidate, cost
    return _unit(to_pixels @ inside @ normalise0)


def _step(H: np.ndarray, points0: np.ndarray, points1: np.ndarray, scale: float) -> np.ndarray | None:
    """One Gauss-Newton step on the eight entries of a homography whose last is 1."""
    error = project(points0, H) - points1
    squared = (error**2).sum(1)
    near = squared < (CUT * scale) ** 2  # false for points beyond the horizon, which are not numbers
    if near.sum() < 5:
        return None
    weights = np.repeat(1 / (1 + squared[near] / scale**2), 2)
    jacobian = _jacobian(H, points0[near])
    normal = (jacobian * weights[:, None]).T
    try:
        change = np.linalg.solve(normal @ jacobian, normal @ error[near].ravel())
    except np.linalg.LinAlgError:  # the near matches do not fix a homography
        return None
    return H - np.append(change, 0).reshape(3, 3)


def _jacobian(H: np.ndarray, points: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, "2*S 8"]:
    homogeneous = np.hstack([points, np.ones((len(points), 1))])
    mapped = homogeneous @ H.T
    w = mapped[:, 2:]
    x, y = (mapped[:, :2] / w).T
    zeros = np.zeros_like(homogeneous)
    row = homogeneous / w
    dx = np.hstack([row, zeros, -x[:, None] * row[:, :2]])
    dy = np.hstack([zeros, row, -y[:, None] * row[:, :2]])
    return np.stack([dx, dy], axis=1).reshape(-1, 8)


def _robust_cost(H: np.ndarray, points0: np.ndarray, points1: np.ndarray, scale: float) -> float:
    squared = ((project(points0, H) - points1) ** 2).sum(1) / scale**2
    return float(np.log1p(np.fmin(squared, CUT**2)).sum())  # fmin: beyond the horizon is beyond the cut


def _normalisation(points: Float[np.ndarray, "S 2"]) -> Float[np.ndarray, "3 3"]:
    """Centre and scale to unit spread, so that the eight entries are of one size (Hartley, 1997)."""
    centre = points.mean(0)
    factor = 1 / max(float(np.abs(points - centre).mean()), 1e-9)
    return np.array([[factor, 0, -factor * centre[0]], [0, factor, -factor * centre[1]], [0, 0, 1]])


def _unit(H: np.ndarray) -> Float[np.ndarray, "3 3"]:
    return H / H[2, 2]
