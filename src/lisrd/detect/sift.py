"""SIFT keypoints (Lowe, IJCV 2004) by OpenCV, and keypoints to and from OpenCV without loss.

OpenCV packs octave, layer and the offset between layers into `cv2.KeyPoint.octave`, and its descriptor reads
its pyramid there. `Keypoints` keeps only the size, which determines them: with sigma = 1.6 and three layers
per octave

    size = 2 sigma 2^(octave + (layer + offset) / 3),   layer in {1, 2, 3}, |offset| < 1/2

OpenCV doubles the image first, and by default places its keypoints a quarter of a pixel to the right of and
below where they are: an image turned by 180 degrees disagrees by 0.7 pixels. Its precise upscaling is right
and is used throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from lisrd.detect.orientation import dominant_orientations
from lisrd.errors import InputError
from lisrd.types import Keypoints, stack_keypoints

#: Diameter in pixels of a keypoint that has none of its own.
DEFAULT_SIZE = 12.0

_SIGMA = 1.6
_LAYERS = 3
_FIRST_OCTAVE = -1  # OpenCV doubles the image once
_NO_ANGLE = -1  # OpenCV's word for it


@dataclass(frozen=True, slots=True)
class SIFT:
    """SIFT on the grey 8-bit image, strongest keypoints first.

    A position with several orientations gives several keypoints of the same strength; `one_per_position`
    keeps the first, because descriptors without orientation would tie there. `contrast_threshold` and
    `edge_threshold` are OpenCV's; 0.01 is the paper's (OpenCV's own 0.04 leaves dark images nearly empty).
    """

    contrast_threshold: float = 0.01
    one_per_position: bool = True
    edge_threshold: float = 10.0

    def __call__(self, images: Float[Tensor, "B 3 H W"], max_keypoints: int | None = None) -> Keypoints:
        """At most `max_keypoints` per image, with `scales` (diameter, pixels) and `oris` (radians)."""
        singles = [from_cv2(self._detect(grey)[:max_keypoints]) for grey in grey_images(images)]
        return stack_keypoints(singles).to(images.device)

    def _detect(self, grey: UInt8[np.ndarray, "H W"]) -> list[cv2.KeyPoint]:
        sift = _opencv_sift(self.contrast_threshold, self.edge_threshold)
        # A stable sort: equal responses keep OpenCV's order, which does not depend on its threads.
        found = sorted(sift.detect(grey, None), key=lambda keypoint: -keypoint.response)
        if not self.one_per_position:
            return found
        first: dict[Sequence[float], cv2.KeyPoint] = {}
        for keypoint in found:
            first.setdefault(keypoint.pt, keypoint)
        return list(first.values())


def sift_descriptors(
    grey: UInt8[np.ndarray, "H W"], keypoints: Sequence[cv2.KeyPoint]
) -> Float32[np.ndarray, "N 128"]:
    """OpenCV's SIFT descriptors, each a function of the image and its own keypoint alone.

    `cv2.SIFT.compute` starts its pyramid at the finest octave among the keypoints it is given, and leaves out
    the doubling of the image where none needs it: up to half of the values then change with the company. One
    more keypoint on the finest octave keeps the pyramid that detection has.
    """
    if not keypoints:
        return np.empty((0, 128), np.float32)
    finest = 2 * _SIGMA * 2.0 ** (_FIRST_OCTAVE + 1 / _LAYERS)
    company = cv2.KeyPoint(0, 0, finest, 0, 0, packed_octave(finest))
    coarsest = int(math.log2(min(grey.shape)))  # the pyramid ends at one pixel
    described = [_within_octave(keypoint, coarsest) for keypoint in keypoints]
    _, descriptors = _opencv_sift().compute(grey, [*described, company])
    return descriptors[:-1]


def grey_images(images: Float[Tensor, "B 3 H W"]) -> list[UInt8[np.ndarray, "H W"]]:
    """The 8-bit grey images OpenCV works on; exact where the images came from 8 bits."""
    eight_bits = (images.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in eight_bits]


def from_cv2(keypoints: Sequence[cv2.KeyPoint]) -> Keypoints:
    """A batch of one, in the given order; `oris` is None where a keypoint has no angle (OpenCV's -1)."""
    rows = [(*k.pt, k.response, k.size, math.radians(k.angle)) for k in keypoints]
    table = torch.tensor(rows, dtype=torch.float32).reshape(1, len(rows), 5)
    scores, scales, oris = table[..., 2:].unbind(-1)
    all_oriented = all(k.angle != _NO_ANGLE for k in keypoints)
    mask = torch.ones_like(scores, dtype=torch.bool)
    return Keypoints(table[..., :2], scores, mask, scales, oris if all_oriented else None)


def to_cv2(keypoints: Keypoints, image: Float[Tensor, "1 3 H W"] | None = None) -> list[cv2.KeyPoint]:
    """The keypoints of one image as OpenCV's; `sift_descriptors` describes them as if OpenCV had found them.

    Keypoints without scales get `DEFAULT_SIZE`; those without orientations take the dominant gradient of
    `image` around them. Raises `InputError` for several images, or where `image` is needed and absent.
    """
    if len(keypoints) != 1:
        raise InputError(f"keypoints of {len(keypoints)} images; convert one image's: keypoints.select(i)")
    one = keypoints.select(0)
    scales = torch.full_like(one.scores, DEFAULT_SIZE) if one.scales is None else one.scales
    oris = one.oris
    if oris is None:
        if image is None:
            raise InputError("keypoints have no orientations; pass the image to estimate them")
        oris = dominant_orientations(image, one.xy, scales)
    columns = (
        one.xy[0, :, 0],
        one.xy[0, :, 1],
        scales[0],
        torch.rad2deg(oris[0].cpu().double()) % 360,
        one.scores[0],
    )
    return [
        cv2.KeyPoint(x, y, size, angle, score, packed_octave(size))
        for x, y, size, angle, score in zip(*(column.tolist() for column in columns), strict=True)
    ]


def packed_octave(size: float) -> int:
    """OpenCV's `KeyPoint.octave` of a SIFT keypoint of this size (diameter in pixels)."""
    level = _LAYERS * math.log2(max(size, 1e-6) / (2 * _SIGMA))
    # A size below what SIFT detects is described on the finest layer.
    nearest = max(round(level), _LAYERS * _FIRST_OCTAVE + 1)
    octave, layer = (nearest - 1) // _LAYERS, (nearest - 1) % _LAYERS + 1
    offset = max(level - nearest, -0.5)
    return (octave & 255) | (layer << 8) | (round((offset + 0.5) * 255) << 16)


def _opencv_sift(contrast_threshold: float = 0.04, edge_threshold: float = 10.0) -> cv2.SIFT:
    return cv2.SIFT.create(
        contrastThreshold=contrast_threshold, edgeThreshold=edge_threshold, enable_precise_upscale=True
    )


def _within_octave(keypoint: cv2.KeyPoint, coarsest: int) -> cv2.KeyPoint:
    """The same keypoint described on the coarsest octave there is, where its own would have no pixels."""
    octave = keypoint.octave & 255
    if octave >= 128 or octave <= coarsest:  # a byte with a sign
        return keypoint
    packed = coarsest | (keypoint.octave & ~255)
    x, y = keypoint.pt
    return cv2.KeyPoint(x, y, keypoint.size, keypoint.angle, keypoint.response, packed)
