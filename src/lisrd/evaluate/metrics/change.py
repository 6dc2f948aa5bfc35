"""What changed between the images of a pair, measured from the ground truth: the axes of the report's curves."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

#: Added to 8-bit intensities before the logarithm: below it a sensor gives noise.
NOISE_FLOOR = 8.0


def similarity_at_centre(H_0to1: Float[Tensor, "3 3"], width: int, height: int) -> tuple[float, float]:
    """Rotation (degrees in (-180, 180], from x towards y) and scale of a homography at the image's centre.

    They belong to the similarity transform nearest to its derivative there; a mirroring has no rotation and
    counts as 0 degrees.
    """
    J = _derivative(H_0to1.double(), (width - 1) / 2, (height - 1) / 2)
    determinant = float(torch.linalg.det(J))
    if determinant <= 0:
        return 0.0, abs(determinant) ** 0.5
    angle = torch.atan2(J[1, 0] - J[0, 1], J[0, 0] + J[1, 1])
    return float(torch.rad2deg(angle)), determinant**0.5


def _derivative(H: Float[Tensor, "3 3"], x: float, y: float) -> Float[Tensor, "2 2"]:
    u, v, w = H @ H.new_tensor([x, y, 1.0])
    return (H[:2, :2] - torch.stack([u, v])[:, None] * H[2, :2] / w) / w


def light_change(
    image0: UInt8[np.ndarray, "H0 W0 3"], image1: UInt8[np.ndarray, "H1 W1 3"], H_0to1: Float[Tensor, "3 3"]
) -> float | None:
    """Mean absolute difference of the luminance over the area both images show, in photographic stops.

    Image 1 is carried to image 0 and both are blurred, because only the light is asked for, not the detail;
    None without a common area.
    """
    height, width = image0.shape[:2]
    size, inverse = (width, height), cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
    H = H_0to1.double().numpy()
    warped = cv2.warpPerspective(_stops(image1), H, size, flags=inverse)
    seen = cv2.warpPerspective(np.ones(image1.shape[:2], np.uint8), H, size, flags=inverse) > 0
    return float(np.abs(_stops(image0) - warped)[seen].mean()) if seen.any() else None


def _stops(image: UInt8[np.ndarray, "H W 3"]) -> Float[np.ndarray, "H W"]:
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 4.0).astype(np.float32)
    return 2.2 * np.log2(grey + NOISE_FLOOR)  # stored intensities are light to the power of 1 / 2.2
