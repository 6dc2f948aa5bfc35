"""An image described at smaller sizes: the octaves of an image pyramid, one describer for all of them.

Octave k is the image at 1 / 2^k of its size; a network encodes it in 1 / 4^k of the time, and then describes as many
keypoints. These, and everything else that the features say of places, stay in pixels of the original: octaves of one
image differ in their descriptors alone, and `lisrd.match.octave` chooses which of them to match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.coordinates import scale_transform, warp_points
from lisrd.describe.field import MIN_SIDE, pad_to_stride
from lisrd.describe.protocol import Describer
from lisrd.types import Keypoints, LocalFeatures

#: What the descriptors of an octave weigh beside those of the next larger one.
HALVED = 0.8

#: Full size, half and a quarter: with what a describer bears by itself, scale changes up to about 5.
OCTAVES = (0, 1, 2)


def octave_names(name: str) -> list[str]:
    """What the octaves of a describer are called, where each is a describer of its own: NAME, NAME@2, NAME@4."""
    return [f"{name}@{1 << octave}" if octave else name for octave in OCTAVES]


#: What is written behind a describer's name, and the octaves whose descriptors it then gives, side by side.
_SUFFIXES = {"@1+2": (0, 1)} | {suffix: (k,) for k, suffix in enumerate(octave_names("")) if suffix}


def split_octaves(name: str) -> tuple[str, tuple[int, ...]]:
    """The describer, and the octaves that its name asks for: the full size alone where there is nothing behind it."""
    for suffix, octaves in _SUFFIXES.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix), octaves
    return name, (0,)


def octaves_that_fit(images: Float[Tensor, "B 3 H W"]) -> tuple[int, ...]:
    """Those of `OCTAVES` whose image a network can still describe; the full size always."""
    shorter = min(images.shape[-2:])
    return tuple(octave for octave in OCTAVES if not octave or shorter >= MIN_SIDE << octave)


@torch.no_grad()
def describe_octave(
    describer: Describer,
    images: Float[Tensor, "B 3 H W"],
    keypoints: Keypoints,
    octave: int,
    keep_turns: bool = True,
) -> LocalFeatures:
    """Features of the keypoints (pixels of the original) from the images at 1 / 2^octave of their size.

    Areas of 2^octave pixels are averaged: no aliasing, and a turned image stays the turned image. Sides that they do
    not divide are padded first, which moves the tiles of the meta descriptors by as many pixels.

    Raises InputError where the describer does: the smaller images are below its smallest side.
    """
    if not octave:
        return describer.describe(images, keypoints, keep_turns)
    reduced, placed = _reduced(images, keypoints, 1 << octave)
    features = describer.describe(reduced, placed, keep_turns)
    height, width = images.shape[-2:]
    device = features.keypoints.device
    return replace(
        features,
        keypoints=keypoints.xy.to(device),
        image_size=features.image_size.new_tensor([[width, height]]).expand(len(images), 2),
        scales=None if keypoints.scales is None else keypoints.scales.to(device),
    )


def with_smaller_octaves(
    describer: Describer, images: Float[Tensor, "B 3 H W"], features: LocalFeatures
) -> list[LocalFeatures]:
    """The features of the images at full size, and behind them those of the same keypoints in the octaves that fit."""
    keypoints = Keypoints(
        features.keypoints, features.keypoint_scores, features.mask, features.scales, features.oris
    )
    keep_turns = features.turned_descriptors is not None
    smaller = octaves_that_fit(images)[1:]
    return [features, *(describe_octave(describer, images, keypoints, o, keep_turns) for o in smaller)]


class OctaveDescriber:
    """A describer that sees every image at other sizes: `pyramid@2` and `pyramid@4`, or `pyramid@1+2`, at two.

    Of several octaves the descriptors stand side by side, those of smaller ones with less weight; meta descriptors are
    those of the first.
    """

    def __init__(self, describer: Describer, octaves: tuple[int, ...]) -> None:
        suffix = next(suffix for suffix, known in _SUFFIXES.items() if known == octaves)
        self.name = f"{describer.name}{suffix}"
        self.describer = describer
        self.octaves = octaves

    @property
    def config(self) -> dict[str, Any]:
        return {**self.describer.config, "describer": self.name}

    def describe(
        self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints, keep_turns: bool = True
    ) -> LocalFeatures:
        """See `describe_octave`."""
        described = [describe_octave(self.describer, images, keypoints, o, keep_turns) for o in self.octaves]
        return side_by_side(described, [HALVED**k for k in range(len(described))])


def side_by_side(described: Sequence[LocalFeatures], weights: Sequence[float]) -> LocalFeatures:
    """The features of the first, with the descriptors of all, each times its weight; unit vectors again."""
    if len(described) == 1:
        return described[0]

    def joined(name: str) -> Tensor | None:
        parts = [getattr(features, name) for features in described]
        if parts[0] is None:
            return None
        weighted = [weight * part for weight, part in zip(weights, parts, strict=True)]
        return F.normalize(torch.cat(weighted, dim=-1), dim=-1)

    both: dict[str, Any] = {name: joined(name) for name in ("descriptors", "turned_descriptors")}
    return replace(described[0], **both)


def _reduced(
    images: Float[Tensor, "B 3 H W"], keypoints: Keypoints, factor: int
) -> tuple[Float[Tensor, "B 3 h w"], Keypoints]:
    padded, (left, top) = pad_to_stride(images, factor)
    offset = keypoints.xy.new_tensor([left, top])
    xy = warp_points(keypoints.xy + offset, scale_transform(1 / factor, 1 / factor).to(keypoints.xy))
    scales = None if keypoints.scales is None else keypoints.scales / factor
    return F.avg_pool2d(padded, factor), replace(keypoints, xy=xy, scales=scales)
