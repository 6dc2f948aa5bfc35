"""Convolutions that are equivariant to quarter turns of the image, or nearly so to eighths of a turn.

Channels are ordered turn first: channel t * C + c is feature c in turn t. When the image is turned by
`torch.rot90(image, 1)`, every map turns with it and its turns move up by a quarter of their number: of four turns,
what stood at turn t stands at turn t + 1. A layer stores one kernel per pair of features and input turn; the kernel
of output turn g is that kernel turned by g with its input turns rolled by g. After `fold()` what is left is an
ordinary CNN.

With eight turns a 3 x 3 kernel is turned by 45 degrees by moving the ring of its eight outer numbers on by one: exact
as a group, and what an image turned by 45 degrees needs but for its sampling grid. Quarter turns stay exact.

Source: Cohen and Welling, Group Equivariant Convolutional Networks, ICML 2016 (the group p4); Marcos et al., Rotation
Equivariant Vector Field Networks, ICCV 2017, for kernels resampled at other angles.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lisrd.describe.pooled_norm import PooledNorm, normalise
from lisrd.processes import process_count

_RING = [0, 1, 2, 5, 8, 7, 6, 3]  # places of a 3 x 3 kernel around its centre, clockwise from the top left


def quarter(turns: int) -> int:
    """How many of `turns` are a quarter turn."""
    return max(turns // 4, 1)


class TurnConv(nn.Module):
    """3 x 3 convolution between maps of `turns * channels`; with one turn an ordinary convolution."""

    def __init__(self, in_channels: int, out_channels: int, turns: int) -> None:
        super().__init__()
        self.turns = turns
        fan_in = turns * in_channels * 9
        self.weight = nn.Parameter(torch.randn(out_channels, turns, in_channels, 3, 3) * (2 / fan_in) ** 0.5)
        self.register_buffer("places", _turned_places(turns), persistent=False)
        self.places: Float[Tensor, "stored turned"]

    def kernels(self) -> Float[Tensor, "turned_out turned_in 3 3"]:
        """The bank for all output turns, in one product that copies: a quarter of the time of turning and rolling."""
        out_channels, turns, in_channels, *size = self.weight.shape
        turned = self.weight.transpose(1, 2).flatten(2) @ self.places
        turned = turned.view(out_channels, in_channels, turns, turns, -1).permute(2, 0, 3, 1, 4)
        return turned.reshape(turns * out_channels, turns * in_channels, *size)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        return F.conv2d(x, self.kernels(), padding=1)


def _turned_places(turns: int) -> Float[Tensor, "stored turned"]:
    """Ones where number i of a stored kernel (turns, 3, 3) stands in the kernels of all output turns."""
    stored = torch.eye(turns * 9).view(-1, turns, 3, 3)
    return torch.stack([_turn(stored, g, turns).roll(g, 1) for g in range(turns)], dim=1).flatten(1)


def _turn(kernels: Float[Tensor, "*batch 3 3"], g: int, turns: int) -> Float[Tensor, "*batch 3 3"]:
    """Turned counter-clockwise by g of `turns`."""
    turned = kernels.rot90(g // quarter(turns), (-2, -1))
    if g % quarter(turns) == 0:
        return turned
    places = list(range(9))
    for place, next_clockwise in pairwise([*_RING, _RING[0]]):
        places[place] = next_clockwise
    return turned.flatten(-2)[..., places].unflatten(-1, (3, 3))


def rolled(weight: Float[Tensor, "out turns in"], by: int) -> Float[Tensor, "turns out turns in"]:
    """`weight.roll(by * g, 1)` for all turns g, in one pass: rolls by themselves take longer than the products."""
    turns = weight.shape[1]
    g, t = torch.meshgrid(*(torch.arange(turns, device=weight.device) for _ in range(2)), indexing="ij")
    every = weight.index_select(1, ((t - by * g) % turns).flatten())
    return every.unflatten(1, (turns, turns)).transpose(0, 1)


class TurnLinear(nn.Module):
    """Linear map between `turns x features` at one point; the same weights for the same relative turn."""

    def __init__(self, in_features: int, out_features: int, turns: int) -> None:
        super().__init__()
        self.turns = turns
        bound = (turns * in_features) ** -0.5
        self.weight = nn.Parameter(torch.empty(out_features, turns, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Float[Tensor, "*batch turned_in"]) -> Float[Tensor, "*batch turned_out"]:
        return F.linear(x, *self.bank_and_bias())

    def bank_and_bias(self) -> tuple[Float[Tensor, "turned_out turned_in"], Float[Tensor, " turned_out"]]:
        """What an ordinary Linear would multiply by and add, for all output turns."""
        bank = rolled(self.weight, 1).flatten(0, 1).flatten(1)
        return bank, self.bias.repeat(self.turns)

    def fold(self) -> nn.Linear:
        """The same map as one ordinary Linear."""
        bank, bias = self.bank_and_bias()
        folded = nn.Linear(bank.shape[1], bank.shape[0], device=bank.device)
        folded.weight.data.copy_(bank.detach())
        folded.bias.data.copy_(bias.detach())
        return folded


class Lift(nn.Module):
    """Convolution of stride 2 from an image to features in every turn; `size` is its kernel's side, an even one.

    An even kernel, padded by what keeps the map centred on the image: a 3 x 3 kernel of stride 2 would shift it by
    half a pixel, to another side in a turned image. At 45 degrees it is resampled bilinearly. One of 6 x 6 has no
    corners, which would leave the square then.
    """

    def __init__(self, in_channels: int, out_channels: int, turns: int, size: int = 4) -> None:
        super().__init__()
        self.turns = turns
        self.size = size
        self.register_buffer("inside", _disc(size) if size > 4 else torch.ones(size, size), persistent=False)
        self.register_buffer("eighth", _eighth_of_a_turn(size), persistent=False)
        self.inside: Float[Tensor, "size size"]
        self.eighth: Float[Tensor, "stored turned"]
        fan_in = in_channels * float(self.inside.sum())
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, size, size) * (2 / fan_in) ** 0.5)

    def kernels(self) -> Float[Tensor, "turned_out in size size"]:
        kernels = [self.weight * self.inside]
        if quarter(self.turns) == 2:
            kernels.append((kernels[0].flatten(2) @ self.eighth).view_as(self.weight))
        turned = (kernels[g % len(kernels)].rot90(g // len(kernels), (2, 3)) for g in range(self.turns))
        return torch.cat(list(turned))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H/2 W/2"]:
        return F.conv2d(x, self.kernels(), stride=2, padding=self.padding)

    @property
    def padding(self) -> int:
        return self.size // 2 - 1


def _disc(size: int) -> Float[Tensor, "size size"]:
    """Ones where a pixel's centre lies within the circle in the kernel."""
    offset = torch.arange(size) - (size - 1) / 2
    return (offset[:, None] ** 2 + offset**2 <= (size / 2) ** 2).float()


