"""What a camera does to every picture: exposure, contrast, noise, shade, motion, compression (paper, 4.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.train.data.dice import Dice
from lisrd.train.data.fields import coarse, enlarge, spots
from lisrd.train.data.jpeg import compress


@dataclass(frozen=True, slots=True)
class PhotometricConfig:
    """Probabilities and largest strengths: brightness, noise as shares of white, motion in pixels (odd)."""

    brightness: float = 0.1
    contrast: float = 0.3
    noise_probability: float = 0.7
    noise: float = 0.04
    speckle: float = 0.08
    shade_probability: float = 0.25
    shade: float = 0.5
    motion_probability: float = 0.12
    motion: int = 5
    jpeg_probability: float = 0.15
    jpeg_quality_min: float = 25.0
    jpeg_quality_max: float = 85.0


def photograph(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig
) -> Float[Tensor, "B 3 H W"]:
    """Each image as another camera would have taken it, in [0, 1]; each effect in some of them.

    `images` is overwritten: a batch is large, and passes over memory are what this costs.
    """
    for effect, probability in (
        (motion_blur, config.motion_probability),
        (shade, config.shade_probability),
    ):
        _on_some(images, probability, effect, dice, config)
    images = add_noise(expose(images, dice, config), dice, config)
    _on_some(images, config.jpeg_probability, jpeg, dice, config)
    return images


def _on_some(
    images: Float[Tensor, "B 3 H W"],
    probability: float,
    effect: Callable[[Tensor, Dice, PhotometricConfig], Tensor],
    dice: Dice,
    config: PhotometricConfig,
) -> None:
    chosen = dice.coin(len(images), probability).nonzero().squeeze(1)
    if len(chosen):
        index = chosen.to(images.device)
        images[index] = effect(images[index], dice.of(chosen.tolist()), config)


def expose(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig
) -> Float[Tensor, "B 3 H W"]:
    """Contrast about the mean, and brightness; not clipped."""
    count = len(images)
    gain = dice.uniform(count, 1, 1, 1, low=1 - config.contrast, high=1 + config.contrast)
    lift = dice.uniform(count, 1, 1, 1, low=-config.brightness, high=config.brightness)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return images.mul_(gain).add_(mean * (1 - gain) + lift)


def add_noise(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig
) -> Float[Tensor, "B 3 H W"]:
    """Gaussian noise and speckle from one field, clipped to [0, 1]."""
    count, probability = len(images), config.noise_probability
    additive = dice.sometimes(count, probability, 0.0, config.noise)
    speckle = dice.sometimes(count, probability, 0.0, config.speckle)
    amplitude = torch.addcmul(additive, images, speckle)
    return dice.noise(*images.shape).mul_(amplitude).add_(images).clamp_(0, 1)


def shade(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig
) -> Float[Tensor, "B 3 H W"]:
    """A few soft ellipses, darker or brighter."""
    size = images.shape[2], images.shape[3]
    ellipses = spots(len(images), 6, coarse(size, 8), (0.08, 0.4), dice)
    strength = dice.uniform(len(images), 6, 1, 1, low=-config.shade, high=config.shade)
    return images * enlarge((ellipses * strength).sum(1, keepdim=True).exp(), size)


def motion_blur(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig
) -> Float[Tensor, "B 3 H W"]:
    """Straight motion of up to `motion` pixels."""
    kernels = _line_kernels(len(images), config.motion, dice).repeat_interleave(3, dim=0)
    padded = F.pad(images.flatten(0, 1).unsqueeze(0), [config.motion // 2] * 4, mode="replicate")
    return F.conv2d(padded, kernels, groups=len(kernels)).view_as(images)


def jpeg(images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig) -> Float[Tensor, "B 3 H W"]:
    """Compression of random quality."""
    low, high = config.jpeg_quality_min, config.jpeg_quality_max
    return compress(images, dice.uniform(len(images), low=low, high=high))


def _line_kernels(count: int, side: int, dice: Dice) -> Float[Tensor, "count 1 side side"]:
    offset = torch.arange(side, device=dice.device) - side // 2
    angle = dice.uniform(count, 1, 1, high=torch.pi)
    length = dice.uniform(count, 1, 1, low=0.5, high=side / 2)
    y, x = offset.view(1, -1, 1), offset.view(1, 1, -1)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    weight = (1 - across.abs()).clamp(min=0) * (length + 0.5 - along.abs()).clamp(0, 1)
    return (weight / weight.sum(dim=(1, 2), keepdim=True)).unsqueeze(1)
