"""Pairs of images whose homography is known without error, for tests and for the tables of docs/geometry.md.

Both views are drawn from one larger photograph, many samples a pixel, and reduced after the warp: neither side
carries a resampling error of its own, and half pixels cannot hide.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from lisrd.coordinates import scale_transform
from lisrd.verify.geometry import project

#: Width and height of a view, pixels.
SIZE = 224
#: Samples a pixel and side of which a view is the mean.
FINER = 4
MILD = np.array([[0.92, -0.2, 30.0], [0.18, 0.95, -6.0], [2e-4, -1e-4, 1.0]])


@dataclass(frozen=True, slots=True)
class Change:
    """What happens to image 1 after the warp, in this order: blur and noise are standard deviations."""

    blur: float = 0.0  # pixels
    gain: float = 1.0
    offset: float = 0.0  # grey values
    noise: float = 0.0  # grey values

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        values = image.astype(np.float64)
        if self.blur:
            values = cv2.GaussianBlur(values, (0, 0), self.blur)
        values = self.gain * values + self.offset
        values += np.random.default_rng(0).normal(0, self.noise, values.shape)
        return np.clip(np.round(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class KnownPair:
    """Two views, the homography from image 0 to image 1, and corners of image 0 with their true partners."""

    image0: UInt8[np.ndarray, "H W 3"]
    image1: UInt8[np.ndarray, "H W 3"]
    H: Float[np.ndarray, "3 3"]
    points0: Float[np.ndarray, "S 2"]
    truth1: Float[np.ndarray, "S 2"]

    def off(self, seed: int = 0, pixels: float = 0.7) -> Float[np.ndarray, "S 2"]:
        """The partners as a detector would place them: `pixels` is the standard deviation per axis."""
        return self.truth1 + np.random.default_rng(seed).normal(0, pixels, self.truth1.shape)


def view(photograph: UInt8[np.ndarray, "H W 3"], H: Float[np.ndarray, "3 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The photograph reduced to SIZE and warped by `H`, which is in the pixels of the views."""
    reduce = scale_transform(SIZE / photograph.shape[1], SIZE / photograph.shape[0]).numpy()
    enlarge = scale_transform(FINER, FINER).numpy()
    fine = cv2.warpPerspective(
        photograph, enlarge @ H @ reduce, (SIZE * FINER, SIZE * FINER), borderMode=cv2.BORDER_REFLECT
    )
    return cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def known_pair(
    photograph: UInt8[np.ndarray, "H W 3"], H: Float[np.ndarray, "3 3"] = MILD, change: Change = Change()
) -> KnownPair:
    """The photograph and its view under `H`, changed; corners keep 20 px from the border in both."""
    image0, image1 = view(photograph, np.eye(3)), change(view(photograph, H))
    grey = cv2.cvtColor(image0, cv2.COLOR_RGB2GRAY)
    points0 = cv2.goodFeaturesToTrack(grey, 150, 0.02, 5)[:, 0].astype(np.float64)
    truth1 = project(points0, H)
    inside = ((truth1 > 20) & (truth1 < SIZE - 21) & (points0 > 20) & (points0 < SIZE - 21)).all(1)
    return KnownPair(image0, image1, H, points0[inside], truth1[inside])


def corner_error(H: Float[np.ndarray, "3 3"] | None, truth: Float[np.ndarray, "3 3"]) -> float:
    """Mean distance of the view's corners from where they belong, pixels of image 1; infinite without a model."""
    if H is None:
        return float("inf")
    last = SIZE - 1.0
    corners = np.array([[0, 0], [last, 0], [last, last], [0, last]])
    return float(np.linalg.norm(project(corners, H) - project(corners, truth), axis=1).mean())
