"""BatchNorm, a shortcut added and ReLU in one; its statistics are over groups of channels and over processes.

One mean and variance serve all channels that share parameters. PyTorch's kernels vectorise along the channels of a
channels-last map, so a map of 4 x 8 channels is normalised as it stands, three to four times faster than as a map of
8 channels four times as wide; the statistics are pooled after.

In training these passes move more memory than all else: done one by one as PyTorch offers them they read and write a
map 20 times. Where numba is installed a CPU does it 8 times (`lisrd.describe.rectified_norm_compiled`).
"""

from __future__ import annotations

import importlib.util
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.processes import process_count, rows_of_processes, sum_over_processes

#: A value for each channel of a map.
PerChannel = Float[Tensor, " K"]
Maps = Float[Tensor, "B K H W"]


class Passes(Protocol):
    """What goes over whole maps. `out` is relu(scale x + shift [+ shortcut]), g the gradient where that is above 0."""

    def statistics(self, x: Maps) -> tuple[PerChannel, PerChannel]:
        """Mean and biased variance of every channel, in float32 at least."""

    def rectified(self, x: Maps, scale: PerChannel, shift: PerChannel, shortcut: Maps | None) -> Maps:
        """`out`."""

    def gradient_sums(
        self,
        gradient: Maps,
        x: Maps,
        out: Maps,
        scale: PerChannel,
        shift: PerChannel,
        mean: PerChannel,
        shortcut: bool,
    ) -> tuple[PerChannel, PerChannel]:
        """Sums of g, and of g (x - mean)."""

    def gradients(
        self,
        gradient: Maps,
        x: Maps,
        out: Maps,
        scale: PerChannel,
        shift: PerChannel,
        slope: PerChannel,
        offset: PerChannel,
        shortcut: bool,
    ) -> tuple[Maps, Maps | None]:
        """scale g + slope x + offset, and g itself where there is a shortcut."""


class RectifiedNorm(torch.autograd.Function):
    """relu(w n + b [+ shortcut]), n the normalised map, with mean and biased variance.

    Feature c of C is in channels c, C + c, 2 C + c, ... of the map; `weight` and `bias` have C values each. Gradients
    are those of the statistics of all processes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Maps,
        weight: Float[Tensor, " C"],
        bias: Float[Tensor, " C"],
        shortcut: Maps | None,
        eps: float,
    ) -> tuple[Maps, Float[Tensor, " C"], Float[Tensor, " C"]]:
        passes = _passes_for(x)
        mean, variance = _pooled(*passes.statistics(x), len(weight))
        scale, shift = affine(weight, bias, mean, variance, eps, x.shape[1])
        out = passes.rectified(x, scale, shift, shortcut)
        ctx.save_for_backward(x, out, weight, mean, variance, scale, shift)
        ctx.eps, ctx.has_shortcut = eps, shortcut is not None
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: Maps, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """dx = w / sigma (g - mean(g) - n mean(g n)); the means are over all that is pooled."""
        x, out, weight, mean, variance, scale, shift = ctx.saved_tensors
        passes, channels = _passes_for(x), len(weight)
        groups = x.shape[1] // channels
        sigma = torch.sqrt(variance + ctx.eps)
        sums = passes.gradient_sums(gradient, x, out, scale, shift, mean.repeat(groups), ctx.has_shortcut)
        by_bias, by_weight = (each.view(groups, -1).sum(0) for each in sums)
        by_weight = by_weight / sigma
        count = x.numel() // channels * process_count()
        mean_g, mean_gn = sum_over_processes(torch.stack([by_bias, by_weight])) / count
        slope = -weight / sigma.square() * mean_gn
        offset = -weight / sigma * mean_g - slope * mean
        by_x, by_shortcut = passes.gradients(
            gradient, x, out, scale, shift, slope.repeat(groups), offset.repeat(groups), ctx.has_shortcut
        )
        return by_x, by_weight, by_bias, by_shortcut, None


def affine(
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    mean: Float[Tensor, " C"],
    variance: Float[Tensor, " C"],
    eps: float,
    channels: int,
) -> tuple[PerChannel, PerChannel]:
    """Scale and shift of each of the `channels` of a map, which normalise it."""
    scale = weight / torch.sqrt(variance + eps)
    shift = bias - mean * scale
    groups = channels // len(weight)
    return scale.repeat(groups), shift.repeat(groups)


def _pooled(
    mean: PerChannel, variance: PerChannel, channels: int
) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Mean and biased variance over all groups of channels and processes, which are equally large."""
    mean, variance = (rows_of_processes(each.view(-1, channels)) for each in (mean, variance))
    return mean.mean(0), variance.mean(0) + mean.var(0, unbiased=False)


class TorchPasses:
    """`Passes` by PyTorch's own operations, on every device."""

    def statistics(self, x: Maps) -> tuple[PerChannel, PerChannel]:
        dtype = torch.promote_types(x.dtype, torch.float32)
        if x.device.type != "cpu":
            variance, mean = torch.var_mean(x.to(dtype), dim=(0, 2, 3), correction=0)
            return mean, variance
        # Twenty times faster than var_mean; given float32 running values, it computes and returns float32.
        running = torch.zeros(x.shape[1], dtype=dtype)
        mean, variance = torch.batch_norm_update_stats(x, running, running.clone(), 1.0)
        return mean, variance

    def rectified(self, x: Maps, scale: PerChannel, shift: PerChannel, shortcut: Maps | None) -> Maps:
        out = scaled(x, scale, shift)
        return (out if shortcut is None else out.add_(shortcut)).relu_()

    def gradient_sums(
        self,
        gradient: Maps,
        x: Maps,
        out: Maps,
        scale: PerChannel,
        shift: PerChannel,
        mean: PerChannel,
        shortcut: bool,
    ) -> tuple[PerChannel, PerChannel]:
        reached = torch.ops.aten.threshold_backward(gradient, out, 0)
        # In channels-last memory CUDA asserts that there are tensors, and does not look into them.
        not_saved, one = x.new_empty(0, dtype=mean.dtype), torch.ones_like(mean)
        _, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            reached, x, one, mean, one, not_saved, not_saved, False, 0.0, [False, True, True]
        )
        return by_bias, by_weight

    def gradients(
        self,
        gradient: Maps,
        x: Maps,
        out: Maps,
        scale: PerChannel,
        shift: PerChannel,
        slope: PerChannel,
        offset: PerChannel,
        shortcut: bool,
    ) -> tuple[Maps, Maps | None]:
        reached = torch.ops.aten.threshold_backward(gradient, out, 0)
        by_x = scaled(reached, scale, torch.zeros_like(scale)).add_(scaled(x, slope, offset))
        return by_x, reached if shortcut else None


def scaled(x: Maps, scale: PerChannel, shift: PerChannel) -> Maps:
    """scale x + shift, in one pass that rounds once."""
    return torch.native_batch_norm(
        x, scale, shift, torch.zeros_like(scale), torch.ones_like(scale), False, 0.0, 0.0
    )[0]


def _passes_for(x: Maps) -> Passes:
    if x.device.type == "cpu" and importlib.util.find_spec("numba"):
        from lisrd.describe.rectified_norm_compiled import CompiledPasses

        if CompiledPasses.takes(x):
            return CompiledPasses()
    return TorchPasses()
