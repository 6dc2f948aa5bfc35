"""Banks: any V describers of the same keypoints, with the online selection among them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.describe.field import Turn, read_field
from lisrd.describe.selector import Selector
from lisrd.describe.sift import RootSift
from lisrd.describe.single import SingleDescriber
from lisrd.describe.weights import load_network
from lisrd.errors import InputError
from lisrd.types import Keypoints, LocalFeatures


class Bank:
    """V describers of one descriptor each as one describer of V invariances.

    Descriptors narrower than the widest are padded with zeros, which changes no dot product.

    Raises:
        InputError: the selector was trained for other members.
    """

    def __init__(self, name: str, members: Sequence[SingleDescriber], selector: Selector) -> None:
        names = tuple(member.name for member in members)
        if names != selector.config.members:
            raise InputError(
                f"bank {name!r} of {', '.join(names)}: this selection was trained for "
                f"{', '.join(selector.config.members)}; give these members, in this order, or train one for yours"
            )
        self.name = name
        self.members = tuple(members)
        self.selector = selector.eval()

    @property
    def config(self) -> dict[str, Any]:
        return {
            "describer": self.name,
            "members": [member.config for member in self.members],
            "weights": _digest(self.selector),
            **asdict(self.selector.config),
        }

    @torch.no_grad()
    def describe(
        self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints, keep_turns: bool = True
    ) -> LocalFeatures:
        """Features at the keypoints of each image; there are no turns to keep.

        Raises:
            InputError: a member cannot describe these images.
        """
        self.selector.to(images.device)
        return read_field(self.field(images, keypoints), keypoints, keep_turns)

    def field(self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> BankField:
        """The field of these images, whose meta descriptors summarise these keypoints."""
        return BankField(self, images, keypoints)

    def descriptors(self, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> Float[Tensor, "B N V D"]:
        """What every member says of the keypoints."""
        each = [member.descriptors(images, keypoints) for member in self.members]
        width = self.selector.config.descriptor_dim
        widest = max(descriptors.shape[-1] for descriptors in each)
        if widest != width:
            raise InputError(
                f"bank {self.name!r}: descriptors have {widest} values, the selection expects {width}; "
                f"train it with descriptor_dim = {widest}"
            )
        return torch.stack([F.pad(d, (0, width - d.shape[-1])) for d in each], dim=2)


class BankField:
    """The field of a batch of images; see `lisrd.describe.field.DescriptorField`."""

    num_turns = 1

    def __init__(self, bank: Bank, images: Float[Tensor, "B 3 H W"], keypoints: Keypoints) -> None:
        self.bank = bank
        self.images = images
        self.keypoints = keypoints
        self.image_size = (images.shape[-1], images.shape[-2])
        self.selection = bank.selector.selection
        self._descriptors = bank.descriptors(images, keypoints)

    def at(self, keypoints: Keypoints, turn: Turn = 0) -> Float[Tensor, "B N V D"]:
        assert turn == 0, "a bank has no turns"
        return (
            self._descriptors
            if keypoints is self.keypoints
            else self.bank.descriptors(self.images, keypoints)
        )

    def meta(self, turn: Turn = 0) -> Float[Tensor, "B V T T C"]:
        assert turn == 0, "a bank has no turns"
        size = self.keypoints.xy.new_tensor([self.image_size]).expand(len(self.images), 2)
        return self.bank.selector(self._descriptors, self.keypoints.xy, self.keypoints.mask, size)


def lisrd_sift(weights: str | Path = "lisrd-sift") -> Bank:
    """LISRD-SIFT: SIFT, invariant to rotation, and Upright SIFT (LISRD, section 3.4). `weights` hold the selection.

    Raises:
        InputError: the weights are missing or hold something else.
    """
    return Bank("lisrd-sift", (RootSift(), RootSift(upright=True)), load_selector(weights))


def load_selector(weights: str | Path) -> Selector:
    """The selector of a bundled name or a `.safetensors` file.

    Raises:
        InputError: no such file, a damaged one, or weights of a network that is no selector.
    """
    network = load_network(weights)
    if not isinstance(network, Selector):
        raise InputError(f"{weights} holds a {type(network).__name__}; the selection of a bank is needed")
    return network


def _digest(selector: Selector) -> str:
    """SHA-256 of the parameters: what makes meta descriptors of different weights incomparable."""
    digest = hashlib.sha256()
    for name, value in sorted(selector.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()
