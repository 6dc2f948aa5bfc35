"""What `PooledNorm` does to whole maps: by PyTorch on any device, by compiled passes on a CPU with numba."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lisrd.compiled import obstacle_to
from lisrd.threads import run_together, shares

_KERNEL = "lisrd.describe.norm_kernel"

#: Numbers in a row of a kernel, at most; an eighth of it still fills vector registers.
_WIDTH = 1024
#: Pixels for a rough mean, at most.
_ROUGHLY = 256


class Sums(NamedTuple):
    """Per channel the sums of g and of g (x - mean), g being what the ReLU lets through of `gradient`.

    `out` says where it does, and is None where `gradient` is g.
    """

    gradient: Float[Tensor, "B K H W"]
    out: Float[Tensor, "B K H W"] | None
    plain: Float[Tensor, " K"]
    centred: Float[Tensor, " K"]


def choose_passes(*maps: Tensor | None) -> TorchPasses:
    """The compiled ones for what they can take: on a CPU, float32 or bfloat16, channels last."""
    given = [each for each in maps if each is not None]
    fit = len({each.dtype for each in given}) == 1 and all(map(_fits, given))
    return CompiledPasses() if fit and not obstacle_to(_KERNEL) else TorchPasses()


def norm_pass(device: str) -> tuple[str, str]:
    """What makes the passes on a device, and the reason in words: for `lisrd info`."""
    if device != "cpu":
        return "torch", f"nothing faster is there for {device}"
    obstacle = obstacle_to(_KERNEL)
    return ("torch", obstacle) if obstacle else ("numba", "norm, sum and ReLU of a map at once")


def _fits(x: Tensor) -> bool:
    known = x.dtype in (torch.float32, torch.bfloat16)
    return x.device.type == "cpu" and known and x.permute(0, 2, 3, 1).is_contiguous()


class TorchPasses:
    """Any device, any type, any memory format; numbers per channel are float32 at least."""

    def statistics(self, x: Float[Tensor, "B K H W"]) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
        """Mean and biased variance of every channel."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        if x.device.type != "cpu":
            variance, mean = torch.var_mean(x.to(dtype), dim=(0, 2, 3), correction=0)
            return mean, variance
        # Twenty times faster than var_mean; given float32 running values, it computes and returns float32.
        running = torch.zeros(x.shape[1], dtype=dtype)
        mean, variance = torch.batch_norm_update_stats(x, running, running.clone(), 1.0)
        return mean, variance

    def affine(
        self,
        x: Float[Tensor, "B K H W"],
        scale: Float[Tensor, " K"],
        shift: Float[Tensor, " K"],
        skip: Float[Tensor, "B K H W"] | None,
        rectify: bool,
    ) -> Float[Tensor, "B K H W"]:
        """scale x + shift, then plus `skip`, then its positive part."""
        out = _scaled(x, scale, shift)
        if skip is not None:
            out = out.add_(skip)
        return out.relu_() if rectify else out

    def sums(
        self,
        gradient: Float[Tensor, "B K H W"],
        x: Float[Tensor, "B K H W"],
        mean: Float[Tensor, " K"],
        out: Float[Tensor, "B K H W"] | None,
        needs_gradient: bool,
    ) -> Sums:
        """Of the gradient where `out`, if given, is above 0; as a map of its own if that is needed."""
        if out is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, out, 0)
        one = torch.ones_like(mean)
        # In channels-last memory CUDA asserts that there are tensors, and does not look into them.
        not_saved = mean.new_empty(0)
        _, centred, plain = torch.ops.aten.native_batch_norm_backward(
            gradient, x, one, mean, one, not_saved, not_saved, False, 0.0, [False, True, True]
        )
        return Sums(gradient, None, plain, centred)

    def combine(
        self,
        sums: Sums,
        x: Float[Tensor, "B K H W"],
        by_gradient: Float[Tensor, " K"],
        by_x: Float[Tensor, " K"],
        constant: Float[Tensor, " K"],
    ) -> Float[Tensor, "B K H W"]:
        """by_gradient g + by_x x + constant."""
        result = _scaled(x, by_x, constant)
        return result.addcmul_(sums.gradient, by_gradient.to(x.dtype)[:, None, None])


def _scaled(
    x: Float[Tensor, "B K H W"], scale: Float[Tensor, " K"], shift: Float[Tensor, " K"]
) -> Float[Tensor, "B K H W"]:
    """scale x + shift in one pass."""
    return torch.native_batch_norm(
        x, scale, shift, torch.zeros_like(scale), torch.ones_like(scale), False, 0.0, 0.0
    )[0]