def _eighth_of_a_turn(size: int) -> Float[Tensor, "stored turned"]:
    """What number i of a kernel of `size` x `size` adds to the kernel turned counter-clockwise by 45 degrees."""
    places = torch.eye(size**2).view(-1, 1, size, size)
    diagonal = 0.5**0.5
    turn = torch.tensor([[diagonal, -diagonal, 0.0], [diagonal, diagonal, 0.0]])
    grid = F.affine_grid(turn.expand(len(places), 2, 3), list(places.shape), align_corners=False)
    return F.grid_sample(places, grid, align_corners=False).flatten(1)


class TurnBatchNorm(nn.Module):
    """BatchNorm whose statistics and affine parameters are shared by the turns, and by the processes of a training."""

    def __init__(self, channels: int, turns: int) -> None:
        super().__init__()
        self.turns = turns
        self.norm = nn.BatchNorm2d(channels)

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        skip: Float[Tensor, "B C H W"] | None = None,
        rectify: bool = False,
    ) -> Float[Tensor, "B C H W"]:
        """The normalised map, plus `skip`, rectified or not."""
        norm = self.norm
        if not self.training:
            return normalise(x, norm.weight, norm.bias, *self._running(), norm.eps, skip, rectify)
        normed, mean, variance = PooledNorm.apply(x, norm.weight, norm.bias, norm.eps, skip, rectify)
        self._remember(mean, variance, x.numel() // len(mean) * process_count())
        return normed

    def scale_and_shift(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """What evaluation mode multiplies and adds, per channel of the map."""
        norm = self.norm
        mean, variance = self._running()
        scale = norm.weight / torch.sqrt(variance + norm.eps)
        shift = norm.bias - mean * scale
        return scale.repeat(self.turns), shift.repeat(self.turns)

    def _running(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None
        assert variance is not None
        return mean, variance

    @torch.no_grad()
    def _remember(self, mean: Float[Tensor, " C"], variance: Float[Tensor, " C"], count: int) -> None:
        """Running statistics, as `nn.BatchNorm2d` keeps them: the variance is the unbiased one."""
        running_mean, running_variance = self._running()
        momentum, batches = self.norm.momentum, self.norm.num_batches_tracked
        assert momentum is not None
        assert batches is not None
        running_mean.lerp_(mean, momentum)
        running_variance.lerp_(variance * (count / (count - 1)), momentum)
        batches += 1


class ConvNorm(nn.Module):
    """Convolution and BatchNorm, then plus `skip`, rectified or not; `fold` makes one convolution of both."""

    def __init__(self, conv: TurnConv | Lift, out_channels: int) -> None:
        super().__init__()
        self.conv = conv
        self.norm = TurnBatchNorm(out_channels, conv.turns)

    def forward(
        self,
        x: Float[Tensor, "B C H W"],
        skip: Float[Tensor, "B K h w"] | None = None,
        rectify: bool = False,
    ) -> Float[Tensor, "B K h w"]:
        return self.norm(self.conv(x), skip, rectify)

    def fold(self) -> nn.Conv2d:
        """The same map as one ordinary convolution with bias."""
        scale, shift = self.norm.scale_and_shift()
        kernels = self.conv.kernels() * scale[:, None, None, None]
        out_channels, in_channels, size, _ = kernels.shape
        stride, padding = (2, self.conv.padding) if isinstance(self.conv, Lift) else (1, 1)
        how: dict[str, Any] = {"stride": stride, "padding": padding, "device": kernels.device}
        folded = nn.Conv2d(in_channels, out_channels, size, **how)
        folded.weight.data.copy_(kernels.detach())
        assert folded.bias is not None
        folded.bias.data.copy_(shift.detach())
        return folded
