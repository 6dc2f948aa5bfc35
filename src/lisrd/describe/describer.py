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

_NETWORKS = ("pyramid", "pyramid-small", "paper")
#: Names that need no path; the peers take one: `aliked-n16=PATH`. `lisrd-sift` may: the file of another selection.
DESCRIBERS = (*_NETWORKS, "lisrd-sift", "root-sift", "upright-root-sift")
_ALIKED = ("aliked-n16", "aliked-n16rot")
_PATCH_NETWORKS = ("hardnet", "upright-hardnet", "sosnet", "upright-sosnet")
_DENSE_NETWORKS = ("disk", "xfeat")
_PEERS = (*_ALIKED, "lisrd-aliked", *_PATCH_NETWORKS, *_DENSE_NETWORKS)
DESCRIBERS_WITH_PATH = ("lisrd-sift", *_PEERS)
_KNOWN = (*DESCRIBERS, *_PEERS)


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


class DescriberOnDevice:
    """A describer that computes where its images are, with the images on one device."""

    def __init__(self, describer: Describer, device: torch.device) -> None:
        self.name = describer.name
        self.describer = describer
        self.device = device

    @property
    def config(self) -> dict[str, Any]:
        return self.describer.config

    def describe(
        self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints, keep_turns: bool = True
    ) -> LocalFeatures:
        """Features on the device."""
        return self.describer.describe(images.to(self.device), keypoints.to(self.device), keep_turns)


def build_describer(
    name: str = "pyramid",
    device: torch.device | str = "cpu",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> Describer:
    """The describer of this name, of a weights file (`*.safetensors`), or of a peer (`hardnet=PATH`, `disk=PATH`, ...).

    `lisrd-sift=FILE` takes the selection of a file, `lisrd-aliked=PATH_N16,PATH_N16ROT` the weights of both its
    members, and a selection as a third. With `@2` or `@4` behind it any of them sees images at half or at a quarter of
    their size, with `@1+2` at full and at half size, see `lisrd.describe.octaves`.

    Raises:
        InputError: unknown name, weights that are missing or damaged, or a device or precision that cannot be had.
    """
    whole, octaves = split_octaves(name)
    if octaves != (0,):
        return OctaveDescriber(build_describer(whole, device, precision), octaves)
    kind, path = split_path(name)
    if kind not in _KNOWN and not kind.endswith(".safetensors"):
        near = difflib.get_close_matches(kind, _KNOWN, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise InputError(
            f"unknown describer {kind!r}; {hint}Known: {', '.join(_KNOWN)}, or the path of a .safetensors file"
        )
    if path and kind not in DESCRIBERS_WITH_PATH:
        raise InputError(f"{kind} takes no path; give the file itself: --describer {path}")
    device = checked_device(device)
    if kind in _NETWORKS or kind.endswith(".safetensors"):
        return _build_network(kind, device, precision)
    if precision != "auto" and choose_precision(precision, device.type)[0] != torch.float32:
        raise InputError(f"precision is {precision!r}, but {kind} computes in float32; leave it at 'auto'")
    built = _build_peer(kind, path) if kind in _PEERS else _build_sift(kind, path)
    return built if device.type == "cpu" else DescriberOnDevice(built, device)


def described_invariances(describer: Describer) -> tuple[str, ...]:
    """The invariances of its features, from two keypoints of a small image: what it is called does not tell."""
    image = torch.rand((1, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    keypoints = Keypoints.from_xy(torch.tensor([[30.0, 30.0], [60.0, 50.0]]))
    return describer.describe(image, keypoints).invariances


def split_path(name: str) -> tuple[str, str]:
    """A describer's name and the path behind its "=", empty without one; a file is a name whatever is in its path."""
    kind, _, path = name.partition("=")
    return (name, "") if kind not in _KNOWN and name.endswith(".safetensors") else (kind, path)


def checked_device(device: torch.device | str) -> torch.device:
    """The device of this name. Raises InputError where there is none that torch can compute on."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found).tolist()
    except (RuntimeError, AssertionError) as error:  # torch has no class for it
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise InputError(
            f"device {str(device)!r} cannot be used ({reason}); `lisrd info` lists those of this machine"
        ) from None
    return found


def _build_network(
    kind: str, device: torch.device, precision: Literal["auto", "float32", "bfloat16"]
) -> Describer:
    from lisrd.describe.selector import Selector
    from lisrd.describe.weights import fingerprint, load_network

    network = load_network(kind)
    if isinstance(network, Selector):
        raise InputError(
            f"{kind} holds the selection of a bank, not a network; give it with the bank: lisrd-sift={kind}, or "
            f"lisrd-aliked=PATH_OF_N16,PATH_OF_N16ROT,{kind}"
        )
    return NetworkDescriber(kind, network, fingerprint(kind), device, precision)


def _build_sift(kind: str, path: str) -> Describer:
    from lisrd.describe.bank import lisrd_sift
    from lisrd.describe.sift import RootSift

    if kind == "lisrd-sift":
        return lisrd_sift(path or kind)
    return RootSift(upright=kind.startswith("upright"))


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
    paths = path.split(",")
    if len(paths) not in (2, 3):
        raise InputError(
            "lisrd-aliked needs two files, and may take a selection: lisrd-aliked=PATH_OF_N16,PATH_OF_N16ROT[,FILE]"
        )
    return lisrd_aliked(*paths)
