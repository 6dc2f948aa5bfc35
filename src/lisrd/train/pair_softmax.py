"""The dual softmax loss straight from descriptors, for chosen (image, invariance) pairs.

The same numbers as `losses.dual_softmax_loss` of their similarities, with a backward pass written out, and on a CPU all
passes made over one image's matrices while they are in the cache. With e = exp(k (s - 1)), the sums R of its rows and C
of its columns, and g_i the gradient of the loss of keypoint i,

    loss_i   = (log R_i + log C_i) / 2 - k (s_ii - 1)
    G_ij     = (g_i / R_i + g_j / C_j) / 2 e_ij - g_i [i = j]
    dL/ds    = k G        dL/dk = sum_ij G_ij (s_ij - 1)
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def dual_softmax_of_descriptors(
    descriptors0: Float[Tensor, "B N V D"],
    descriptors1: Float[Tensor, "B N V D"],
    ignored: Bool[Tensor, "B N N"],
    chosen: Bool[Tensor, "B V"],
    sharpness: Float[Tensor, ""],
) -> Float[Tensor, "P N"]:
    """Loss per keypoint of the P chosen pairs, in the order of `chosen.nonzero()`."""
    eye = torch.eye(ignored.shape[1], dtype=torch.bool, device=ignored.device)
    counted = (~ignored | eye).to(torch.promote_types(descriptors0.dtype, torch.float32))
    d0, d1 = (d.transpose(1, 2).to(_multiplied(d)) for d in (descriptors0, descriptors1))
    return _DualSoftmax.apply(d0.contiguous(), d1.contiguous(), counted, chosen, sharpness)


class _DualSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        descriptors0: Float[Tensor, "B V N D"],
        descriptors1: Float[Tensor, "B V N D"],
        counted: Float[Tensor, "B N N"],
        chosen: Bool[Tensor, "B V"],
        sharpness: Float[Tensor, ""],
    ) -> Float[Tensor, "P N"]:
        parts, count = _parts(chosen), counted.shape[-1]
        pairs = sum(len(part.images) for part in parts)
        scores = counted.new_empty(pairs, count, count)
        rows, columns, positives = counted.new_empty(3, pairs, count)
        tiny = torch.finfo(counted.dtype).tiny
        for part in parts:
            d0, d1 = descriptors0[part.images, part.kinds], descriptors1[part.images, part.kinds]
            e = scores[part.rows].copy_(d0 @ d1.transpose(1, 2)).sub_(1)
            positives[part.rows] = e.diagonal(dim1=1, dim2=2)
            e.mul_(sharpness).exp_().mul_(counted[part.images])
            rows[part.rows] = e.sum(2).clamp_min_(tiny)
            columns[part.rows] = e.sum(1).clamp_min_(tiny)
        ctx.parts = parts
        ctx.save_for_backward(descriptors0, descriptors1, sharpness, scores, rows, columns)
        return 0.5 * (rows.log() + columns.log()) - sharpness * positives

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "P N"]) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        descriptors0, descriptors1, sharpness, scores, rows, columns = ctx.saved_tensors
        by_descriptors0, by_descriptors1 = torch.zeros_like(descriptors0), torch.zeros_like(descriptors1)
        by_sharpness = torch.zeros_like(sharpness)
        by_row, by_column = 0.5 * gradient / rows, 0.5 * gradient / columns
        for part in ctx.parts:
            d0, d1 = descriptors0[part.images, part.kinds], descriptors1[part.images, part.kinds]
            G = (by_row[part.rows, :, None] + by_column[part.rows, None, :]).mul_(scores[part.rows])
            G.diagonal(dim1=1, dim2=2).sub_(gradient[part.rows])
            by_sharpness -= G.sum()
            G = G.to(d0.dtype)
            by_d0, by_d1 = G @ d1, G.transpose(1, 2) @ d0
            by_sharpness += (by_d0.to(scores.dtype) * d0).sum()  # sum_ij G_ij s_ij
            by_descriptors0[part.images, part.kinds] = (by_d0 * sharpness).to(d0.dtype)
            by_descriptors1[part.images, part.kinds] = (by_d1 * sharpness).to(d1.dtype)
        return by_descriptors0, by_descriptors1, None, None, by_sharpness


def _multiplied(descriptors: Tensor) -> torch.dtype:
    """The precision in which autocast would multiply them; a function with a backward of its own must ask."""
    device = descriptors.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else descriptors.dtype


class _Part(NamedTuple):
    """Pairs (image, kind) whose matrices are made together, and where they are among all P."""

    images: Int[Tensor, " k"]
    kinds: Int[Tensor, " k"]
    rows: slice


def _parts(chosen: Bool[Tensor, "B V"]) -> list[_Part]:
    """The pairs of each image, or all of them as one part."""
    images, kinds = chosen.nonzero(as_tuple=True)
    sizes = [len(images)] if made_together(chosen.device) else chosen.sum(1).tolist()
    stops = accumulate(size for size in sizes if size)
    return [_Part(images[a:b], kinds[a:b], slice(a, b)) for a, b in pairwise([0, *stops])]


def made_together(device: torch.device) -> bool:
    """Whether few large launches are worth more than matrices that stay in a CPU's cache."""
    return device.type != "cpu"
