"""BatchNorm statistics of averaged weights.

Those that a network gathers in training are of its weights step by step; averaged weights give other ones, and with the
former they are worse than they are. So theirs are measured. Source: Izmailov et al., Averaging Weights Leads to Wider
Optima and Better Generalization, UAI 2018, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


def has_statistics(network: nn.Module) -> bool:
    """Whether there is anything to measure."""
    return bool(_norms(network))


@torch.no_grad()
def measure_statistics(
    network: nn.Module,
    batches: Iterable[Float[Tensor, "B 3 H W"]],
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> None:
    """Replace the running statistics of every BatchNorm by their means over `batches`; all else stays.

    `autocast` gives the precision of the network; the batches are made outside of it. The network is left in evaluation
    mode. Several processes measure together, each on batches of its own.
    """
    norms = _norms(network)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()  # a training that failed leaves no numbers, which no momentum forgets
    network.train()
    for count, images in enumerate(batches, 1):
        for norm in norms:
            norm.momentum = 1 / count  # all count the same
        with autocast():
            network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
