"""One image looked at several times: at other sizes, and in a mirror. What one look misses another sees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.coordinates import scale_transform, warp_points
from lisrd.describe import Describer
from lisrd.describe.octaves import HALVED, side_by_side
from lisrd.types import Keypoints, LocalFeatures


@dataclass(frozen=True, slots=True)
class Look:
    """The image at `size` times its width and height, and whether in a mirror."""

    size: float = 1.0
    mirrored: bool = False

    @property
    def weight(self) -> float:
        """Of the descriptors beside those of full size: `HALVED` for every octave in between, to either side."""
        return float(HALVED ** abs(math.log2(self.size)))

    def __call__(
        self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints
    ) -> tuple[Float[Tensor, "B 3 h w"], Keypoints]:
        """The images and their keypoints, as this look shows them."""
        if self.size != 1:
            images, keypoints = _resized(images, keypoints, self.size)
        return _mirrored(images, keypoints) if self.mirrored else (images, keypoints)


def looks(sizes: Sequence[float], mirrored: bool) -> list[Look]:
    """Full size first; then the other sizes; where `mirrored`, all of them in a mirror too.

    Raises ValueError for a size that is not positive.
    """
    if any(size <= 0 for size in sizes):
        raise ValueError(f"sizes are {list(sizes)}; each must be above 0: 0.5 for half the width and height")
    seen = [Look(size) for size in dict.fromkeys([1.0, *sizes])]
    return seen + [replace(look, mirrored=True) for look in seen] if mirrored else seen


def describe_looks(
    describer: Describer, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints, seen: Sequence[Look]
) -> LocalFeatures:
    """The features of the first look, with the descriptors of all side by side, unit vectors again."""
    features = [describer.describe(*look(images, keypoints), keep_turns=False) for look in seen]
    return side_by_side(features, [look.weight for look in seen])


def _resized(
    images: Float[Tensor, "B 3 H W"], keypoints: Keypoints, size: float
) -> tuple[Float[Tensor, "B 3 h w"], Keypoints]:
    height, width = images.shape[-2:]
    new = [round(side * size) for side in (height, width)]
    resized = F.interpolate(images, new, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    H = scale_transform(new[1] / width, new[0] / height).to(keypoints.xy)
    scales = None if keypoints.scales is None else keypoints.scales * size
    return resized, replace(keypoints, xy=warp_points(keypoints.xy, H), scales=scales)


def _mirrored(
    images: Float[Tensor, "B 3 H W"], keypoints: Keypoints
) -> tuple[Float[Tensor, "B 3 H W"], Keypoints]:
    x, y = keypoints.xy.unbind(-1)
    oris = None if keypoints.oris is None else math.pi - keypoints.oris
    return images.flip(-1), replace(keypoints, xy=torch.stack([images.shape[-1] - 1 - x, y], -1), oris=oris)
