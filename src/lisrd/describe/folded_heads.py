"""Trunk and heads for inference: banks of turned weights are expanded once, products are in the encoder's precision.

What is normalised, by LayerNorm or to unit length, is so in float32, and so are the samples of the maps: rounding a
sample's shares to bfloat16 changed more matches than all products together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.describe.heads import Head, Trunk
from lisrd.describe.ring import sample_levels


class FoldedTrunk(nn.Module):
    """The same features as the `Trunk`, whose Linears of the levels are one, of their samples side by side."""

    def __init__(self, trunk: Trunk, dtype: torch.dtype) -> None:
        super().__init__()
        self.norm, self.ring_radii = trunk.norm, trunk.ring_radii
        self.projection = _side_by_side([part.fold() for part in trunk.projections]).to(dtype)  # type: ignore[operator]
        self.hidden = trunk.hidden.fold().to(dtype)

    def forward(
        self, maps: Sequence[Float[Tensor, "B _ _ _"]], xy: Float[Tensor, "B N 2"], width: int, height: int
    ) -> Float[Tensor, "B N trunk"]:
        dtype = self.hidden.weight.dtype
        samples = sample_levels(maps, xy, width, height, self.ring_radii)
        normed = self.norm(_exact(self.projection(samples.to(dtype))))
        return F.relu(self.hidden(normed.to(dtype)))


def _exact(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _side_by_side(parts: Sequence[nn.Linear]) -> nn.Linear:
    """The sum of Linears, each of its own features, as one of all features."""
    width, device = sum(part.in_features for part in parts), parts[0].weight.device
    joined = nn.Linear(width, parts[0].out_features, device=device)
    joined.weight.data.copy_(torch.cat([part.weight.detach() for part in parts], dim=1))
    joined.bias.data.copy_(torch.stack([part.bias.detach() for part in parts]).sum(0))
    return joined


class FoldedHead(Head):
    """The same descriptors as the `Head`."""

    bank: Tensor

    def __init__(self, head: Head, dtype: torch.dtype) -> None:
        super().__init__(1, 1, 1, head.turns)
        self.register_buffer("bank", head.hidden_bank().detach().to(dtype))
        self.hidden, self.out = head.hidden.to(dtype), head.out.to(dtype)

    def hidden_bank(self) -> Float[Tensor, "turns width trunk"]:
        return self.bank

    def _finish(self, hidden: Float[Tensor, "*batch W"]) -> Float[Tensor, "*batch D"]:
        return F.normalize(_exact(self.out(hidden)), dim=-1)
