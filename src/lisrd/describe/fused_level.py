"""A level of the folded encoder whose convolutions add and rectify what they write: on a CPU, through oneDNN.

Written apart, the additions and ReLUs read and write every map again, a fifth of the encoder's time. PyTorch reaches
oneDNN's fused convolution through the operator that its compiler emits; here no user needs the compiler.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


def can_fuse(device: torch.device) -> bool:
    """Whether this build of PyTorch has the operators, and the device is the one they are for."""
    has_operators = hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    return device.type == "cpu" and torch.backends.mkldnn.is_available() and has_operators


class FusedLevel(nn.Module):
    """The same map as a level of folded convolutions, one or three, of maps in `dtype`."""

    def __init__(self, *convolutions: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(one.to(dtype) for one in convolutions)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        down, *block = self.convolutions
        x = _rectified(down, x)
        if not block:
            return x
        first, second = block
        return _added_and_rectified(second, _rectified(first, x), x)


def _rectified(conv: nn.Module, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
    return torch.ops.mkldnn._convolution_pointwise(
        x, conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups, "relu", [], ""
    )


def _added_and_rectified(
    conv: nn.Module, x: Float[Tensor, "B C H W"], shortcut: Float[Tensor, "B K h w"]
) -> Float[Tensor, "B K h w"]:
    """relu(shortcut + conv(x))."""
    place = conv.padding, conv.stride, conv.dilation, conv.groups
    return torch.ops.mkldnn._convolution_pointwise.binary(
        x, shortcut, conv.weight, conv.bias, *place, "add", 1.0, "relu", [], ""
    )
