"""What a camera does to every picture: exposure, contrast, noise, shade, motion, compression (paper, 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lisrd.train.data.dice import Dice
from lisrd.train.data.fields import coarse, enlarge, spots
from lisrd.train.data.jpeg import compress

_BLUR = 5  # side of the motion kernels


@dataclass(frozen=True, slots=True)
class PhotometricConfig:
    """Probabilities and largest strengths; brightness and noise as shares of white."""

    brightness: float = 0.1
    contrast: float = 0.3
    noise_probability: float = 0.7
    noise: float = 0.04
    speckle: float = 0.08
    shade_probability: float = 0.25
    shade: float = 0.5
    motion_probability: float = 0.12
    jpeg_probability: float = 0.15
    jpeg_quality_min: int = 25
    jpeg_quality_max: int = 85


def photograph(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig
) -> Float[Tensor, "B 3 H W"]:
    """Each image as another camera would have taken it, in [0, 1]; each effect in some of them."""
    images = motion_blur(images, dice, config.motion_probability)
    images = shade(images, dice, config)
    images = expose(images, dice, config)
    images = add_noise(images, dice, config)
    chosen = dice.coin(len(images), config.jpeg_probability).nonzero().squeeze(1)
    if len(chosen):
        low, high = config.jpeg_quality_min, config.jpeg_quality_max
        quality = dice.uniform(len(chosen), low=low, high=high)
        images = replaced(images, chosen, compress(images[chosen.to(images.device)], quality))
    return images


def replaced(
    images: Float[Tensor, "B 3 H W"], index: Tensor, new: Float[Tensor, "K 3 H W"]
) -> Float[Tensor, "B 3 H W"]:
    """`images` with those at `index` (on the CPU) exchanged."""
    return images.index_copy(0, index.to(images.device), new)


def expose(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig
) -> Float[Tensor, "B 3 H W"]:
    """Contrast about the mean, and brightness; not clipped."""
    count = len(images)
    gain = dice.uniform(count, 1, 1, 1, low=1 - config.contrast, high=1 + config.contrast)
    lift = dice.uniform(count, 1, 1, 1, low=-config.brightness, high=config.brightness)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return torch.addcmul(mean * (1 - gain) + lift, images, gain)


def add_noise(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig
) -> Float[Tensor, "B 3 H W"]:
    """Gaussian noise and speckle from one field, clipped to [0, 1]."""
    count, probability = len(images), config.noise_probability
    additive = dice.sometimes(count, probability, 0, config.noise)
    speckle = dice.sometimes(count, probability, 0, config.speckle)
    amplitude = torch.addcmul(additive, images, speckle)
    return torch.addcmul(images, amplitude, dice.noise(*images.shape)).clamp_(0, 1)


def shade(
    images: Float[Tensor, "B 3 H W"], dice: Dice, config: PhotometricConfig
) -> Float[Tensor, "B 3 H W"]:
    """A few soft ellipses, darker or brighter."""
    chosen = dice.coin(len(images), config.shade_probability).nonzero().squeeze(1)
    if not len(chosen):
        return images
    size = images.shape[2], images.shape[3]
    ellipses = spots(len(chosen), 6, coarse(size, 8), (0.08, 0.4), dice)
    strength = dice.uniform(len(chosen), 6, 1, 1, low=-config.shade, high=config.shade)
    gain = enlarge((ellipses * strength).sum(1, keepdim=True).exp(), size)
    return replaced(images, chosen, images[chosen.to(images.device)] * gain)


def motion_blur(images: Float[Tensor, "B 3 H W"], dice: Dice, probability: float) -> Float[Tensor, "B 3 H W"]:
    """Straight motion of up to 5 pixels."""
    chosen = dice.coin(len(images), probability).nonzero().squeeze(1)
    if not len(chosen):
        return images
    kernels = _line_kernels(len(chosen), dice).repeat_interleave(3, dim=0)
    blurred = images[chosen.to(images.device)].flatten(0, 1).unsqueeze(0)
    padded = F.pad(blurred, [_BLUR // 2] * 4, mode="replicate")
    blurred = F.conv2d(padded, kernels, groups=len(kernels))
    return replaced(images, chosen, blurred.view(-1, *images.shape[1:]))


def _line_kernels(count: int, dice: Dice) -> Float[Tensor, "count 1 5 5"]:
    offset = torch.arange(_BLUR, device=dice.device) - _BLUR // 2
    angle = dice.uniform(count, 1, 1, high=torch.pi)
    length = dice.uniform(count, 1, 1, low=0.5, high=_BLUR / 2)
    y, x = offset.view(1, -1, 1), offset.view(1, 1, -1)
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    weight = (1 - across.abs()).clamp(min=0) * (length + 0.5 - along.abs()).clamp(0, 1)
    return (weight / weight.sum(dim=(1, 2), keepdim=True)).unsqueeze(1)
