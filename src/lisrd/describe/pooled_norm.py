"""BatchNorm over groups of channels and over processes: one mean and variance for all that share parameters.

With the sum and the ReLU behind it, because what it costs is how often the maps are read and written. A map of
4 x 8 channels is normalised as it stands, several times faster than as a map of 8 channels four times as wide; the
statistics are pooled after.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.describe.norm_passes import choose_passes
from lisrd.processes import process_count, rows_of_processes, sum_over_processes


class PooledNorm(torch.autograd.Function):
    """Normalised maps plus `skip`, rectified or not; mean and biased variance.

    Feature c of C is in channels c, C + c, 2 C + c, ... of the map; `weight` and `bias` have C values each. Gradients
    are those of the statistics of all processes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "B K H W"],
        weight: Float[Tensor, " C"],
        bias: Float[Tensor, " C"],
        eps: float,
        skip: Float[Tensor, "B K H W"] | None,
        rectify: bool,
    ) -> tuple[Float[Tensor, "B K H W"], Float[Tensor, " C"], Float[Tensor, " C"]]:
        passes = choose_passes(x, skip)
        mean, variance = _pooled(*passes.statistics(x), len(weight))
        inverse = torch.rsqrt(variance + eps)
        scale = weight * inverse
        groups = x.shape[1] // len(weight)
        out = passes.affine(x, scale.repeat(groups), (bias - mean * scale).repeat(groups), skip, rectify)
        ctx.save_for_backward(x, scale, mean, inverse, out if rectify else None)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, gradient: Float[Tensor, "B K H W"], *_: Tensor
    ) -> tuple[Tensor | None, ...]:
        """dx = w / sigma (g - mean(g) - n mean(g n)), n the normalised map; the means are over all that is pooled."""
        x, scale, mean, inverse, out = ctx.saved_tensors
        groups = x.shape[1] // len(scale)
        if x.is_contiguous(memory_format=torch.channels_last):
            gradient = gradient.contiguous(memory_format=torch.channels_last)
        passes = choose_passes(gradient, x, out)
        sums = passes.sums(gradient, x, mean.repeat(groups), out, needs_gradient=ctx.needs_input_grad[4])
        by_bias, centred = (each.view(groups, -1).sum(0) for each in (sums.plain, sums.centred))
        by_weight = centred * inverse
        count = x.numel() // len(scale) * process_count()
        mean_by_weight, mean_by_bias = sum_over_processes(torch.stack([by_weight, by_bias])) / count
        by_x = -scale * inverse * mean_by_weight
        constant = -scale * mean_by_bias - by_x * mean
        through = passes.combine(sums, x, *(each.repeat(groups) for each in (scale, by_x, constant)))
        return through, by_weight, by_bias, None, sums.gradient if ctx.needs_input_grad[4] else None, None


def _pooled(
    mean: Float[Tensor, " K"], variance: Float[Tensor, " K"], channels: int
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Mean and biased variance over all groups of channels and processes, which are equally large."""
    means, variances = (rows_of_processes(each.view(-1, channels)) for each in (mean, variance))
    return means.mean(0), variances.mean(0) + means.var(0, unbiased=False)


def normalise(
    x: Float[Tensor, "B K H W"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    mean: Float[Tensor, " C"],
    variance: Float[Tensor, " C"],
    eps: float,
    skip: Float[Tensor, "B K H W"] | None = None,
    rectify: bool = False,
) -> Float[Tensor, "B K H W"]:
    """weight (x - mean) / sqrt(variance + eps) + bias, plus `skip`, rectified or not, for given statistics."""
    groups = x.shape[1] // len(weight)
    w, b, m, v = (values.repeat(groups) for values in (weight, bias, mean, variance))
    out = torch.native_batch_norm(x, w, b, m, v, False, 0.0, eps)[0]
    out = out if skip is None else out + skip
    return F.relu(out) if rectify else out
