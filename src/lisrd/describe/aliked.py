"""ALIKED (Zhao et al., 2023) as a describer of any keypoints, and the bank of its two published networks.

kornia's ALIKED counts pixels as `lisrd.coordinates` does, from the centre of the top-left one, but normalises
them with the corners of the image at the centres of the corner pixels: 2 x / (width - 1) - 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.describe.bank import Bank, load_selector
from lisrd.describe.field import check_size
from lisrd.describe.single import SingleDescriber
from lisrd.detect.kornia import load_aliked
from lisrd.tensor_files import sha256
from lisrd.types import Keypoints


class Aliked(SingleDescriber):
    """`aliked-n16` or `aliked-n16rot` with the weights file of its authors.

    Raises:
        InputError: no such file, or weights of another network.
    """

    def __init__(self, name: str, path: str | Path) -> None:
        self.name = name
        self.network: Any = load_aliked(name, path).requires_grad_(False)
        self._fingerprint = sha256(Path(path))

    @property
    def config(self) -> dict[str, Any]:
        return {"describer": self.name, "weights": self._fingerprint}

    @torch.no_grad()
    def descriptors(self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Float[Tensor, "B N 128"]:
        """Raises InputError for images below 32 pixels."""
        check_size(images)
        self.network.to(images.device)
        maps, _ = self.network.extract_dense_map(images)
        far_corner = keypoints.xy.new_tensor([images.shape[3] - 1, images.shape[2] - 1])
        described = keypoints.xy.new_zeros((*keypoints.xy.shape[:2], maps.shape[1]))
        for index, mask in enumerate(keypoints.mask):
            if mask.any():  # kornia's head cannot tell the shape of nothing
                places = 2 * keypoints.xy[index, mask] / far_corner - 1
                found, _ = self.network.desc_head(maps[index : index + 1], [places])
                described[index, mask] = found[0]
        return described


def lisrd_aliked(path_n16: str | Path, path_n16rot: str | Path, weights: str | Path = "lisrd-aliked") -> Bank:
    """ALIKED-n16, sharper where nothing was turned, and ALIKED-n16rot; `weights` hold their selection.

    Raises:
        InputError: a file is missing or holds something else.
    """
    members = (Aliked("aliked-n16", path_n16), Aliked("aliked-n16rot", path_n16rot))
    return Bank("lisrd-aliked", members, load_selector(weights))
