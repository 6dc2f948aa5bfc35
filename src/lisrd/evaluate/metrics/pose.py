"""Relative pose from matches, as SuperGlue's evaluation and everyone since measures it (arXiv 1911.11763)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: Inlier threshold of the essential matrix's RANSAC, pixels of the images that were matched.
RANSAC_PX = 1.0
#: A match is correct where its symmetric squared epipolar distance, in normalised coordinates, is below this.
EPIPOLAR_THRESHOLD = 5e-4


@dataclass(frozen=True, slots=True, eq=False)
class RelativePose:
    """Intrinsics of both cameras, in pixels of the original images, and the motion between them."""

    K0: Float[Tensor, "3 3"]
    K1: Float[Tensor, "3 3"]
    T_0to1: Float[Tensor, "4 4"]


def estimate_pose(
    points0: Float[Tensor, "S 2"],
    points1: Float[Tensor, "S 2"],
    truth: RelativePose,
    scales: tuple[float, float] = (1.0, 1.0),
) -> tuple[np.ndarray, np.ndarray, Bool[Tensor, " S"]] | None:
    """Rotation (3, 3), unit translation (3,) and inliers; None where no essential matrix is found.

    `scales` are the sizes at which the images were matched over their original ones, in whose pixels the points are.
    """
    if len(points0) < 5:
        return None
    source, target = normalised(points0, truth.K0).numpy(), normalised(points1, truth.K1).numpy()
    focals = (scale * K.diagonal()[:2] for scale, K in zip(scales, (truth.K0, truth.K1), strict=True))
    focal = float(torch.cat(list(focals)).mean())
    cv2.setRNGSeed(0)
    try:
        essential, mask = cv2.findEssentialMat(
            source, target, np.eye(3), threshold=RANSAC_PX / focal, prob=0.99999, method=cv2.RANSAC
        )
    except cv2.error:
        return None
    if essential is None or essential.size == 0:
        return None
    return _best_decomposition(essential, source, target, mask)


def _best_decomposition(
    essential: np.ndarray, source: np.ndarray, target: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Bool[Tensor, " S"]] | None:
    best, most = None, 0
    for candidate in np.split(essential, len(essential) // 3):  # five points may leave several solutions
        count, R, t, in_front = cv2.recoverPose(candidate, source, target, np.eye(3), 1e9, mask=mask.copy())[
            :4
        ]
        if count > most:
            best, most = (R, t[:, 0], torch.from_numpy(in_front.ravel() > 0)), count
    return best


def pose_error(R: np.ndarray, t: np.ndarray, T_0to1: Float[Tensor, "4 4"]) -> float:
    """The larger of the angles between the rotations and between the directions of translation, degrees.

    The sign of the translation is not observable from an essential matrix, so it does not count.
    """
    true = T_0to1.double().numpy()
    cosine = (np.trace(R.T @ true[:3, :3]) - 1) / 2
    rotation = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    length = np.linalg.norm(t) * np.linalg.norm(true[:3, 3])
    if length == 0:  # the camera only turned: its translation has no direction to miss
        return float(rotation)
    direction = np.degrees(np.arccos(np.clip(abs(t @ true[:3, 3]) / length, 0, 1)))
    return float(max(rotation, direction))


def epipolar_correct(
    points0: Float[Tensor, "S 2"], points1: Float[Tensor, "S 2"], truth: RelativePose
) -> Bool[Tensor, " S"]:
    """The matches whose symmetric epipolar distance to the true pose is below `EPIPOLAR_THRESHOLD`."""
    ray0, ray1 = _homogeneous(normalised(points0, truth.K0)), _homogeneous(normalised(points1, truth.K1))
    T = truth.T_0to1.double()
    essential = _skew(T[:3, 3]) @ T[:3, :3]
    line1, line0 = ray0 @ essential.T, ray1 @ essential
    algebraic = (ray1 * line1).sum(dim=-1).square()
    weights = 1 / line1[:, :2].square().sum(dim=-1) + 1 / line0[:, :2].square().sum(dim=-1)
    return algebraic * weights < EPIPOLAR_THRESHOLD


def normalised(points: Float[Tensor, "S 2"], K: Float[Tensor, "3 3"]) -> Float[Tensor, "S 2"]:
    """Pixels to the plane at distance 1 of a camera without skew."""
    K = K.double()
    return (points.double() - K[:2, 2]) / torch.stack([K[0, 0], K[1, 1]])


def _homogeneous(points: Float[Tensor, "S 2"]) -> Float[Tensor, "S 3"]:
    return torch.cat([points, torch.ones_like(points[:, :1])], dim=-1)


def _skew(t: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    x, y, z = t.tolist()
    return t.new_tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]])
