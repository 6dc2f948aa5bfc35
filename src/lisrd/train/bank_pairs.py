"""Pairs of images as a bank sees them: keypoints detected in both, described, and their true correspondences.

Detecting in both images, instead of carrying keypoints from one to the other, gives them the scales, orientations and
errors of position that they have in use; the descriptors of a bank are frozen, and depend on these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lisrd.coordinates import warp_points
from lisrd.describe.bank import Bank
from lisrd.detect import Detector
from lisrd.train.data.triplets import Triplets
from lisrd.types import Keypoints


@dataclass(frozen=True, slots=True)
class Described:
    """Everything that a bank's members say of a batch of images."""

    keypoints: Keypoints
    descriptors: Float[Tensor, "B N V D"]
    image_size: Float[Tensor, "B 2"]


@dataclass(frozen=True, slots=True)
class Corresponding:
    """Row k of image 0 belongs to row k of image 1 where `mask` is true."""

    index0: Int[Tensor, "B S"]
    index1: Int[Tensor, "B S"]
    mask: Bool[Tensor, "B S"]


@torch.no_grad()
def describe_pairs(
    bank: Bank, detector: Detector, triplets: Triplets, max_keypoints: int, radius: float
) -> tuple[Described, Described, Corresponding]:
    """Images 0 and 1 of each triplet; correspondences are mutual nearest neighbours within `radius` pixels."""
    sides = tuple(_described(bank, detector, images, max_keypoints) for images in triplets.images[:2])
    k0, k1 = (side.keypoints for side in sides)
    return *sides, corresponding(k0, k1, triplets.H_0to1, radius)


def _described(bank: Bank, detector: Detector, images: Float[Tensor, "B 3 H W"], max_keypoints: int) -> Described:
    keypoints = detector(images, max_keypoints)
    size = images.new_tensor([[images.shape[3], images.shape[2]]]).expand(len(images), 2)
    return Described(keypoints, bank.descriptors(images, keypoints), size)


def corresponding(
    keypoints0: Keypoints, keypoints1: Keypoints, H_0to1: Float[Tensor, "B 3 3"], radius: float
) -> Corresponding:
    """Keypoints that are each other's nearest under the homography, at most `radius` px apart in image 1."""
    distance = torch.cdist(warp_points(keypoints0.xy, H_0to1), keypoints1.xy)
    hidden = ~(keypoints0.mask[:, :, None] & keypoints1.mask[:, None, :])
    distance = distance.masked_fill(hidden | ~distance.isfinite(), torch.inf)
    if distance.numel() == 0:  # argmin is undefined over an empty axis
        none = keypoints0.mask.new_zeros((len(keypoints0), 0), dtype=torch.long)
        return Corresponding(none, none, none.bool())
    nearest1, nearest0 = distance.argmin(2), distance.argmin(1)
    index = torch.arange(distance.shape[1], device=distance.device)
    found = (nearest0.gather(1, nearest1) == index) & (distance.amin(2) <= radius)
    # The found rows first, in their order, so that the others can be cut off.
    order = found.int().argsort(1, descending=True, stable=True)[:, : int(found.sum(1).max())]
    return Corresponding(order, nearest1.gather(1, order), found.gather(1, order))


def rows(values: Float[Tensor, "B N *rest"], index: Int[Tensor, "B S"]) -> Float[Tensor, "B S *rest"]:
    """The chosen rows of each image."""
    batch = torch.arange(len(values), device=values.device)[:, None]
    return values[batch, index]
