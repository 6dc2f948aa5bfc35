"""Describers of one descriptor per keypoint (V = 1): there is nothing to select. A bank is made of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.types import Keypoints, LocalFeatures, Selection


class SingleDescriber(ABC):
    """Subclasses say what they are called, what makes their descriptors, and compute them."""

    name: str

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """What makes the descriptors, as plain values: caches are keyed by it."""

    @abstractmethod
    def descriptors(self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Float[Tensor, "B N D"]:
        """Unit vectors; zero where `keypoints.mask` is false, and where there is nothing to describe."""

    @torch.no_grad()
    def describe(
        self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints, keep_turns: bool = True
    ) -> LocalFeatures:
        """Features of one invariance, named like the describer; its meta descriptors are all alike."""
        descriptors = self.descriptors(images, keypoints)
        height, width = images.shape[-2:]
        return LocalFeatures(
            keypoints=keypoints.xy,
            keypoint_scores=keypoints.scores,
            descriptors=descriptors.unsqueeze(2),
            meta_descriptors=descriptors.new_ones(len(images), 1, 1, 1, 1),
            image_size=descriptors.new_tensor([[width, height]]).expand(len(images), 2),
            mask=keypoints.mask,
            selection=Selection((self.name,)),
            scales=keypoints.scales,
            oris=keypoints.oris,
        )
