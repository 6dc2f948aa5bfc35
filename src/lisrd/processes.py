"""What the processes of one training share. With one process, everything here is the identity.

Every process must call these in the same order; the device's backend (gloo, nccl) carries the numbers.
"""

from __future__ import annotations

import torch
import torch.distributed as distributed
from jaxtyping import Float, Shaped
from torch import Tensor


def process_count() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def sum_over_processes(values: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum of every process's values, without gradient."""
    if process_count() == 1:
        return values
    summed = values.detach().clone()
    distributed.all_reduce(summed)
    return summed


def mean_over_processes(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The mean of every process's values, without gradient."""
    return sum_over_processes(values) / process_count()


def rows_of_processes(values: Shaped[Tensor, " R *rest"]) -> Shaped[Tensor, " rows *rest"]:
    """The rows of every process below each other, without gradient."""
    if process_count() == 1:
        return values
    gathered = [torch.empty_like(values) for _ in range(process_count())]
    distributed.all_gather(gathered, values.contiguous())
    return torch.cat(gathered)
