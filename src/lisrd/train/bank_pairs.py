"""Pairs of images as a bank sees them: keypoints detected in both, described, and their true correspondences.

Detecting in both images, instead of carrying keypoints from one to the other, gives them the scales, orientations and
errors of position that they have in use. The members of a bank are frozen, so that a pair is described once and can
be learnt from as often as wanted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lisrd.coordinates import warp_points
from lisrd.describe.bank import Bank
from lisrd.detect import build_detector
from lisrd.train.data.triplets import Triplets
from lisrd.types import Keypoints


@dataclass(frozen=True, slots=True)
class PairsConfig:
    """The pairs that a selection is learnt from: described once, drawn from in every step."""

    count: int = 512
    detector: str = "sift"
    max_keypoints: int = 1000  # per image; the tiles are summarised from all of them
    correct_radius: float = 3.0  # px: mutual nearest keypoints within it correspond


@dataclass(frozen=True, slots=True, eq=False)
class DescribedPairs:
    """P pairs of images, described. Row s of `index0` belongs to row s of `index1` where `corresponds` is true."""

    xy0: Float[Tensor, "P N0 2"]
    xy1: Float[Tensor, "P N1 2"]
    mask0: Bool[Tensor, "P N0"]
    mask1: Bool[Tensor, "P N1"]
    descriptors0: Float[Tensor, "P N0 V D"]
    descriptors1: Float[Tensor, "P N1 V D"]
    index0: Int[Tensor, "P S"]
    index1: Int[Tensor, "P S"]
    corresponds: Bool[Tensor, "P S"]
    image_size: Float[Tensor, "P 2"]
    rotated: Bool[Tensor, " P"]
    illumination_changed: Bool[Tensor, " P"]

    def __len__(self) -> int:
        return len(self.image_size)

    def choose(self, index: Int[Tensor, " Q"]) -> DescribedPairs:
        """The pairs of these numbers."""
        return DescribedPairs(*(getattr(self, f.name)[index] for f in fields(self)))


class PairDescriber:
    """Detects and describes images 0 and 1 of triplets."""

    def __init__(self, bank: Bank, config: PairsConfig) -> None:
        """Raises InputError for an unknown detector."""
        self.bank = bank
        self.config = config
        self.detector = build_detector(config.detector)

    @torch.no_grad()
    def __call__(self, triplets: Triplets) -> DescribedPairs:
        """Descriptors are kept in half precision: there are many, and they have no more to say."""
        images = triplets.images[:2]
        k0, k1 = (self.detector(side, self.config.max_keypoints) for side in images)
        d0, d1 = (self.bank.descriptors(side, k).half() for side, k in zip(images, (k0, k1), strict=True))
        index0, index1, mask = corresponding(k0, k1, triplets.H_0to1, self.config.correct_radius)
        size = images.new_tensor([[images.shape[4], images.shape[3]]]).expand(len(images[0]), 2)
        changed = (triplets.rotated, triplets.illumination_changed)
        return DescribedPairs(k0.xy, k1.xy, k0.mask, k1.mask, d0, d1, index0, index1, mask, size, *changed)


def corresponding(
    keypoints0: Keypoints, keypoints1: Keypoints, H_0to1: Float[Tensor, "P 3 3"], radius: float
) -> tuple[Int[Tensor, "P S"], Int[Tensor, "P S"], Bool[Tensor, "P S"]]:
    """Keypoints that are each other's nearest under the homography, at most `radius` px apart in image 1."""
    distance = torch.cdist(warp_points(keypoints0.xy, H_0to1), keypoints1.xy)
    hidden = ~(keypoints0.mask[:, :, None] & keypoints1.mask[:, None, :])
    distance = distance.masked_fill(hidden | ~distance.isfinite(), torch.inf)
    if distance.numel() == 0:  # argmin is undefined over an empty axis
        none = torch.zeros((len(keypoints0), 0), dtype=torch.long, device=distance.device)
        return none, none, none.bool()
    nearest1, nearest0 = distance.argmin(2), distance.argmin(1)
    index = torch.arange(distance.shape[1], device=distance.device)
    found = (nearest0.gather(1, nearest1) == index) & (distance.amin(2) <= radius)
    # The found rows first, in their order, so that the others can be cut off.
    order = found.int().argsort(dim=1, descending=True, stable=True)[:, : int(found.sum(1).max())]
    return order, nearest1.gather(1, order), found.gather(1, order)


def concatenate(parts: Iterable[DescribedPairs]) -> DescribedPairs:
    """All pairs in one, padded to the most keypoints and correspondences."""
    listed = list(parts)
    joined = {}
    for f in fields(DescribedPairs):
        values = [getattr(part, f.name) for part in listed]
        longest = max(value.shape[1] for value in values) if values[0].ndim > 1 else 0
        joined[f.name] = torch.cat([_padded(value, longest) for value in values])
    return DescribedPairs(**joined)


def _padded(values: Tensor, length: int) -> Tensor:
    if values.ndim == 1:
        return values
    return F.pad(values, (0, 0) * (values.ndim - 2) + (0, length - values.shape[1]))
