"""The weighted similarity of the online selection straight from descriptors, image by image.

The same numbers as `lisrd.match.selection` gives step by step, with a backward pass written out; on a CPU all passes
are made over one image's matrices while they are in the cache. With the similarities s_v, the weights
w = softmax_v(l) of the logits l_v = k a_v b_v^T + bias_v, the weighted similarity t = sum_v w_v s_v, and g the gradient
of the loss by t,

    dL/dl_v = w_v g (s_v - t)        dL/da_v = k dL/dl_v b_v        dL/db_v = k (dL/dl_v)^T a_v

and on the diagonal, where the weights themselves are asked for with gradients h_v, w_v (h_v - sum_u w_u h_u) is added.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.match.agreement import agreement_logits, distinct_shares
from lisrd.match.selection import descriptor_similarity, invariance_weights, weighted_similarity
from lisrd.train.pair_softmax import made_together, multiplied


def selected_similarity(
    descriptors: tuple[Float[Tensor, "B N V D"], Float[Tensor, "B N V D"]],
    thin: tuple[Float[Tensor, "B V N K"], Float[Tensor, "B V N K"]],
    present: Bool[Tensor, "B N"],
    sharpness: Float[Tensor, ""],
    bias: Float[Tensor, " V"],
    agreement: tuple[float, float],
) -> tuple[Float[Tensor, "B N N"], Float[Tensor, "B V N"]]:
    """Similarities weighed by the selection, and its weights of the pairs (i, i).

    `thin` are `lisrd.match.selection.meta_factors`, `agreement` is the power and the ratio of the pair's agreement. The
    descriptors are given: no gradient reaches them.
    """
    d0, d1 = (d.detach().to(multiplied(d)) for d in descriptors)
    weighted, chosen = _Selected.apply(d0, d1, *thin, present, sharpness, bias, agreement)
    return weighted, chosen


class _Selected(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        descriptors0: Float[Tensor, "B N V D"],
        descriptors1: Float[Tensor, "B N V D"],
        thin0: Float[Tensor, "B V N K"],
        thin1: Float[Tensor, "B V N K"],
        present: Bool[Tensor, "B N"],
        sharpness: Float[Tensor, ""],
        bias: Float[Tensor, " V"],
        agreement: tuple[float, float],
    ) -> tuple[Float[Tensor, "B N N"], Float[Tensor, "B V N"]]:
        images, count = present.shape
        ctx.parts = (
            [slice(None)] if made_together(present.device) else [slice(b, b + 1) for b in range(images)]
        )
        ctx.dtypes = thin0.dtype, thin1.dtype
        exact = torch.promote_types(descriptors0.dtype, torch.float32)
        thin0, thin1 = thin0.to(exact), thin1.to(exact)
        weighted = thin0.new_empty(images, count, count)
        weights = thin0.new_empty(images, len(bias), count, count)
        with torch.autocast(present.device.type, enabled=False):  # the logits are exact, as in the matcher
            for part in ctx.parts:
                similarity = descriptor_similarity(descriptors0[part], descriptors1[part]).to(exact)
                there = present[part].unsqueeze(1).expand(similarity.shape[:3])
                logits = _with_agreement(bias, similarity, there, agreement)
                weights[part] = invariance_weights(thin0[part], thin1[part], sharpness, logits)
                weighted[part] = weighted_similarity(similarity, weights[part])
        ctx.save_for_backward(descriptors0, descriptors1, thin0, thin1, sharpness, weighted, weights)
        return weighted, weights.diagonal(dim1=2, dim2=3).clone()

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, by_weighted: Float[Tensor, "B N N"], by_chosen: Float[Tensor, "B V N"]
    ) -> tuple[Tensor | None, ...]:
        descriptors0, descriptors1, thin0, thin1, sharpness, weighted, weights = ctx.saved_tensors
        by_thin0, by_thin1 = torch.empty_like(thin0), torch.empty_like(thin1)
        by_bias = weights.new_zeros(weights.shape[1])
        for part in ctx.parts:
            by_logits = descriptor_similarity(descriptors0[part], descriptors1[part]).to(weights.dtype)
            by_logits.sub_(weighted[part].unsqueeze(1)).mul_(by_weighted[part].unsqueeze(1))
            own = weights[part].diagonal(dim1=2, dim2=3)
            shared = (own * by_chosen[part]).sum(1, keepdim=True)
            by_logits.diagonal(dim1=2, dim2=3).add_(by_chosen[part] - shared)
            by_logits.mul_(weights[part])
            # Few values per keypoint: a tenth of the time of the products the other way around.
            by_thin0[part] = (thin1[part].transpose(-1, -2) @ by_logits.transpose(-1, -2)).transpose(-1, -2)
            by_thin1[part] = (thin0[part].transpose(-1, -2) @ by_logits).transpose(-1, -2)
            by_bias += by_logits.sum((0, 2, 3))
        by_sharpness = (by_thin0 * thin0).sum()
        scaled = [
            (by * sharpness).to(dtype) for by, dtype in zip((by_thin0, by_thin1), ctx.dtypes, strict=True)
        ]
        return None, None, *scaled, None, by_sharpness.to(sharpness.dtype), by_bias, None


def _with_agreement(
    bias: Float[Tensor, " V"],
    similarity: Float[Tensor, "B V N N"],
    present: Bool[Tensor, "B V N"],
    agreement: tuple[float, float],
) -> Float[Tensor, "B V"]:
    """The bias of each pair: what its agreement says is added where it counts."""
    power, ratio = agreement
    if not power:
        return bias.expand(len(similarity), -1)
    return bias + agreement_logits(distinct_shares(similarity, present, present, ratio), power)
