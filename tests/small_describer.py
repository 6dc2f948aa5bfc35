"""A describer of two invariances that needs no weights: RootSIFT, oriented and upright, and colours of the tiles."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from lisrd.describe.sift import RootSift
from lisrd.types import Keypoints, LocalFeatures, Selection


class SmallDescriber:
    """Fast enough for every test; its meta descriptors tell photographs apart by their colours."""

    name = "small"

    def __init__(self, version: int = 1) -> None:
        self.version = version
        self.kinds = (RootSift(upright=False), RootSift(upright=True))

    @property
    def config(self) -> dict[str, Any]:
        return {"describer": self.name, "version": self.version}

    def describe(self, images: torch.Tensor, keypoints: Keypoints, keep_turns: bool = True) -> LocalFeatures:
        height, width = images.shape[-2:]
        tiles = F.adaptive_avg_pool2d(images - images.mean((2, 3), keepdim=True), 3).permute(0, 2, 3, 1)
        meta = F.normalize(torch.stack([tiles, tiles.flip(-1)], dim=1) + 0.01, dim=-1)
        return LocalFeatures(
            keypoints=keypoints.xy,
            keypoint_scores=keypoints.scores,
            descriptors=torch.stack([kind.descriptors(images, keypoints) for kind in self.kinds], dim=2),
            meta_descriptors=meta,
            image_size=torch.tensor([[width, height]], dtype=torch.float32).expand(len(images), 2),
            mask=keypoints.mask,
            selection=Selection(("oriented", "upright"), 0.5, (0.25, 0.0), (False, True), "nearest"),
            scales=keypoints.scales,
            oris=keypoints.oris,
        )
