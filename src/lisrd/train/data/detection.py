"""Keypoints of a view where a detector would find them again, instead of where they truly are.

A detector finds a point of the scene a pixel or two beside it, or finds what lies next to it. Whoever evaluates calls
both right within 3 pixels. On our held-out turned pairs half of what is right lies more than a pixel off; descriptors
that have seen exact places only find half of that, and five sixths of the rest (docs/experiments.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.detect import Detector, build_detector
from lisrd.train.data.dice import Dice


@dataclass(frozen=True, slots=True)
class DetectionConfig:
    """How keypoints of the views differ from where the homographies carry them; by default not at all.

    First each coordinate misses by a normal of standard deviation `noise`, in pixels. Then the keypoint moves to the
    nearest one, of at most `num_keypoints`, that `detector` finds in the view within `radius` pixels, if it is the
    nearest to that one as well.
    """

    noise: float = 0.0
    radius: float = 0.0
    detector: str = "sift"
    num_keypoints: int = 512

    def __post_init__(self) -> None:
        for name in ("noise", "radius"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 pixels or more")

    def build_detector(self) -> Detector | None:
        """None where nothing is detected again. Raises `InputError` for an unknown detector."""
        return build_detector(self.detector) if self.radius else None


def detect_again(
    keypoints: Float[Tensor, "views B N 2"],
    mask: Bool[Tensor, "B N"],
    images: Float[Tensor, "views B 3 H W"],
    dice: Dice,
    config: DetectionConfig,
    detector: Detector | None,
) -> Float[Tensor, "views B N 2"]:
    """The keypoints of some views of each sample as `config` says; those that `mask` hides claim no detection."""
    if config.noise:
        views, count, *rest = keypoints.shape
        keypoints = keypoints + config.noise * dice.noise(count, views, *rest).transpose(0, 1)
    if detector:
        found = [detector(view, config.num_keypoints) for view in images]
        moved = [
            nearest_detections(k, mask, f.xy, f.mask, config.radius)
            for k, f in zip(keypoints, found, strict=True)
        ]
        keypoints = torch.stack(moved)
    return keypoints


def nearest_detections(
    keypoints: Float[Tensor, "B N 2"],
    mask: Bool[Tensor, "B N"],
    found: Float[Tensor, "B M 2"],
    is_found: Bool[Tensor, "B M"],
    radius: float,
) -> Float[Tensor, "B N 2"]:
    """The detections that are mutually nearest to keypoints and within `radius`; where there is none, the keypoint."""
    if not found.shape[1]:
        return keypoints
    hidden = ~(mask.unsqueeze(2) & is_found.unsqueeze(1))
    distance = torch.cdist(keypoints, found).masked_fill(hidden, math.inf)
    nearest, index = distance.min(2)
    claimed_by = distance.argmin(1).gather(1, index)
    own = claimed_by == torch.arange(keypoints.shape[1], device=keypoints.device)
    moves = (nearest <= radius) & own
    place = found.gather(1, index.unsqueeze(2).expand(-1, -1, 2))
    return torch.where(moves.unsqueeze(2), place, keypoints)
