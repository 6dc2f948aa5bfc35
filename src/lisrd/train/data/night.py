"""A photograph as a camera sees the place at night: little light, odd colours, lamps, a noisy sensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.train.data.dice import Dice
from lisrd.train.data.fields import coarse, enlarge, positions, smooth_noise, spots

_COARSE = 4  # pixels per value of the light


@dataclass(frozen=True, slots=True)
class NightConfig:
    """Strengths; light and noise as shares of white in the stored image.

    `ambient_*` bounds what is left of the day's brightness away from lamps, `noise_*` the noise of the sensor
    before the camera's gain, of at most `gain_max`, brings the picture to a mean between `mean_min` and
    `mean_max`. `lamps` light their surroundings, `glows` are in view.
    """

    ambient_min: float = 0.08
    ambient_max: float = 0.45
    sky: float = 2.0
    lamps: int = 5
    glows: int = 12
    vignetting: float = 0.8
    noise_min: float = 0.003
    noise_max: float = 0.03
    mean_min: float = 0.07
    mean_max: float = 0.35
    gain_max: float = 4.0
    black: float = 0.05


def turn_to_night(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: NightConfig
) -> Float[Tensor, "B 3 H W"]:
    """Images in [0, 1] as if taken at night, in [0, 1]."""
    size = images.shape[2], images.shape[3]
    lit = faded(images, dice) * enlarge(night_light(images, dice, config), size)
    lit = lit + enlarge(glows(len(images), coarse(size, 2), dice, config), size)
    return expose_dark(lit, dice, config)


def faded(images: Float[Tensor, "B 3 H W"], dice: Dice) -> Float[Tensor, "B 3 H W"]:
    """Less colour, and a slightly soft picture."""
    count = len(images)
    grey = images.mean(dim=1, keepdim=True)
    colour = dice.uniform(count, 1, 1, 1, low=0.2, high=1.0)
    soft = dice.sometimes(count, 0.5, 0.3, 1.0)
    images = torch.lerp(images, F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), soft)
    return torch.lerp(grey, images, colour)


def night_light(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: NightConfig
) -> Float[Tensor, "B 3 h w"]:
    """The gain of the stored image: dim ambient light, a sky that lost most, pools around lamps."""
    count, size = len(images), coarse((images.shape[2], images.shape[3]), _COARSE)
    ambient = dice.log_uniform(count, 1, 1, 1, low=config.ambient_min, high=config.ambient_max)
    blue = dice.uniform(count, 1, 1, 1, low=-0.25, high=0.45)
    tint = torch.cat([-blue, torch.zeros_like(blue), blue], dim=1).exp()
    regions = F.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), coarse(size, 4))
    # What is bright over a whole region by day is mostly sky.
    sky = (enlarge(regions, size) - 0.4).clamp(min=0) * dice.sometimes(count, 0.8, 0.0, 2 * config.sky)
    patches = dice.uniform(count, 1, 1, 1, high=0.4) * smooth_noise(count, size, 3, dice)
    pools = spots(count, config.lamps, size, (0.08, 0.5), dice)
    warm = torch.lerp(
        images.new_tensor([1.0, 0.7, 0.4]).view(1, 3, 1, 1),
        torch.ones_like(blue),
        dice.uniform(count, 1, 1, 1),
    )
    light = dice.uniform(count, 1, 1, 1, low=0.3, high=1.2) * pools.sum(dim=1, keepdim=True) * warm
    return ambient * tint * (patches - sky).exp() + light


def glows(count: int, size: tuple[int, int], dice: Dice, config: NightConfig) -> Float[Tensor, "count 3 h w"]:
    """Lamps and windows in view: small bright spots, each with a halo."""
    bright = spots(count, config.glows, size, (0.006, 0.03), dice, probability=0.35)
    brightness = dice.uniform(count, config.glows, 1, 1, low=0.3, high=1.5)
    colour = dice.uniform(count, 3, 1, 1, low=0.5, high=1.0)
    light = (bright * brightness).sum(dim=1, keepdim=True)
    halo = F.avg_pool2d(light, 9, 1, 4) * dice.uniform(count, 1, 1, 1, high=1.0)
    return (light + halo) * colour * (dice.uniform(count, 1, 1, 1) < 0.7)


def expose_dark(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: NightConfig
) -> Float[Tensor, "B 3 H W"]:
    """The sensor's noise, the camera's gain, crushed blacks, vignetting, clipping to [0, 1]."""
    count = len(images)
    x, y = positions((images.shape[2], images.shape[3]), images.device)
    falloff = 1 - dice.sometimes(count, 0.5, 0.0, config.vignetting) * (x**2 + y**2)
    exposed = images * falloff.clamp(min=0.1) - dice.sometimes(count, 0.6, 0.0, config.black)
    target = dice.log_uniform(count, 1, 1, 1, low=config.mean_min, high=config.mean_max)
    gain = (target / exposed.clamp(min=0).mean(dim=(1, 2, 3), keepdim=True)).clamp(1, config.gain_max)
    noise = dice.log_uniform(count, 1, 1, 1, low=config.noise_min, high=config.noise_max)
    return (torch.addcmul(exposed, noise, dice.noise(*images.shape)) * gain).clamp_(0, 1)
