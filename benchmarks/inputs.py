"""Inputs that cost what real ones cost: speed depends on their sizes, hardly on their values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.invariance import invariances
from lisrd.train.data.triplets import Triplets
from lisrd.types import Keypoints, LocalFeatures, Selection

NAMES = tuple(kind.name for kind in invariances())
_SELECTION = Selection(NAMES, 0.1, (0.1, 0.0, -0.2, 0.3), rotation_variant=(True, False, True, False))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def unit(shape: tuple[int, ...], g: torch.Generator) -> Tensor:
    """Random unit vectors along the last axis."""
    return F.normalize(torch.randn(shape, generator=g), dim=-1)


def feature_pair(count: int, keep_turns: bool = True) -> tuple[LocalFeatures, LocalFeatures]:
    """Two images of 640 x 480 with `count` keypoints; half of those of image 1 correspond to some of image 0."""
    g = generator(count)
    features0 = _features(count, g, keep_turns)
    features1 = _features(count, g, keep_turns)
    half = count // 2
    noise = 0.05 * torch.randn((1, half, 4, 128), generator=g)
    features1.descriptors[:, :half] = F.normalize(features0.descriptors[:, -half:] + noise, dim=-1)
    return features0, features1


def _features(count: int, g: torch.Generator, keep_turns: bool) -> LocalFeatures:
    return LocalFeatures(
        keypoints=places(count, g),
        keypoint_scores=torch.rand((1, count), generator=g),
        descriptors=unit((1, count, 4, 128), g),
        meta_descriptors=unit((1, 4, 3, 3, 1024), g),
        image_size=torch.tensor([[640.0, 480.0]]),
        mask=torch.ones((1, count), dtype=torch.bool),
        selection=_SELECTION,
        turned_descriptors=unit((1, count, 3, 2, 128), g) if keep_turns else None,
        turned_meta_descriptors=unit((1, 3, 2, 3, 3, 1024), g) if keep_turns else None,
    )


def places(count: int, g: torch.Generator, width: int = 640, height: int = 480) -> Float[Tensor, "1 N 2"]:
    """Pixels anywhere in the image."""
    return torch.rand((1, count, 2), generator=g) * torch.tensor([width - 1.0, height - 1.0])


def given_keypoints(count: int, width: int, height: int) -> Keypoints:
    """Keypoints with sizes and orientations, as a detector would give them."""
    g = generator(count)
    xy = places(count, g, width, height)
    scores, scales = torch.rand((2, 1, count), generator=g)
    mask = torch.ones((1, count), dtype=torch.bool)
    return Keypoints(xy, scores, mask, 4 + 12 * scales, 2 * math.pi * scores)


def image(width: int, height: int) -> Float[Tensor, "1 3 H W"]:
    """Smooth noise: detectors find thousands of keypoints in it."""
    coarse = torch.rand((1, 3, height // 4, width // 4), generator=generator(0))
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def triplets(batch: int, width: int, height: int, count: int) -> Triplets:
    """A batch in which half of the images are turned and half are relit."""
    g = generator(batch)
    keypoints = places(3 * batch * count, g, width, height).view(3, batch, count, 2)
    angle = torch.linspace(-1.5, 1.5, batch)
    identity = torch.eye(3).expand(batch, 3, 3)
    changed = torch.arange(batch) % 2 == 0
    return Triplets(
        images=torch.rand((3, batch, 3, height, width), generator=g),
        keypoints=keypoints,
        mask=torch.ones((batch, count), dtype=torch.bool),
        H_0to1=identity,
        H_0to2=identity,
        angle=torch.where(changed, angle, 0.0),
        illumination_changed=torch.arange(batch) % 4 < 2,
        rotated=changed,
    )
