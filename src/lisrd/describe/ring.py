"""One level of the pyramid read at a keypoint and on a ring of eight points around it.

A sample of a fine map knows little more than the pixels that its few channels could keep. Eight samples around it know
how the surroundings lie, for the price of reading them: there are far fewer keypoints than pixels. ALIKED reads
16 points whose places it learns (Zhao et al., IEEE Transactions on Instrumentation and Measurement 2023); here they
stand where every turn of the network finds them again, so that what is equivariant stays so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.coordinates import sample_map
from lisrd.describe.turns import TurnLinear

RING = 8  # points; a turn of the network moves them on by one or more places


class RingLinear(TurnLinear):
    """Linear of what `sample_around` reads: `channels` per turn at a keypoint and at eight points around it.

    Its weights count the ring from the direction of the turn that they read, so that all turns share them;
    `bank_and_bias` counts as the samples do.
    """

    def __init__(self, channels: int, width: int, turns: int) -> None:
        super().__init__((1 + RING) * channels, width, turns)
        self.register_buffer("places", _places_for_turns(turns), persistent=False)
        self.places: Int[Tensor, " samples"]

    def bank_and_bias(self) -> tuple[Float[Tensor, "turned_out samples"], Float[Tensor, " turned_out"]]:
        bank, bias = super().bank_and_bias()
        stored = bank.unflatten(1, (self.turns * (1 + RING), -1))
        return stored.index_select(1, self.places).flatten(1), bias


def sample_around(
    level: Float[Tensor, "B C h w"], xy: Float[Tensor, "B N 2"], width: int, height: int, radius: float
) -> Float[Tensor, "B N samples"]:
    """Bilinear samples of a map that covers an image of `width` x `height` pixels, C values of each point.

    They are at `xy`, in pixels of the image, and with a `radius`, in pixels of the map, on a ring around it as well:
    counter-clockwise from the right.
    """
    if not radius:
        return sample_map(level, xy, width, height)
    counter_clockwise = torch.arange(RING, device=xy.device) * (-2 * math.pi / RING)  # y points down
    circle = torch.stack([counter_clockwise.cos(), counter_clockwise.sin()], dim=-1)
    offsets = torch.cat([circle.new_zeros(1, 2), circle * (radius * width / level.shape[-1])])
    points = xy.unsqueeze(2) + offsets.to(xy.dtype)
    return sample_map(level, points.flatten(1, 2), width, height).unflatten(1, (-1, 1 + RING)).flatten(2)


def sample_levels(
    maps: Sequence[Float[Tensor, "B _ _ _"]],
    xy: Float[Tensor, "B N 2"],
    width: int,
    height: int,
    ring_radii: Sequence[float],
) -> Float[Tensor, "B N samples"]:
    """`sample_around` of every level with its own radius, side by side."""
    levels = zip(maps, ring_radii, strict=True)
    return torch.cat([sample_around(level, xy, width, height, radius) for level, radius in levels], dim=-1)


def _places_for_turns(turns: int) -> Int[Tensor, " samples"]:
    """Where the weight of each sample of turn t is stored, whose places are counted from the turn's own direction.

    Samples are ordered by point, then by turn; place 0 is the keypoint itself. Stored weights by turn, then by place.
    """
    point = torch.arange(RING)[:, None]
    ring = (point - torch.arange(turns) * (RING // turns)) % RING + 1
    places = torch.cat([torch.zeros(1, turns, dtype=torch.long), ring])
    return (torch.arange(turns) * (1 + RING) + places).flatten()
