"""SIFT keypoints (Lowe, IJCV 2004) by OpenCV, and keypoints to and from OpenCV without loss.

OpenCV packs octave, layer and the offset between layers into `cv2.KeyPoint.octave`, and its descriptor reads its
pyramid there. `Keypoints` keeps only the size, which determines them: with sigma = 1.6 and three layers per octave

    size = 2 sigma 2^(octave + (layer + offset) / 3),   layer in {1, 2, 3}, |offset| < 1/2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lisrd.detect.orientation import dominant_orientations
from lisrd.errors import InputError
from lisrd.types import Keypoints, stack_keypoints

#: Diameter in pixels of a keypoint that has none of its own.
DEFAULT_SIZE = 12.0

_SIGMA = 1.6
_LAYERS = 3
_FIRST_OCTAVE = -1  # OpenCV doubles the image once


@dataclass(frozen=True, slots=True)
class SIFT:
    """SIFT on the grey 8-bit image, strongest keypoints first.

    A position with several orientations gives several keypoints of the same strength; `one_per_position` keeps the
    first, because descriptors without orientation would tie there. `contrast_threshold` and `edge_threshold` are
    OpenCV's; 0.01 is the paper's (OpenCV's own 0.04 leaves dark images nearly empty).
    """

    contrast_threshold: float = 0.01
    one_per_position: bool = True
    edge_threshold: float = 10.0

    def __call__(self, images: Float[Tensor, "B 3 H W"], max_keypoints: int | None = None) -> Keypoints:
        """At most `max_keypoints` per image, with `scales` (diameter, pixels) and `oris` (radians)."""
        singles = [from_cv2(self._detect(grey)[:max_keypoints]) for grey in grey_images(images)]
        return stack_keypoints(singles).to(images.device)

    def _detect(self, grey: UInt8[np.ndarray, "H W"]) -> list[cv2.KeyPoint]:
        sift = cv2.SIFT_create(contrastThreshold=self.contrast_threshold, edgeThreshold=self.edge_threshold)
        # Equal responses keep OpenCV's order, which does not depend on its threads.
        found = sorted(sift.detect(grey, None), key=lambda k: -k.response)
        return list({k.pt: k for k in reversed(found)}.values())[::-1] if self.one_per_position else found


def grey_images(images: Float[Tensor, "B 3 H W"]) -> list[UInt8[np.ndarray, "H W"]]:
    """The 8-bit grey images OpenCV works on; exact where the images came from 8 bits."""
    eight_bits = (images.detach() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in eight_bits]


def from_cv2(keypoints: Sequence[cv2.KeyPoint]) -> Keypoints:
    """A batch of one, in the given order."""
    rows = [(*k.pt, k.response, k.size, math.radians(k.angle)) for k in keypoints]
    table = torch.tensor(rows, dtype=torch.float32).reshape(1, len(rows), 5)
    xy, (scores, scales, oris) = table[..., :2].clone(), table[..., 2:].unbind(-1)
    return Keypoints(xy, scores, torch.ones_like(scores, dtype=torch.bool), scales, oris)


def to_cv2(keypoints: Keypoints, image: Float[Tensor, "1 3 H W"] | None = None) -> list[cv2.KeyPoint]:
    """The keypoints of one image as OpenCV's, such that `cv2.SIFT.compute` describes them as if it had found them.

    Keypoints without scales get `DEFAULT_SIZE`; those without orientations take the dominant gradient of `image`
    around them. Raises `InputError` for several images, or where `image` is needed and absent.
    """
    if len(keypoints) != 1:
        raise InputError(
            f"OpenCV keypoints belong to one image, not {len(keypoints)}; use keypoints.select(i)"
        )
    one = keypoints.select(0)
    scales = torch.full_like(one.scores, DEFAULT_SIZE) if one.scales is None else one.scales
    oris = one.oris
    if oris is None:
        if image is None:
            raise InputError("keypoints have no orientations; pass the image to estimate them")
        oris = dominant_orientations(image, one.xy, scales)
    rows = zip(one.xy[0].tolist(), scales[0].tolist(), oris[0].tolist(), one.scores[0].tolist(), strict=True)
    return [
        cv2.KeyPoint(x, y, size, math.degrees(angle) % 360, score, packed_octave(size))
        for (x, y), size, angle, score in rows
    ]


def packed_octave(size: float) -> int:
    """OpenCV's `KeyPoint.octave` of a SIFT keypoint of this size (diameter in pixels)."""
    level = _LAYERS * math.log2(max(size, 1e-6) / (2 * _SIGMA))
    # Sizes below what SIFT can detect are described on its finest layer.
    nearest = max(round(level), _LAYERS * _FIRST_OCTAVE + 1)
    octave, layer = (nearest - 1) // _LAYERS, (nearest - 1) % _LAYERS + 1
    offset = min(max(level - nearest, -0.5), 0.5)
    return (octave & 255) | (layer << 8) | (round((offset + 0.5) * 255) << 16)
