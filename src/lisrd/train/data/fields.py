"""Smooth fields over an image, drawn coarsely and enlarged: what light and vignetting are made of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.train.data.dice import Dice


def enlarge(field: Float[Tensor, "B C h w"], size: tuple[int, int]) -> Float[Tensor, "B C H W"]:
    """Bilinear, to (height, width)."""
    return F.interpolate(field, size=size, mode="bilinear", align_corners=False)


def coarse(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The size of a field with one value per `stride` pixels, at least 2 x 2."""
    return max(2, size[0] // stride), max(2, size[1] // stride)


def positions(
    size: tuple[int, int], device: torch.device
) -> tuple[Float[Tensor, "1 1 1 W"], Float[Tensor, "1 1 H 1"]]:
    """x and y of every pixel in units of the image's height, (0, 0) its middle."""
    height, width = size
    x = (torch.arange(width, device=device) + 0.5 - width / 2) / height
    y = (torch.arange(height, device=device) + 0.5) / height - 0.5
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)


def smooth_noise(count: int, size: tuple[int, int], cells: int, dice: Dice) -> Float[Tensor, "count 1 H W"]:
    """Noise of about unit variance with blobs of 1 / `cells` of the height and some of half that size."""
    height, width = size
    octaves = [
        enlarge(dice.noise(count, 1, n + 1, round(n * width / height) + 1), size) for n in (cells, 2 * cells)
    ]
    return 1.2 * octaves[0] + 0.6 * octaves[1]


def spots(
    count: int,
    number: int,
    size: tuple[int, int],
    radius: tuple[float, float],
    dice: Dice,
    probability: float = 0.5,
) -> Float[Tensor, "count number H W"]:
    """`number` elliptical bells of height 1, each present with `probability`; radii in image heights."""
    x, y = positions(size, dice.device)
    shape = (count, number, 1, 1)
    along = dice.log_uniform(*shape, low=radius[0], high=radius[1])
    across = along * dice.uniform(*shape, low=0.5, high=1.0)
    angle = dice.uniform(*shape, high=torch.pi)
    half_width = size[1] / size[0] / 2
    x = x - dice.uniform(*shape, low=-half_width, high=half_width)
    y = y - dice.uniform(*shape, low=-0.5, high=0.5)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    present = dice.uniform(*shape) < probability
    return present * torch.exp(-((u / along) ** 2) - (v / across) ** 2)
