"""A photograph under another light, from the photograph alone, batched on the device.

Light multiplies in linear intensities, and images are stored with gamma 2.2. So an effect is a map of *log
gain* in linear light; maps add up, and one exponential of their sum over 2.2 applies them all to the image.
Nothing here is physically right, since the geometry is unknown: local contrast, its direction and large-scale
brightness change as they do between photographs of one place, which is what descriptors must learn to ignore.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.train.data.dice import Dice
from lisrd.train.data.fields import coarse, enlarge, positions, smooth_noise, spots
from lisrd.train.data.night import NightConfig, turn_to_night

GAMMA = 2.2
_COARSE = 4  # pixels per value of the smooth light


@dataclass(frozen=True, slots=True)
class RelightConfig:
    """Probabilities of the effects and their largest strengths (log gains in linear light)."""

    relief_probability: float = 0.6
    relief: float = 1.5
    polygon_probability: float = 0.5
    clutter_probability: float = 0.3
    shadow_min: float = 0.5
    shadow_max: float = 2.5
    lamp_probability: float = 0.4
    lamp: float = 2.0
    curve_probability: float = 0.5
    curve: float = 2.0
    exposure: float = 1.2
    gamma_probability: float = 0.4
    gamma: float = 0.4
    temperature: float = 0.35
    night_probability: float = 0.4
    night: NightConfig = field(default_factory=NightConfig)


def relight(images: Float[Tensor, "B 3 H W"], dice: Dice, config: RelightConfig) -> Float[Tensor, "B 3 H W"]:
    """Every image under a light of its own, in [0, 1]: some under another day's, the rest at night."""
    at_night = dice.coin(len(images), config.night_probability)
    relit = torch.empty_like(images)
    for chosen, change in ((~at_night, relight_by_day), (at_night, relight_by_night)):
        samples = chosen.nonzero().squeeze(1)
        if len(samples):
            index = samples.to(images.device)
            relit[index] = change(images[index], dice.of(samples.tolist()), config)
    return relit


def relight_by_day(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: RelightConfig
) -> Float[Tensor, "B 3 H W"]:
    """Another sun, other shadows, another exposure and white balance."""
    luminance = images.mean(dim=1, keepdim=True)
    log_gain = (
        smooth_light(luminance, dice, config)
        + tone(luminance, dice, config)
        + relief(luminance, dice, config)
        + polygon_shadow(luminance, dice, config)
        + clutter_shadow(luminance, dice, config)
    )
    log_gain = log_gain + temperature(len(images), dice, config)
    return (images * (log_gain / GAMMA).exp()).clamp(0, 1)


def relight_by_night(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: RelightConfig
) -> Float[Tensor, "B 3 H W"]:
    """Night; its lamps stand elsewhere than the sun, so that slopes are lit from other sides."""
    gain = relief(images.mean(dim=1, keepdim=True), dice, config).div(GAMMA).exp()
    return turn_to_night(images * gain, dice, config.night)


def smooth_light(
    luminance: Float[Tensor, "B 1 H W"], dice: Dice, config: RelightConfig
) -> Float[Tensor, "B 1 H W"]:
    """Exposure, lamps, a curve over the brightness of regions (the sky darkens more than the houses)."""
    count, size = len(luminance), (luminance.shape[2], luminance.shape[3])
    small = coarse(size, _COARSE)
    regions = enlarge(F.adaptive_avg_pool2d(luminance, coarse(size, 16)), small)
    level, bend = (
        dice.sometimes(count, config.curve_probability, -config.curve, config.curve) for _ in range(2)
    )
    centred = 2 * regions - 1
    curve = level * centred + bend * (centred**2 - 0.3)
    lamps = spots(count, 4, small, (0.15, 0.8), dice).amax(dim=1, keepdim=True)
    lamps = dice.sometimes(count, config.lamp_probability, 0.5 * config.lamp, 1.5 * config.lamp) * (
        lamps - 0.4
    )
    exposure = dice.uniform(count, 1, 1, 1, low=-config.exposure, high=config.exposure)
    return enlarge(curve + lamps + exposure, size)


