"""What people who register images ask for: by which angle and scale they differ, and a picture to check it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.types import ImageLike
from lisrd.verify.geometry import project
from lisrd.verify.local_affine import affine_of_homography
from lisrd.verify.robust import Points, as_matrix

#: Places per side of image 0 at which the local rotation and scale are read.
_GRID = 9


@dataclass(frozen=True, slots=True)
class RotationScale:
    """How image 1 shows the content of image 0.

    `angle` (degrees, from x towards y, which is clockwise on the screen) and `scale` (2: twice as large) are
    medians over image 0; `angle_spread` and `scale_spread` (a factor) are their standard deviations over the
    image: zero for a similarity, large under perspective. `angle_error` (degrees) and `scale_error` (a factor) are
    standard errors of the estimate, NaN where no matches were given. "Factor" f means from scale / f to scale * f.
    """

    angle: float
    scale: float
    angle_spread: float
    scale_spread: float
    angle_error: float = math.nan
    scale_error: float = math.nan


def relative_rotation_scale(
    H: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
    points0: Points | None = None,
    points1: Points | None = None,
) -> RotationScale:
    """Rotation and scale of the homography `H` over image 0 of `size` (width, height) pixels.

    The inliers `points0` and `points1` (S, 2) give the standard errors. Raises InputError for a homography that
    shows nothing of image 0.
    """
    H = np.asarray(H, dtype=np.float64)
    x, y = np.meshgrid(*(np.linspace(0, length - 1, _GRID) for length in size))
    places = np.stack([x.ravel(), y.ravel()], axis=1)
    places = places[np.isfinite(project(places, H)).all(1)]
    if not len(places):
        raise InputError(
            "the homography mirrors image 0 or puts all of it beyond the horizon: check the model"
        )
    factor = _similarity_of(affine_of_homography(H, places))
    middle = np.exp(1j * np.angle((factor / np.abs(factor)).sum()))
    turned = np.angle(factor / middle)
    angle = float(np.median(turned) + np.angle(middle))
    log_scale = np.log(np.abs(factor))
    error = _relative_error(H, points0, points1)
    return RotationScale(
        math.degrees(math.remainder(angle, 2 * math.pi)),
        math.exp(np.median(log_scale)),
        math.degrees(turned.std()),
        math.exp(log_scale.std()),
        math.degrees(error),
        math.exp(error),
    )


def align_images(
    image0: ImageLike, image1: ImageLike, H: Float[np.ndarray, "3 3"], weight: float = 0.5
) -> UInt8[np.ndarray, "H1 W1 3"]:
    """Image 0 warped into image 1 and blended with it: `weight` of image 0 where it shows anything.

    Raises InputError for a homography that is not an invertible 3 x 3 matrix.
    """
    H = np.asarray(H, dtype=np.float64)
    if H.shape != (3, 3) or not np.isfinite(H).all() or abs(np.linalg.det(H)) < 1e-12:
        raise InputError("H must be an invertible 3 x 3 homography, image 0 to image 1: check the model")
    pixels0, pixels1 = _pixels(image0), _pixels(image1)
    size = (pixels1.shape[1], pixels1.shape[0])
    flags = cv2.INTER_LINEAR
    centre = H[2] @ [pixels0.shape[1] / 2, pixels0.shape[0] / 2, 1]
    seen = weight * _on_side(centre, H, size)[..., None]
    warped = seen * cv2.warpPerspective(_smoothed_to(pixels0, H), H, size, flags=flags)
    ones = np.ones(pixels0.shape[:2], dtype=np.float32)
    shown = seen * cv2.warpPerspective(ones, H, size, flags=flags)[..., None]
    return np.clip(np.round((1 - shown) * pixels1 + warped), 0, 255).astype(np.uint8)


def _on_side(side: float, H: Float[np.ndarray, "3 3"], size: tuple[int, int]) -> Bool[np.ndarray, "H1 W1"]:
    """Pixels of image 1 on that side, by its sign, of image 0's horizon; on the other cv2 would draw it mirrored."""
    inverse = np.linalg.inv(H)
    x, y = (np.arange(length, dtype=np.float64) for length in size)
    depth = inverse[2, 0] * x + (inverse[2, 1] * y + inverse[2, 2])[:, None]
    return depth * side > 0


def _similarity_of(affine: Float[np.ndarray, "S 2 2"]) -> np.ndarray:
    """Scale and rotation of the polar decomposition as one complex factor; the scale keeps the area."""
    direction = affine[:, 0, 0] + affine[:, 1, 1] + 1j * (affine[:, 1, 0] - affine[:, 0, 1])
    return np.sqrt(np.linalg.det(affine)) * direction / np.abs(direction)


def _relative_error(H: np.ndarray, points0: Points | None, points1: Points | None) -> float:
    """Standard error of the rotation (radians) and of log scale: what similarity fitted to the residuals shows."""
    if points0 is None or points1 is None:
        return math.nan
    array0, array1 = as_matrix(points0, "points0", 2), as_matrix(points1, "points1", 2)
    if len(array0) < 5:  # four matches fit a homography exactly and leave no residual to judge by
        return math.nan
    mapped = project(array0, H)
    variance = np.nansum((mapped - array1) ** 2) / (2 * len(array0) - 8)
    lever = np.nansum((mapped - np.nanmean(mapped, axis=0)) ** 2)
    return float(np.sqrt(variance / lever)) if lever > 0 else math.nan


def _pixels(image: ImageLike) -> Float[np.ndarray, "H W 3"]:
    return np.ascontiguousarray(as_image(image)[0].permute(1, 2, 0).detach().cpu().numpy() * 255)


def _smoothed_to(pixels: np.ndarray, H: np.ndarray) -> Float[np.ndarray, "H W 3"]:
    """The image without the detail that its warped, smaller version cannot show."""
    height, width = pixels.shape[:2]
    centre = np.array([[(width - 1) / 2, (height - 1) / 2]])
    scale = math.sqrt(abs(np.linalg.det(affine_of_homography(H, centre)[0])))
    if not 0 < scale < 1:
        return pixels
    # Beyond the image's own size nothing is left to smooth, and OpenCV's kernel would outgrow its integers.
    sigma = min(0.5 * math.sqrt(max(1 / scale - 1, 0)) * math.sqrt(1 / scale + 1), max(height, width))
    return cv2.GaussianBlur(pixels, (0, 0), sigma)
