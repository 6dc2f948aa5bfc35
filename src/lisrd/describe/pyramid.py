"""The encoder of the `pyramid` network: five levels at strides 2, 4, 8, 16 and 32."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.describe.fused_level import FusedLevel, can_fuse
from lisrd.describe.halving import halved
from lisrd.describe.light import CELL, normalised_light
from lisrd.describe.turns import ConvNorm, Lift, TurnConv

EncoderInput = Literal["colour", "light", "both"]
INPUT_CHANNELS: dict[str, int] = {"colour": 3, "light": 1, "both": 4}


def check_input(encoder_input: str, levels: int) -> None:
    """Raises ValueError for an input that no encoder, or none of so few levels, takes."""
    if encoder_input not in INPUT_CHANNELS:
        raise ValueError(f"encoder_input is {encoder_input!r}; it must be one of {', '.join(INPUT_CHANNELS)}")
    if encoder_input != "colour" and 2**levels % CELL:
        raise ValueError(
            f"encoder_input {encoder_input!r} reads cells of {CELL} pixels: widths needs three levels or more"
        )


class PlainLevel(nn.Module):
    """The convolution behind the down-sampling, and nothing else."""

    def __init__(self, down: TurnConv | Lift, channels: int) -> None:
        super().__init__()
        self.down = ConvNorm(down, channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        return self.down(x, rectify=True)


class Level(PlainLevel):
    """The same, then one residual block of two 3 x 3 convolutions."""

    def __init__(self, down: TurnConv | Lift, channels: int) -> None:
        super().__init__(down, channels)
        self.first = ConvNorm(TurnConv(channels, channels, down.turns), channels)
        self.second = ConvNorm(TurnConv(channels, channels, down.turns), channels)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        x = super().forward(x)
        return self.second(self.first(x, rectify=True), skip=x, rectify=True)


class FoldedLevel(nn.Module):
    """The same map as a level of ordinary convolutions, one or three."""

    def __init__(self, *convolutions: nn.Conv2d) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        down, *block = self.convolutions
        x = F.relu(down(x), inplace=True)
        if not block:
            return x
        first, second = block
        return F.relu(x + second(F.relu(first(x), inplace=True)), inplace=True)


class PyramidEncoder(nn.Module):
    """RGB, its normalised light, or both, to maps of `turns * widths[k]` channels at stride 2^(k+1).

    Each level halves by 2 x 2 average pooling, which is symmetric under turns, and convolves afterwards. The first
    `plain_levels` have no residual block, which is worth a seventh of all operations at stride 2.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        turns: int,
        encoder_input: EncoderInput = "colour",
        first_kernel: int = 4,
        plain_levels: int = 0,
    ) -> None:
        super().__init__()
        self.widths = widths
        self.turns = turns
        self.input = encoder_input
        in_widths = INPUT_CHANNELS[encoder_input], *widths
        self.levels = nn.ModuleList()
        for index, (below, width) in enumerate(pairwise(in_widths)):
            down = TurnConv(below, width, turns) if index else Lift(below, width, turns, first_kernel)
            self.levels.append((PlainLevel if index < plain_levels else Level)(down, width))
        self.dtype: torch.dtype | None = None  # of the maps; None leaves it to the images, or to autocast

    @property
    def stride(self) -> int:
        """Both sides of the input must be multiples of this."""
        return 2 ** len(self.widths)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        x = self._input(images)
        x = x.to(dtype=self.dtype or x.dtype, memory_format=torch.channels_last)
        maps = []
        for index, level in enumerate(self.levels):
            x = level(halved(x) if index else x)
            maps.append(x)
        return maps

    def _input(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H W"]:
        colour = (images - 0.45).mul_(4)
        if self.input == "colour":
            return colour
        light = normalised_light(images)
        return light if self.input == "light" else torch.cat([colour, light.to(colour.dtype)], dim=1)

    @torch.no_grad()
    def fold(self) -> PyramidEncoder:
        """Replace every convolution and BatchNorm by one ordinary convolution; for inference only."""
        unfolded: Any = self.levels
        folded: Any = nn.ModuleList(
            FoldedLevel(*(one.fold() for one in level.children())) for level in unfolded
        )
        self.levels = folded.to(memory_format=torch.channels_last)  # torch types no memory format
        return self

    def fuse(self, dtype: torch.dtype) -> PyramidEncoder:
        """Compute the folded levels in `dtype`, with sums and ReLUs within the convolutions, where the device can."""
        if can_fuse(next(self.parameters()).device):
            folded: Any = self.levels
            self.levels = nn.ModuleList(FusedLevel(*level.convolutions, dtype=dtype) for level in folded)
            self.dtype = dtype
        return self
