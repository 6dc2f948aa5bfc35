"""Homographies estimated from matches, and how far they move the corners of the image.

The estimators are part of the protocol: plain RANSAC with OpenCV's defaults is the paper's, MAGSAC++ what one
would use today. They stay as they are whatever `lisrd.verify` learns, so that numbers remain comparable.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.coordinates import warp_points

Estimator = Literal["ransac", "magsac"]

#: MAGSAC++ marginalises over noise up to this, pixels. Of 0.75 .. 3 this gave the most accurate homographies
#: on webcam pairs with one correct match in seven, within the spread of the iterations.
MAGSAC_PX = 1.0
#: The largest mean corner error, pixels, of a homography that counts as right.
ACCURATE_PX = 3.0


def estimate_homography(
    points0: Float[Tensor, "S 2"], points1: Float[Tensor, "S 2"], estimator: Estimator = "ransac"
) -> tuple[Float[Tensor, "3 3"] | None, Bool[Tensor, " S"]]:
    """The homography from image 0 to image 1 and its inliers; None where there is none to be found."""
    nothing = torch.zeros(len(points0), dtype=torch.bool)
    if len(points0) < 4:  # OpenCV raises below four
        return None, nothing
    source, target = points0.double().numpy(), points1.double().numpy()
    cv2.setRNGSeed(0)  # the same matches must give the same score, in any order and in any process
    try:
        if estimator == "ransac":
            H, inliers = cv2.findHomography(source, target, cv2.RANSAC)
        else:
            H, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, MAGSAC_PX, None, 20000, 0.9999)
    except cv2.error:  # degenerate samples make some estimators throw instead of returning nothing
        return None, nothing
    if H is None or H.shape != (3, 3) or not np.isfinite(H).all():
        return None, nothing
    return torch.from_numpy(H), torch.from_numpy(inliers.ravel() > 0)


def corner_error(
    H_estimated: Float[Tensor, "3 3"] | None, H_0to1: Float[Tensor, "3 3"], width: int, height: int
) -> float:
    """Mean distance, in pixels of image 0, of its corners from there and back: estimated out, true home.

    Infinite without an estimate, or where it sends a corner to infinity.
    """
    if H_estimated is None:
        return float("inf")
    right, bottom = width - 1.0, height - 1.0
    corners = torch.tensor([[0, 0], [right, 0], [0, bottom], [right, bottom]], dtype=torch.float64)
    moved = warp_points(warp_points(corners, H_estimated.double()), torch.linalg.inv(H_0to1.double()))
    error = float((moved - corners).norm(dim=-1).mean())
    return error if np.isfinite(error) else float("inf")


def homography_accuracy(error: float, threshold: float = ACCURATE_PX) -> float:
    """1 where the mean corner error is at most `threshold` pixels, otherwise 0."""
    return float(error <= threshold)
