"""Describers: images and keypoints in, `LocalFeatures` out. One name for each, see `build_describer`."""

from __future__ import annotations

import difflib
from dataclasses import asdict
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.describe.field import check_size, read_field
from lisrd.describe.octaves import OctaveDescriber, split_octaves
from lisrd.describe.precision import choose_precision
from lisrd.describe.protocol import Describer
from lisrd.errors import InputError
from lisrd.types import Keypoints, LocalFeatures

#: Names that need no path; the peers take one: `aliked-n16=PATH`.
DESCRIBERS = ("pyramid", "pyramid-small", "paper", "lisrd-sift", "root-sift", "upright-root-sift")
_ALIKED = ("aliked-n16", "aliked-n16rot")
_PATCH_NETWORKS = ("hardnet", "upright-hardnet", "sosnet", "upright-sosnet")
_DENSE_NETWORKS = ("disk", "xfeat")
DESCRIBERS_WITH_PATH = (*_ALIKED, "lisrd-aliked", *_PATCH_NETWORKS, *_DENSE_NETWORKS)


class NetworkDescriber:
    """A network with a descriptor field, folded, that multiplies in the precision that fits the machine."""

    def __init__(
        self,
        name: str,
        network: torch.nn.Module,
        fingerprint: str,
        device: torch.device | str = "cpu",
        precision: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        self.precision, self.precision_reason = choose_precision(precision, self.device.type)
        folded: Any = network.eval().requires_grad_(False).to(self.device)
        self.network = folded.fold(self.precision, fused=True)
        self._fingerprint = fingerprint

    @property
    def config(self) -> dict[str, Any]:
        return {
            "describer": self.name,
            "weights": self._fingerprint,
            "precision": str(self.precision),
            **asdict(self.network.config),
        }

    @torch.no_grad()
    def describe(
        self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints, keep_turns: bool = True
    ) -> LocalFeatures:
        """Descriptors are normalised and aggregated in float32 whatever the precision of their products.

        Raises:
            InputError: a side of the images is below `MIN_SIDE`.
        """
        check_size(images)
        images, keypoints = images.to(self.device), keypoints.to(self.device)
        lower = self.precision != torch.float32
        with torch.autocast(self.device.type, dtype=self.precision if lower else None, enabled=lower):
            field = self.network(images)
        field.maps = [level.float() for level in field.maps]
        return read_field(field, keypoints, keep_turns)


def build_describer(
    name: str = "pyramid",
    device: torch.device | str = "cpu",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> Describer:
    """The describer of this name, of a weights file (`*.safetensors`), or of a peer (`hardnet=PATH`, `disk=PATH`, ...).

    `lisrd-aliked=PATH_N16,PATH_N16ROT` takes the weights of both its members. With `@2` or `@4` behind it any of them
    sees images at half or at a quarter of their size, with `@1+2` at full and at half size, see
    `lisrd.describe.octaves`.

    Raises:
        InputError: unknown name, or weights that are missing or damaged.
    """
    whole, octaves = split_octaves(name)
    if octaves != (0,):
        return OctaveDescriber(build_describer(whole, device, precision), octaves)
    kind, _, path = name.partition("=")
    if kind in ("root-sift", "upright-root-sift"):
        from lisrd.describe.sift import RootSift

        return RootSift(upright=kind.startswith("upright"))
    if kind in DESCRIBERS_WITH_PATH:
        return _build_peer(kind, path)
    if kind == "lisrd-sift":
        from lisrd.describe.bank import lisrd_sift

        return lisrd_sift()
    if kind not in DESCRIBERS and not kind.endswith(".safetensors"):
        near = difflib.get_close_matches(kind, (*DESCRIBERS, *DESCRIBERS_WITH_PATH), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"unknown describer {kind!r}; {hint}Known: {', '.join((*DESCRIBERS, *DESCRIBERS_WITH_PATH))}, "
            "or the path of a .safetensors file"
        )
    from lisrd.describe.weights import fingerprint, load_network

    return NetworkDescriber(kind, load_network(kind), fingerprint(kind), device, precision)


def _build_peer(kind: str, path: str) -> Describer:
    if not path:
        raise InputError(f"{kind} needs its published weights: {kind}=PATH (the file that its authors offer)")
    if kind in _PATCH_NETWORKS:
        from lisrd.describe.patch_networks import PatchNetwork

        return PatchNetwork(kind, path)
    if kind in _DENSE_NETWORKS:
        from lisrd.describe.dense_networks import Disk, XFeat

        return Disk(path) if kind == "disk" else XFeat(path)
    from lisrd.describe.aliked import Aliked, lisrd_aliked

    if kind in _ALIKED:
        return Aliked(kind, path)
    first, comma, second = path.partition(",")
    if not comma:
        raise InputError("lisrd-aliked needs two files: lisrd-aliked=PATH_OF_N16,PATH_OF_N16ROT")
    return lisrd_aliked(first, second)
