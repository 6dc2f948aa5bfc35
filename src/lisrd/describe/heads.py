"""From the levels of the pyramid to descriptors at keypoints; everything here is pointwise.

Sampling and a Linear commute, so the maps are sampled first and projected afterwards: the same numbers for a
fraction of the memory traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lisrd.describe.ring import RingLinear, sample_levels
from lisrd.describe.turns import TurnLinear, rolled


class Trunk(nn.Module):
    """Samples of all levels, one Linear each, summed; then LayerNorm, Linear, ReLU. Equivariant to the turns."""

    def __init__(
        self, level_widths: Sequence[int], width: int, turns: int, ring_radii: Sequence[float]
    ) -> None:
        super().__init__()
        self.turns = turns
        self.ring_radii = tuple(ring_radii)
        self.projections = nn.ModuleList(
            (RingLinear if radius else TurnLinear)(channels, width, turns)
            for channels, radius in zip(level_widths, ring_radii, strict=True)
        )
        self.norm = nn.LayerNorm(turns * width, elementwise_affine=False)  # the Linear behind it is affine
        self.hidden = TurnLinear(width, width, turns)

    def forward(
        self, maps: Sequence[Float[Tensor, "B _ _ _"]], xy: Float[Tensor, "B N 2"], width: int, height: int
    ) -> Float[Tensor, "B N trunk"]:
        """Features at pixels `xy` of the image of `width` x `height` pixels that the maps cover."""
        samples = sample_levels(maps, xy, width, height, self.ring_radii)
        parts = [projection.bank_and_bias() for projection in self.projections]  # type: ignore[operator]
        banks, biases = zip(*parts, strict=True)
        summed = F.linear(samples, torch.cat(banks, dim=1), sum(biases))  # of all levels in one product
        return F.relu(self.hidden(self.norm(summed)))


class Head(nn.Module):
    """One invariance: Linear, ReLU, Linear, L2 on the trunk of all turns.

    To read the trunk at another turn, the weights are rolled instead of the features: there are far fewer of them.
    """

    def __init__(self, in_width: int, width: int, dim: int, turns: int) -> None:
        super().__init__()
        self.turns = turns
        self.hidden = nn.Linear(turns * in_width, width)
        self.out = nn.Linear(width, dim)

    def hidden_bank(self) -> Float[Tensor, "turns width trunk"]:
        """The first Linear for a trunk that is read at each of the turns."""
        return rolled(self.hidden.weight.unflatten(1, (self.turns, -1)), -1).flatten(2)

    def variant(
        self, trunk: Float[Tensor, "B N trunk"], turn: int | Int[Tensor, " B"]
    ) -> Float[Tensor, "B N D"]:
        """As the image turned counter-clockwise by `turn` turns would give it; B turns give each image its own."""
        if isinstance(turn, int):
            weight = self.hidden_bank()[turn] if turn else self.hidden.weight
            hidden = F.linear(trunk, weight, self.hidden.bias)
        else:
            bank = self.hidden_bank().index_select(0, turn)  # indexing would add up gradients slowly
            hidden = trunk @ bank.transpose(1, 2) + self.hidden.bias
        return self._finish(F.relu(hidden, inplace=True))

    def invariant(self, trunk: Float[Tensor, "B N trunk"]) -> Float[Tensor, "B N D"]:
        """Averaged over all turns before L2: invariant to quarter turns exactly, to eighths as far as the trunk is."""
        return self._mean_of(self._hidden_of_all_turns(trunk))

    def in_all_turns(self, trunk: Float[Tensor, "B N trunk"]) -> Float[Tensor, "B N turns D"]:
        """What `variant` gives for every turn, before it is normalised."""
        return self.out(self._hidden_of_all_turns(trunk))

    def _hidden_of_all_turns(self, trunk: Float[Tensor, "B N trunk"]) -> Float[Tensor, "B N turns W"]:
        hidden = F.linear(trunk, self.hidden_bank().flatten(0, 1), self.hidden.bias.repeat(self.turns))
        return F.relu(hidden, inplace=True).unflatten(-1, (self.turns, -1))

    def _mean_of(self, hidden: Float[Tensor, "B N turns W"]) -> Float[Tensor, "B N D"]:
        # The mean commutes with the last Linear; added up turn by turn, a third of the time of `mean`.
        return self._finish(reduce(torch.add, hidden.unbind(-2)) / self.turns)

    def _finish(self, hidden: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch D"]:
        return F.normalize(self.out(hidden), dim=-1)


def normalise_in_place(values: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
    """Unit vectors as `F.normalize` makes them, in float32 at least; without gradient. May overwrite `values`."""
    exact = values.to(torch.promote_types(values.dtype, torch.float32))
    return exact.div_(torch.linalg.vector_norm(exact, dim=-1, keepdim=True).clamp_min_(1e-12))
