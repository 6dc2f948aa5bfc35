"""The most that a device does: a copy, and products of large squares."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.work import Case, Meter, Sizes, Work


def ceiling_cases(sizes: Sizes, meter: Meter) -> Iterator[Case]:
    """A copy within the device's memory, and square products of random numbers."""
    yield Case("ceilings", "copy", "", partial(_copy, sizes.copied, meter.device))
    for unit in ("bfloat16", "tf32", "float32"):
        yield Case("ceilings", f"product {sizes.square}^3", unit, partial(_square, sizes.square, unit, meter))


def _copy(count: int, device: torch.device) -> Work:
    source = torch.rand(count // 4, device=device)
    target = torch.empty_like(source)
    return Work(lambda: target.copy_(source), bytes=2 * source.nbytes)


def _square(side: int, unit: str, meter: Meter) -> Work:
    dtype = torch.bfloat16 if unit == "bfloat16" else torch.float32
    left, right = (torch.randn(side, side, device=meter.device).to(dtype) for _ in range(2))

    def run() -> Tensor:
        with tf32(unit == "tf32"):
            return left @ right

    return Work(run, operations=2 * side**3)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products and convolutions may be those of TF32; torch allows it for convolutions alone."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
