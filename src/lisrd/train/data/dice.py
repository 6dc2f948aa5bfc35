"""Random numbers of one augmentation step.

Parameters are drawn on the CPU from the given generator, so that a choice needs no wait for the device and is
the same on every device; only fields of pixel noise are drawn where the images are.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one training step: resuming at a step needs no state."""
    # A large odd factor keeps neighbouring seeds from sharing steps.
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


class Dice:
    """Draws from a CPU `generator`; what is drawn lies on `device`."""

    def __init__(self, generator: torch.Generator, device: torch.device | str) -> None:
        self.generator = generator
        self.device = torch.device(device)
        seed = int(torch.randint(2**62, (), generator=generator))
        self._on_device = torch.Generator(self.device).manual_seed(seed)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Even between `low` and `high`."""
        return (low + (high - low) * torch.rand(shape, generator=self.generator)).to(self.device)

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Even in the logarithm."""
        return self.uniform(*shape, low=math.log(low), high=math.log(high)).exp()

    def triangular(self, *shape: int) -> Tensor:
        """Within -1 and 1, most often near 0: close to a normal of deviation 0.5 cut at two of them."""
        return self.uniform(*shape) + self.uniform(*shape) - 1

    def coin(self, count: int, probability: float) -> Bool[Tensor, " count"]:
        """True with the given probability; on the CPU, for choosing which samples an effect works on."""
        return torch.rand(count, generator=self.generator) < probability

    def sometimes(
        self, count: int, probability: float, low: float, high: float
    ) -> Float[Tensor, "count 1 1 1"]:
        """Strengths of an effect that is absent (0) in the rest of the samples."""
        strength = self.uniform(count, 1, 1, 1, low=low, high=high)
        return strength * self.coin(count, probability).view(-1, 1, 1, 1).to(self.device)

    def noise(self, *shape: int) -> Tensor:
        """Standard normal, drawn on the device."""
        return torch.randn(shape, generator=self._on_device, device=self.device)
