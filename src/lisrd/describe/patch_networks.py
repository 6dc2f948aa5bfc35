"""HardNet (Mishchuk et al., 2017) and SOSNet (Tian et al., 2019): networks that describe a patch around a keypoint.

The patch is kornia's local affine frame of the keypoint: 6 sigma to each side, 12 sigma being what both networks are
evaluated with on SIFT keypoints, turned with the keypoint unless the describer is upright.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.describe.sift import first_at_position
from lisrd.describe.single import SingleDescriber
from lisrd.detect.lafs import lafs_from_keypoints
from lisrd.detect.orientation import dominant_orientations
from lisrd.detect.sift import DEFAULT_SIZE
from lisrd.detect.weights import load_weights
from lisrd.tensor_files import sha256
from lisrd.types import Keypoints

#: Patches through the network at once: its first layers hold 128 KiB of values for each.
_PATCHES_AT_ONCE = 512
#: A patch of one colour is sampled with rounding errors of 2e-7; one grey value of an image is 4e-3.
_ONE_COLOUR = 1e-5


class PatchNetwork(SingleDescriber):
    """`hardnet`, `sosnet` and their upright forms, with the weights file of their authors.

    Keypoints without scales or orientations are treated as `lisrd.describe.sift.RootSift` treats them; so are,
    upright, several keypoints at one position. A patch of one colour has the zero vector.

    Raises:
        InputError: no such file, or weights of another network.
    """

    def __init__(self, name: str, path: str | Path) -> None:
        self.name = name
        self.upright = name.startswith("upright-")
        self.network: Any = _load(name.removeprefix("upright-"), path).requires_grad_(False)
        self._fingerprint = sha256(Path(path))

    @property
    def config(self) -> dict[str, Any]:
        return {"describer": self.name, "weights": self._fingerprint}

    @torch.no_grad()
    def descriptors(self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Float[Tensor, "B N 128"]:
        self.network.to(images.device)
        described = keypoints.xy.new_zeros((*keypoints.xy.shape[:2], 128))
        for index, mask in enumerate(keypoints.mask):
            if mask.any():
                one = keypoints.select(index)
                found = self._describe(self._patches(images[index : index + 1], one))
                if self.upright:
                    found[~first_at_position(one.xy[0])] = 0
                described[index, mask] = found
        return described

    def _patches(self, image: Float[Tensor, "1 3 H W"], one: Keypoints) -> Float[Tensor, "N 1 32 32"]:
        from kornia.color import rgb_to_grayscale
        from kornia.feature import extract_patches_from_pyramid

        scales = torch.full_like(one.scores, DEFAULT_SIZE) if one.scales is None else one.scales
        oris = torch.zeros_like(scales) if self.upright else one.oris
        if oris is None:
            oris = dominant_orientations(image, one.xy, scales)
        lafs = lafs_from_keypoints(one.xy, scales, oris)
        return extract_patches_from_pyramid(rgb_to_grayscale(image), lafs, self.network.patch_size)[0]

    def _describe(self, patches: Float[Tensor, "N 1 32 32"]) -> Float[Tensor, "N 128"]:
        described = torch.cat([self.network(some) for some in patches.split(_PATCHES_AT_ONCE)])
        low, high = patches.flatten(1).aminmax(dim=1)
        described[high - low < _ONE_COLOUR] = 0  # both make a unit vector of rounding errors
        return described


def _load(kind: str, path: str | Path) -> nn.Module:
    from kornia.feature import HardNet, SOSNet

    network = HardNet(pretrained=False) if kind == "hardnet" else SOSNet(pretrained=False)
    # Files older than torch 0.4.1 do not count batches; nothing in use needs the number.
    uncounted = [name for name in network.state_dict() if name.endswith("num_batches_tracked")]
    return load_weights(network, path, inside="state_dict", may_miss=uncounted)
