"""Weights of a small `pyramid` network as those of a wider one that computes the same.

Every new feature copies an old one. What reads it shares the old weight among the copies by chance, so that they part
when they are trained. A small network learns faster; the wide one starts where it ended. Heads may become narrower too:
of their hidden units, most of what a head costs, the heaviest are kept.

Source: Chen, Goodfellow, Shlens, Net2Net: Accelerating Learning via Knowledge Transfer, ICLR 2016.
"""

from __future__ import annotations

from dataclasses import asdict

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.pyramid import INPUT_CHANNELS
from lisrd.describe.ring import RING
from lisrd.errors import InputError

#: Sizes that the shapes of the descriptors' weights follow from, and that cannot grow.
_FIXED = ("turns", "encoder_input", "first_kernel", "descriptor_dim")
#: The exception, from what to what: normalised light comes after the colours.
_JOINED = {"encoder_input": ("colour", "both")}


def grown_weights(small: PyramidNetwork, config: PyramidConfig) -> dict[str, Tensor]:
    """The state of a network of `config` that describes as `small` does; that of the selection is copied as it is.

    Widths may grow, the trunk's to a multiple. Levels may get a ring, and colours normalised light beside them, whose
    weights are zero. A smaller `head_width` describes nearly as before; more `plain_levels`, which drop blocks, are
    where training begins again.

    Raises:
        InputError: another size differs, or one is smaller.
    """
    _check(small.config, config)
    grower = _Grower(small, config)
    return small.state_dict() | grower.encoder() | grower.trunk() | grower.heads()


def _check(old: PyramidConfig, new: PyramidConfig) -> None:
    was, wanted = asdict(old), asdict(new)
    differing = [n for n in _FIXED if was[n] != wanted[n] and _JOINED.get(n) != (was[n], wanted[n])]
    if differing:
        name = differing[0]
        raise InputError(f"{name} is {was[name]!r} in the weights and {wanted[name]!r} here; it cannot grow")
    if len(old.widths) != len(new.widths) or any(o > n for o, n in zip(old.widths, new.widths, strict=True)):
        raise InputError(
            f"widths are {list(old.widths)} in the weights and {list(new.widths)} here: no growth"
        )
    if new.trunk_width % old.trunk_width:  # the LayerNorm behind it must see every feature as often
        raise InputError(
            f"trunk_width {new.trunk_width} is no multiple of the {old.trunk_width} of the weights"
        )
    if new.plain_levels < old.plain_levels:
        raise InputError(
            f"plain_levels is {old.plain_levels} in the weights and {new.plain_levels} here: blocks cannot be added"
        )
    if any(o not in (0, n) for o, n in zip(old.radii_of_levels, new.radii_of_levels, strict=True)):
        raise InputError(
            f"ring_radii are {list(old.ring_radii)} in the weights and {list(new.ring_radii)} here: "
            "rings can be added only, give [network] those of the weights"
        )


class _Grower:
    """Grows one part after the other; draws the same shares each time."""

    def __init__(self, small: PyramidNetwork, config: PyramidConfig) -> None:
        self.old = small.state_dict()
        self.config = config
        self.num_heads = len(small.heads)
        self.levels = [_copies(old, new) for old, new in zip(small.config.widths, config.widths, strict=True)]
        self.trunk_copies = _copies(small.config.trunk_width, config.trunk_width)
        self.generator = torch.Generator().manual_seed(0)

    def encoder(self) -> dict[str, Tensor]:
        new: dict[str, Tensor] = {}
        for index, copies in enumerate(self.levels):
            below = self.levels[index - 1] if index else None
            parts = [("down", below), ("first", copies), ("second", copies)]
            for part, reads in parts[: 1 if index < self.config.plain_levels else 3]:
                name = f"encoder.levels.{index}.{part}"
                kernels = self.old[f"{name}.conv.weight"][copies]
                new[f"{name}.conv.weight"] = kernels if reads is None else self._shared(kernels, reads, 2)
                for values in ("weight", "bias", "running_mean", "running_var"):
                    new[f"{name}.norm.norm.{values}"] = self.old[f"{name}.norm.norm.{values}"][copies]
        lift = "encoder.levels.0.down.conv.weight"
        joining = INPUT_CHANNELS[self.config.encoder_input] - new[lift].shape[1]
        new[lift] = F.pad(new[lift], (0, 0, 0, 0, 0, joining))
        return new

    def trunk(self) -> dict[str, Tensor]:
        new = {}
        for index, (copies, radius) in enumerate(zip(self.levels, self.config.radii_of_levels, strict=True)):
            name = f"trunk.projections.{index}"
            weight = self.old[f"{name}.weight"][self.trunk_copies]
            width = int(copies.max()) + 1  # of the small network
            by_point = self._shared(weight.unflatten(2, (-1, width)), copies, 3)
            if radius and by_point.shape[2] == 1:  # the points of a new ring
                by_point = torch.cat([by_point, torch.zeros_like(by_point).repeat(1, 1, RING, 1)], dim=2)
            new[f"{name}.weight"] = by_point.flatten(2)
            new[f"{name}.bias"] = self.old[f"{name}.bias"][self.trunk_copies]
        hidden = self.old["trunk.hidden.weight"][self.trunk_copies]
        new["trunk.hidden.weight"] = self._shared(hidden, self.trunk_copies, 2)
        new["trunk.hidden.bias"] = self.old["trunk.hidden.bias"][self.trunk_copies]
        return new

    def heads(self) -> dict[str, Tensor]:
        new = {}
        for index in range(self.num_heads):
            name = f"heads.{index}"
            hidden, out = self.old[f"{name}.hidden.weight"], self.old[f"{name}.out.weight"]
            copies = _heaviest(hidden, out, self.config.head_width)
            by_turn = hidden[copies].unflatten(1, (self.config.turns, -1))
            new[f"{name}.hidden.weight"] = self._shared(by_turn, self.trunk_copies, 2).flatten(1)
            new[f"{name}.hidden.bias"] = self.old[f"{name}.hidden.bias"][copies]
            new[f"{name}.out.weight"] = self._shared(out, copies, 1)
        return new

    def _shared(self, weight: Float[Tensor, "..."], copies: Int[Tensor, " new"], dim: int) -> Tensor:
        """Weights of the old features along `dim`, shared among their copies by chance."""
        copied = weight.index_select(dim, copies)
        draws = 0.5 + torch.rand(copied.shape, generator=self.generator)
        total = torch.zeros(weight.shape).index_add_(dim, copies, draws)  # 0 for those that none copies
        return copied * (draws / total.index_select(dim, copies)).to(copied)


def _copies(old: int, new: int) -> Int[Tensor, " new"]:
    """Which of the old features each of the new ones copies."""
    return torch.arange(new) % old


def _heaviest(
    hidden: Float[Tensor, "old trunk"], out: Float[Tensor, "D old"], new: int
) -> Int[Tensor, " new"]:
    """Which of the old hidden units each of the new ones copies: all of them, or those with the largest weights."""
    if new >= len(hidden):
        return _copies(len(hidden), new)
    return (hidden.norm(dim=1) * out.norm(dim=0)).topk(new).indices.sort().values
