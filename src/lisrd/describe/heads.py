"""From the levels of the pyramid to descriptors at keypoints; everything here is pointwise.

Sampling and a Linear commute, so the maps are sampled first and projected afterwards: the same numbers for a
fraction of the memory traffic.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.coordinates import sample_map
from lisrd.describe.turns import TurnLinear


class Trunk(nn.Module):
    """Samples of all levels, one Linear each, summed; then LayerNorm, Linear, ReLU. Equivariant to quarter turns."""

    def __init__(self, level_widths: Sequence[int], width: int, turns: int) -> None:
        super().__init__()
        self.turns = turns
        self.projections = nn.ModuleList(TurnLinear(channels, width, turns) for channels in level_widths)
        self.norm = nn.LayerNorm(turns * width, elementwise_affine=False)  # the Linear behind it is affine
        self.hidden = TurnLinear(width, width, turns)

    def forward(
        self, maps: Sequence[Float[Tensor, "B C h w"]], xy: Float[Tensor, "B N 2"], width: int, height: int
    ) -> Float[Tensor, "B N turns F"]:
        """Features at pixels `xy` of the image of `width` x `height` pixels that the maps cover."""
        samples = [sample_map(level, xy, width, height) for level in maps]
        summed = torch.stack([p(s) for p, s in zip(self.projections, samples, strict=True)]).sum(0)
        return F.relu(self.hidden(self.norm(summed))).unflatten(-1, (self.turns, -1))


class Head(nn.Module):
    """One invariance: two Linears on the trunk's turns, L2 at the end."""

    def __init__(self, in_width: int, width: int, dim: int, turns: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(turns * in_width, width)
        self.out = nn.Linear(width, dim)

    def variant(self, trunk: Float[Tensor, "B N turns F"]) -> Float[Tensor, "B N D"]:
        """As the image stands."""
        return F.normalize(self.out(F.relu(self.hidden(trunk.flatten(2)))), dim=-1)

    def invariant(self, trunk: Float[Tensor, "B N turns F"]) -> Float[Tensor, "B N D"]:
        """Averaged over all turns before L2: exactly invariant to quarter turns."""
        turns = trunk.shape[2]
        rolled = torch.stack([trunk.roll(t, 2).flatten(2) for t in range(turns)])
        # The mean commutes with the last Linear.
        return F.normalize(self.out(F.relu(self.hidden(rolled)).mean(0)), dim=-1)


def turned_trunk(trunk: Float[Tensor, "B N turns F"], turn: int | Tensor) -> Float[Tensor, "B N turns F"]:
    """The trunk as the image turned by `torch.rot90(image, turn)` would give it.

    A tensor of B turns gives each image its own.
    """
    if isinstance(turn, int):
        return trunk.roll(turn, 2) if turn else trunk
    turns = trunk.shape[2]
    order = (torch.arange(turns, device=trunk.device) - turn[:, None]) % turns  # (B, turns)
    return torch.take_along_dim(trunk, order[:, None, :, None], dim=2)
