"""Patches around many keypoints at once, read from an image that is prepared for the spacing of the samples.

Preparing takes the light out: the logarithm of the grey value, less its local mean, over its local deviation.
The neighbourhood grows with the spacing, so that two images of different scale are prepared alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.types import ImageLike

#: Spacings of samples are rounded to powers of this; the image is prepared once for each.
STEP = 2**0.5
MOST_LEVELS = 13  # spacings up to 64 pixels
#: Standard deviations in sample spacings: what is smoothed away, and what counts as local.
BLUR, LOCAL = 0.5, 4.0
#: Grey values of this size (of 255) and deviations of the logarithm below this are noise.
DARK, FAINT = 8.0, 0.05
#: Rows that cv2.remap takes, of places; of the image it takes fewer than 32,767.
_MOST_ROWS = 30_000
_MOST_PIXELS = 32_766


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """The logarithm of a grey image, and its levels, made when first asked for. All have the image's own pixels."""

    log_grey: Float[np.ndarray, "H W"]
    _levels: dict[int, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, image: ImageLike | PreparedImage) -> PreparedImage:
        """From whatever `lisrd.image.as_image` reads; a prepared image is itself.

        Raises InputError for a side of more than 32,766 pixels.
        """
        if isinstance(image, PreparedImage):
            return image
        grey = as_image(image)[0].mean(0).detach().cpu().numpy() * 255
        if max(grey.shape) > _MOST_PIXELS:
            raise InputError(
                f"an image of {grey.shape[1]} x {grey.shape[0]} pixels is too long to refine matches in: "
                f"resize it to at most {_MOST_PIXELS}, or leave refining out"
            )
        return cls(np.log(grey + DARK))

    def level(self, index: int) -> Float[np.ndarray, "H W"]:
        """The image prepared for a sample spacing of STEP ** index pixels."""
        if index not in self._levels:
            spacing = STEP**index
            signal = _blurred(self.log_grey, BLUR * spacing) - _blurred(self.log_grey, LOCAL * spacing)
            deviation = np.sqrt(_blurred(signal**2, LOCAL * spacing) + FAINT**2)
            self._levels[index] = signal / deviation
        return self._levels[index]

    def contains(self, points: Float[np.ndarray, "S K 2"]) -> Bool[np.ndarray, " S"]:
        """Whether all K points lie between the centres of the border pixels; of a patch its corners will do."""
        height, width = self.log_grey.shape
        x, y = points[..., 0], points[..., 1]
        return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).all(1)


def square_grid(side: int) -> Float[np.ndarray, "K 2"]:
    """Offsets of the samples of a patch in units of their spacing; the middle one is (0, 0)."""
    steps = np.arange(side, dtype=np.float32) - side // 2
    x, y = np.meshgrid(steps, steps)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def sample_places(
    centres: Float[np.ndarray, "S 2"], offsets: Float[np.ndarray, "S K 2"]
) -> Float[np.ndarray, "S K 2"]:
    """The pixels around each centre, in single precision."""
    centre = np.ascontiguousarray(centres, dtype=np.float32).view(np.complex64)
    # x and y as one number: a last axis of two is too short to be fast.
    return (centre + offsets.view(np.complex64)[..., 0]).view(np.float32).reshape(offsets.shape)


def sample_offsets(
    frames: Float[np.ndarray, "S 2 2"], grid: Float[np.ndarray, "K 2"]
) -> Float[np.ndarray, "S K 2"]:
    """frame @ (x, y): `frames` map units of the grid to pixels."""
    offsets = np.empty((len(frames), len(grid), 2), dtype=np.float32)
    for axis in range(2):  # many products of 2 x 2 matrices take five times as long
        column = frames[:, axis, :, None].astype(np.float32)
        offsets[..., axis] = column[:, 0] * grid[:, 0] + column[:, 1] * grid[:, 1]
    return offsets


def sample_patches(
    image: PreparedImage, places: Float[np.ndarray, "S K 2"], levels: Int[np.ndarray, " S"]
) -> Float[np.ndarray, "S K"]:
    """Bilinear samples of each row's own level; the border is repeated."""
    found = np.flatnonzero(np.bincount(levels))  # a tenth of the time of `unique`
    if len(found) == 1 and len(places) <= _MOST_ROWS:  # nothing to gather
        return _remap(image.level(int(found[0])), places)
    patches = np.empty(places.shape[:2], dtype=np.float32)
    for level in found:
        rows = np.flatnonzero(levels == level)
        for part in np.array_split(rows, -(-len(rows) // _MOST_ROWS)):
            patches[part] = _remap(image.level(int(level)), places[part])
    return patches


def spacing_levels(frames: Float[np.ndarray, "S 2 2"]) -> Int[np.ndarray, " S"]:
    """The level of `PreparedImage` for each frame: by the geometric mean of its two sample spacings."""
    spacing = np.sqrt(np.abs(np.linalg.det(frames)))
    return np.clip(np.round(np.log(np.maximum(spacing, 1e-3)) / np.log(STEP)), 0, MOST_LEVELS - 1).astype(int)


def _remap(image: np.ndarray, places: Float[np.ndarray, "S K 2"]) -> Float[np.ndarray, "S K"]:
    # Only None stands for an absent second map: an empty array, which the stubs would take, shuffles the samples.
    return cv2.remap(image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]


def _blurred(image: np.ndarray, sigma: float) -> Float[np.ndarray, "H W"]:
    side = 2 * math.ceil(3 * sigma) + 1  # OpenCV's own choice, of eight deviations, takes a third longer
    return cv2.GaussianBlur(image, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