def tone(luminance: Float[Tensor, "B 1 H W"], dice: Dice, config: RelightConfig) -> Float[Tensor, "B 1 H W"]:
    """A gamma of 1 - `gamma` to 1 + `gamma`: flatter or harder, the middle grey kept."""
    strength = dice.sometimes(len(luminance), config.gamma_probability, -config.gamma, config.gamma)
    return GAMMA * strength * ((luminance + 0.02).log() - math.log(0.4))


def relief(
    luminance: Float[Tensor, "B 1 H W"], dice: Dice, config: RelightConfig
) -> Float[Tensor, "B 1 H W"]:
    """Shading by a light that moved: log luminance taken as height, its slope towards the light brightens."""
    count = len(luminance)
    strength = dice.sometimes(count, config.relief_probability, 0.3 * config.relief, config.relief)
    angle = dice.uniform(count, 1, 1, 1, high=2 * math.pi)
    height = F.avg_pool2d((luminance + 0.05).log(), 3, 1, 1, count_include_pad=False)
    padded = F.pad(height, (1, 1, 1, 1), mode="replicate")
    slope_x = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    slope_y = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    towards = slope_x * angle.cos() + slope_y * angle.sin()
    steepness = dice.log_uniform(count, 1, 1, 1, low=1.0, high=4.0)
    return strength * torch.tanh(steepness * towards)


def polygon_shadow(
    luminance: Float[Tensor, "B 1 H W"], dice: Dice, config: RelightConfig
) -> Float[Tensor, "B 1 H W"]:
    """The shadow of something with straight edges: one to three half planes meet."""
    count, size = len(luminance), (luminance.shape[2], luminance.shape[3])
    x, y = positions(size, luminance.device)
    depth = _shadow_depth(count, config.polygon_probability, dice, config)
    softness = dice.log_uniform(count, 1, 1, 1, low=0.002, high=0.1)
    inside = torch.full_like(luminance, math.inf)
    for line in range(3):
        angle = dice.uniform(count, 1, 1, 1, high=2 * math.pi)
        offset = dice.uniform(count, 1, 1, 1, low=-0.1, high=0.5)
        absent = dice.uniform(count, 1, 1, 1) < 0.4 if line else 0  # at least one line
        distance = x * angle.cos() + y * angle.sin() + offset + 1e3 * absent
        inside = torch.minimum(inside, distance)
    return depth * torch.sigmoid(inside / softness)


def clutter_shadow(
    luminance: Float[Tensor, "B 1 H W"], dice: Dice, config: RelightConfig
) -> Float[Tensor, "B 1 H W"]:
    """The shadow of leaves or clouds: smooth noise above a threshold."""
    count, size = len(luminance), (luminance.shape[2], luminance.shape[3])
    depth = _shadow_depth(count, config.clutter_probability, dice, config)
    cells = dice.log_uniform(count, low=4.0, high=24.0).int().tolist()
    clutter = torch.cat([smooth_noise(1, size, n, dice.of([i])) for i, n in enumerate(cells)])
    threshold = dice.uniform(count, 1, 1, 1, low=-0.5, high=0.7)
    softness = dice.log_uniform(count, 1, 1, 1, low=0.1, high=1.0)
    return 0.7 * depth * torch.sigmoid((clutter - threshold) / softness)


def temperature(count: int, dice: Dice, config: RelightConfig) -> Float[Tensor, "count 3 1 1"]:
    """Log gains of red, green and blue: warm to cold, with a little green or magenta."""
    warm = dice.triangular(count) * config.temperature
    green = dice.triangular(count) * config.temperature / 3
    return torch.stack([warm - green, green, -warm - green], dim=1).view(count, 3, 1, 1)


def _shadow_depth(
    count: int, probability: float, dice: Dice, config: RelightConfig
) -> Float[Tensor, "count 1 1 1"]:
    return -dice.sometimes(count, probability, config.shadow_min, config.shadow_max)
