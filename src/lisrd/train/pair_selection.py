"""The selection's weighted similarity straight from meta factors, with a backward pass written out.

The same numbers as `selection.invariance_weights` and `selection.weighted_similarity`; on a CPU all passes are made
over one pair's matrices while they are in the cache. With the weights w_v = softmax_v(l_v), the similarities d_v,
which are given, and s = sum_v w_v d_v,

    dL/dl_v(i, j) = w_v (d_v - s) dL/ds  +  [i = j] w_v (h_v - sum_u w_u h_u)

where h_v is the gradient of the weights at true correspondences, which are the diagonal.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.train.pair_softmax import made_together


def selected_similarity(
    factors0: Float[Tensor, "B V N K"],
    factors1: Float[Tensor, "B V N K"],
    similarity: Float[Tensor, "B V N N"],
) -> tuple[Float[Tensor, "B N N"], Float[Tensor, "B V N"]]:
    """The weighted similarity of B pairs, and the weights at true correspondences.

    The product of the factors are the logits of the weights; the similarities learn nothing.
    """
    exact = torch.promote_types(factors0.dtype, torch.float32)
    return _SelectedSimilarity.apply(factors0.to(exact), factors1.to(exact), similarity.to(exact))


def weights_of_factors(
    factors0: Float[Tensor, "B V N K"], factors1: Float[Tensor, "B V N K"]
) -> Float[Tensor, "B V N N"]:
    """Softmax over the invariances; the products are never rounded, whatever autocast asks for."""
    return _logits(factors0, factors1).softmax(dim=1)


class _SelectedSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        factors0: Float[Tensor, "B V N K"],
        factors1: Float[Tensor, "B V N K"],
        similarity: Float[Tensor, "B V N N"],
    ) -> tuple[Float[Tensor, "B N N"], Float[Tensor, "B V N"]]:
        weights = torch.empty_like(similarity)
        weighted = torch.empty_like(similarity[:, 0])
        for part in _parts(len(similarity), similarity.device):
            torch.softmax(_logits(factors0[part], factors1[part]), dim=1, out=weights[part])
            sums = torch.mul(weights[part, 0], similarity[part, 0], out=weighted[part])
            for v in range(1, similarity.shape[1]):
                sums.addcmul_(weights[part, v], similarity[part, v])
        ctx.save_for_backward(factors0, factors1, similarity, weights, weighted)
        return weighted, weights.diagonal(dim1=2, dim2=3).clone()

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, gradient: Float[Tensor, "B N N"], by_own: Float[Tensor, "B V N"]
    ) -> tuple[Tensor, Tensor, None]:
        factors0, factors1, similarity, weights, weighted = ctx.saved_tensors
        own = weights.diagonal(dim1=2, dim2=3)
        by_diagonal = own * (by_own - (own * by_own).sum(1, keepdim=True))
        by_factors0, by_factors1 = torch.empty_like(factors0), torch.empty_like(factors1)
        for part in _parts(len(similarity), similarity.device):
            by_logits = similarity[part] - weighted[part, None]
            by_logits.mul_(weights[part]).mul_(gradient[part, None])
            by_logits.diagonal(dim1=2, dim2=3).add_(by_diagonal[part])
            with torch.autocast(factors0.device.type, enabled=False):
                by_factors0[part] = _thin_product(factors1[part], by_logits.transpose(2, 3))
                by_factors1[part] = _thin_product(factors0[part], by_logits)
        return by_factors0, by_factors1, None


def _logits(
    factors0: Float[Tensor, "B V N K"], factors1: Float[Tensor, "B V N K"]
) -> Float[Tensor, "B V N N"]:
    with torch.autocast(factors0.device.type, enabled=False):
        return factors0 @ factors1.transpose(2, 3)


def _thin_product(
    factors: Float[Tensor, "B V N K"], matrix: Float[Tensor, "B V N M"]
) -> Float[Tensor, "B V M K"]:
    """matrix^T factors; with the thin side first it takes a CPU a quarter of the time."""
    return (factors.transpose(2, 3) @ matrix).transpose(2, 3)


def _parts(count: int, device: torch.device) -> list[slice]:
    """Every pair, or all of them as one part."""
    return [slice(0, count)] if made_together(device) else [slice(b, b + 1) for b in range(count)]
