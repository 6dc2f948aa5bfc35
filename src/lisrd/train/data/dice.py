"""Random numbers of an augmentation: every sample has a generator of its own.

So a sample looks the same whatever batch it is in, and the processes of a training see their shares of what one
process would see. Parameters are drawn on the CPU, so that a choice needs no wait for the device and is the same on
every device; only fields of pixel noise are drawn where the images are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def numbered_generator(seed: int, number: int) -> torch.Generator:
    """The CPU generator of one sample or step of a training: resuming at any needs no state."""
    # A large odd factor keeps neighbouring seeds from sharing numbers.
    return torch.Generator().manual_seed((seed * 1_000_003 + number) % 2**63)


def sample_generators(seed: int, first: int, count: int) -> list[torch.Generator]:
    """Those of `count` samples from number `first` on."""
    return [numbered_generator(seed, first + i) for i in range(count)]


class Dice:
    """Draws for a batch, row i from the CPU generator of sample i; what is drawn lies on `device`.

    Every `shape` begins with the number of samples.
    """

    def __init__(self, generators: Sequence[torch.Generator], device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._generators = list(generators)
        self._on_device = [torch.Generator(self.device).manual_seed(_seed(g)) for g in self._generators]

    def of(self, samples: Sequence[int]) -> Dice:
        """Of some of the samples."""
        chosen = Dice([], self.device)
        chosen._generators = [self._generators[i] for i in samples]
        chosen._on_device = [self._on_device[i] for i in samples]
        return chosen

    def fork(self, times: int) -> Dice:
        """For `times` images of each sample: all first ones, then all second ones, and so on."""
        seeds = [_seed(generator) for _ in range(times) for generator in self._generators]
        return Dice([torch.Generator().manual_seed(seed) for seed in seeds], self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Even between `low` and `high`."""
        drawn = torch.empty(shape)
        for row, generator in zip(drawn, self._generators, strict=True):
            row.uniform_(low, high, generator=generator)
        return drawn.to(self.device)

    def log_uniform(self, *shape: int, low: float, high: float) -> Tensor:
        """Even in the logarithm."""
        return self.uniform(*shape, low=math.log(low), high=math.log(high)).exp()

    def triangular(self, *shape: int) -> Tensor:
        """Within -1 and 1, most often near 0: close to a normal of deviation 0.5 cut at two of them."""
        return self.uniform(*shape) + self.uniform(*shape) - 1

    def coin(self, count: int, probability: float) -> Bool[Tensor, " count"]:
        """True with the given probability; on the CPU, for choosing which samples an effect works on."""
        drawn = [float(torch.rand((), generator=generator)) for generator in self._generators]
        assert len(drawn) == count
        return torch.tensor(drawn) < probability

    def sometimes(
        self, count: int, probability: float, low: float, high: float
    ) -> Float[Tensor, "count 1 1 1"]:
        """Strengths of an effect that is absent (0) in the rest of the samples."""
        strength = self.uniform(count, 1, 1, 1, low=low, high=high)
        return strength * self.coin(count, probability).view(-1, 1, 1, 1).to(self.device)

    def noise(self, *shape: int) -> Tensor:
        """Standard normal, drawn on the device."""
        drawn = torch.empty(shape, device=self.device)
        for row, generator in zip(drawn, self._on_device, strict=True):
            row.normal_(generator=generator)
        return drawn


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))
