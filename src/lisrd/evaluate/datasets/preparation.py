"""What is done to an image before it is described, and where its pixels go.

Each step returns the new image and the 3 x 3 homography from its old pixels to its new ones, so that ground
truth in original pixels stays valid whatever was done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lisrd.coordinates import scale_transform, translation_transform

RGB = UInt8[np.ndarray, "H W 3"]
#: The new image and the homography from the old pixels to the new ones.
Prepared = tuple[UInt8[np.ndarray, "h w 3"], Float[Tensor, "3 3"]]


@runtime_checkable
class Step(Protocol):
    """One change of an image; its `repr` is part of what identifies cached features."""

    def __call__(self, image: RGB) -> Prepared: ...


@dataclass(frozen=True, slots=True)
class ResizeAndCrop:
    """Fill `width` x `height` with the sides' ratio kept, then cut the centre out (the paper's HPatches)."""

    width: int
    height: int

    def __call__(self, image: RGB) -> Prepared:
        scale = max(self.width / image.shape[1], self.height / image.shape[0])
        size = max(self.width, round(image.shape[1] * scale)), max(self.height, round(image.shape[0] * scale))
        resized, resizing = _resized(image, *size)
        left, top = (size[0] - self.width) // 2, (size[1] - self.height) // 2
        cropped = resized[top : top + self.height, left : left + self.width]
        return np.ascontiguousarray(cropped), translation_transform(float(-left), float(-top)) @ resizing


@dataclass(frozen=True, slots=True)
class LongestSide:
    """Shrink to at most `pixels` on the longer side; smaller images stay as they are."""

    pixels: int

    def __call__(self, image: RGB) -> Prepared:
        scale = self.pixels / max(image.shape[:2])
        if scale >= 1:
            return image, torch.eye(3, dtype=torch.float64)
        return _resized(image, round(image.shape[1] * scale), round(image.shape[0] * scale))


@dataclass(frozen=True, slots=True)
class QuarterTurns:
    """`numpy.rot90(image, turns)`, counter-clockwise."""

    turns: int

    def __call__(self, image: RGB) -> Prepared:
        height, width = image.shape[:2]
        x, y = width - 1.0, height - 1.0
        rows = (
            [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
            [[0, 1, 0], [-1, 0, x], [0, 0, 1]],
            [[-1, 0, x], [0, -1, y], [0, 0, 1]],
            [[0, -1, y], [1, 0, 0], [0, 0, 1]],
        )[self.turns % 4]
        return np.ascontiguousarray(np.rot90(image, self.turns)), torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True, slots=True)
class Rotate:
    """Turn the content about the centre by `degrees`, from x towards y, on a canvas of the same size.

    What comes in from outside is the image mirrored: black corners would have keypoints along their edges.
    """

    degrees: float

    def __call__(self, image: RGB) -> Prepared:
        height, width = image.shape[:2]
        affine = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -self.degrees, 1.0)
        rotated = cv2.warpAffine(
            image, affine, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
        )
        return rotated, torch.from_numpy(np.vstack([affine, [0, 0, 1]]))


@dataclass(frozen=True, slots=True)
class Darken:
    """Light that falls off across the image: nothing lost on one side, `2 * stops` on the other.

    On linear intensities (gamma 2.2), with sensor noise and rounding to eight bits after it, so that what the
    dark side lost is lost. The seed decides where the light comes from and the noise.
    """

    stops: float
    seed: int = 0

    def __call__(self, image: RGB) -> Prepared:
        rng = np.random.default_rng(self.seed)
        falloff = _ramp(image.shape[0], image.shape[1], rng.uniform(0, 2 * np.pi))
        linear = (image / 255.0) ** 2.2 * np.exp2(-2 * self.stops * falloff)[..., None]
        noisy = linear ** (1 / 2.2) + rng.normal(0, 1.5 / 255, image.shape)
        darkened = np.round(noisy.clip(0, 1) * 255).astype(np.uint8)
        return darkened, torch.eye(3, dtype=torch.float64)


def _ramp(height: int, width: int, direction: float) -> Float[np.ndarray, "H W"]:
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    along = np.cos(direction) * x + (np.sin(direction) * y)[:, None]
    return (along - along.min()) / (along.max() - along.min())


def _resized(image: RGB, width: int, height: int) -> Prepared:
    shrinking = width < image.shape[1]
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR  # area averages what linear would alias
    transform = scale_transform(width / image.shape[1], height / image.shape[0])
    return cv2.resize(image, (width, height), interpolation=method), transform
