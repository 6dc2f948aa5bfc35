"""DISK (Tyszkiewicz et al., 2020) and XFeat (Potje et al., 2024): networks whose map is read at any keypoints.

At keypoints of their own detectors these are the published descriptors. Neither looks at scales or orientations.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.coordinates import sample_map
from lisrd.describe.field import check_size
from lisrd.describe.single import SingleDescriber
from lisrd.detect.weights import load_weights
from lisrd.tensor_files import sha256
from lisrd.types import Keypoints


class DenseNetwork(SingleDescriber):
    """Subclasses say how their map is made and where a keypoint lies in it."""

    network: Any

    def __init__(self, path: str | Path) -> None:
        self.network.requires_grad_(False)
        self._fingerprint = sha256(Path(path))

    @property
    def config(self) -> dict[str, Any]:
        return {"describer": self.name, "weights": self._fingerprint}

    @abstractmethod
    def sampled(self, images: Float[Tensor, "B 3 H W"], xy: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N D"]:
        """The map's values at these pixels, of any length."""

    @torch.no_grad()
    def descriptors(self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Float[Tensor, "B N D"]:
        """Raises InputError for images below 32 pixels."""
        check_size(images)
        self.network.to(images.device)
        return F.normalize(self.sampled(images, keypoints.xy), dim=-1) * keypoints.mask[..., None]


class Disk(DenseNetwork):
    """`disk` with the weights file of its authors (`depth-save.pth`, or `epipolar-save.pth`); D = 128.

    Its map has the image's resolution and is read bilinearly: at whole pixels, which is what DISK's own detector
    finds, that is the pixel's own descriptor.

    Raises:
        InputError: no such file, or weights of another network.
    """

    name = "disk"

    def __init__(self, path: str | Path) -> None:
        from kornia.feature import DISK

        self.network = load_weights(DISK(), path, inside="extractor")
        super().__init__(path)

    def sampled(
        self, images: Float[Tensor, "B 3 H W"], xy: Float[Tensor, "B N 2"]
    ) -> Float[Tensor, "B N 128"]:
        height, width = images.shape[-2:]
        # Black to the right and below up to multiples of 16, as DISK itself pads.
        padded = F.pad(images, (0, -width % 16, 0, -height % 16))
        _, described = self.network.heatmap_and_dense_descriptors(padded)
        return sample_map(described[..., :height, :width], xy, width, height)


class XFeat(DenseNetwork):
    """`xfeat` with the weights file of its authors (`xfeat.pt`); D = 64.

    The image is shrunk to multiples of 32 and the map of stride 8 read bicubically, half a cell off by our convention:
    that is how the published weights were trained.

    Raises:
        InputError: no such file, or weights of another network.
    """

    name = "xfeat"

    def __init__(self, path: str | Path) -> None:
        from kornia.feature import XFeat as KorniaXFeat

        self.network = KorniaXFeat().eval()
        load_weights(self.network.net, path)
        super().__init__(path)

    def sampled(
        self, images: Float[Tensor, "B 3 H W"], xy: Float[Tensor, "B N 2"]
    ) -> Float[Tensor, "B N 64"]:
        size = [side // 32 * 32 for side in images.shape[-2:]]
        shrunk = F.interpolate(images, size, mode="bilinear", align_corners=False)
        described = F.normalize(self.network.net(shrunk)[0], dim=1)
        ratio = xy.new_tensor([size[1] / images.shape[3], size[0] / images.shape[2]])
        return self.network.interpolator(described, (xy + 0.5) * ratio - 0.5, *size)