class CompiledPasses(TorchPasses):
    """The same for maps of float32 or bfloat16, channels last; as many threads as torch computes with."""

    def statistics(self, x: Float[Tensor, "B K H W"]) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
        from lisrd.describe.norm_kernel import add_moments

        # Squares of large numbers would leave nothing of the variance: those of distances to a rough mean do.
        pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        near = pixels[:: -(-len(pixels) // _ROUGHLY)].float().mean(0)
        rows = _matrix(x)
        first, second = _totals(add_moments, len(near), rows, _along(near, rows)) / len(pixels)
        variance = (second - first**2).clamp_min(0)
        return (near + first).float(), variance.float()

    def affine(
        self,
        x: Float[Tensor, "B K H W"],
        scale: Float[Tensor, " K"],
        shift: Float[Tensor, " K"],
        skip: Float[Tensor, "B K H W"] | None,
        rectify: bool,
    ) -> Float[Tensor, "B K H W"]:
        from lisrd.describe.norm_kernel import affine

        out, rows = torch.empty_like(x), _matrix(x)
        summand = None if skip is None else _matrix(skip)
        _on_all_rows(
            affine, rows, _along(scale, rows), _along(shift, rows), summand, rectify or None, _matrix(out)
        )
        return out

    def sums(
        self,
        gradient: Float[Tensor, "B K H W"],
        x: Float[Tensor, "B K H W"],
        mean: Float[Tensor, " K"],
        out: Float[Tensor, "B K H W"] | None,
        needs_gradient: bool,
    ) -> Sums:
        from lisrd.describe.norm_kernel import add_products

        rows, let_through = _matrix(x), None if out is None else _matrix(out)
        masked = torch.empty_like(x) if needs_gradient and out is not None else None
        written = None if masked is None else _matrix(masked)
        inputs = _matrix(gradient), rows, _along(mean, rows), let_through, written
        plain, centred = _totals(add_products, len(mean), *inputs).float()
        return Sums(gradient, out, plain, centred) if masked is None else Sums(masked, None, plain, centred)

    def combine(
        self,
        sums: Sums,
        x: Float[Tensor, "B K H W"],
        by_gradient: Float[Tensor, " K"],
        by_x: Float[Tensor, " K"],
        constant: Float[Tensor, " K"],
    ) -> Float[Tensor, "B K H W"]:
        from lisrd.describe.norm_kernel import combine

        result, rows = torch.empty_like(x), _matrix(x)
        factors = (_along(values, rows) for values in (by_gradient, by_x, constant))
        let_through = None if sums.out is None else _matrix(sums.out)
        _on_all_rows(combine, _matrix(sums.gradient), rows, let_through, *factors, _matrix(result))
        return result


def _matrix(x: Float[Tensor, "B K H W"]) -> Shaped[np.ndarray, "rows width"]:
    """The map as the kernels take it, in the same memory: as many pixels a row as vector instructions need."""
    channels = x.shape[1]
    pixels = x.numel() // channels
    places = 1
    while 2 * places * channels <= _WIDTH and pixels % (2 * places) == 0:
        places *= 2
    rows = x.permute(0, 2, 3, 1).reshape(-1, places * channels)
    return (rows.view(torch.uint16) if x.dtype == torch.bfloat16 else rows).numpy()


def _along(
    values: Float[Tensor, " K"], rows: Shaped[np.ndarray, "rows width"]
) -> Float[np.ndarray, " width"]:
    """What belongs to the channels, once for every pixel of a row."""
    return values.float().repeat(rows.shape[1] // len(values)).numpy()


def _on_all_rows(kernel: Callable[..., None], *arguments: Any) -> None:
    run_together([partial(kernel, *arguments, share) for share in shares(len(arguments[0]))])


def _totals(kernel: Callable[..., None], channels: int, *arguments: Any) -> Float[Tensor, "2 K"]:
    """What a kernel adds up per channel, float64."""
    parts = shares(len(arguments[0]))
    totals = np.zeros((len(parts), 2, arguments[0].shape[1]))
    run_together(
        [partial(kernel, *arguments, total, part) for total, part in zip(totals, parts, strict=True)]
    )
    return torch.from_numpy(totals.reshape(len(parts), 2, -1, channels).sum((0, 2)))
