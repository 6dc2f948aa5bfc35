"""Maps of half the size: the mean of every 2 x 2 cells, which is symmetric under turns."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def halved(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H/2 W/2"]:
    """`F.avg_pool2d(x, 2)`, for even sides; the gradient takes a CPU less than half as long."""
    return _Halved.apply(x) if x.requires_grad else F.avg_pool2d(x, 2)


class _Halved(torch.autograd.Function):
    """PyTorch's gradient clears a map and adds to it cell by cell; this one repeats a quarter of what came back."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H/2 W/2"]:
        return F.avg_pool2d(x, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C 2h 2w"]:  # type: ignore[override]
        return F.interpolate(gradient / 4, scale_factor=2, mode="nearest")
