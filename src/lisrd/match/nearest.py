"""Mutual nearest neighbours, exact, without ever holding all N0 x N1 similarities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Similarities of rows [start, stop) of image 0 to all keypoints of image 1.
SimilarityRows = Callable[[int, int], Float[Tensor, "rows N1"]]


@dataclass(frozen=True, slots=True)
class Nearest:
    """The best and second best similarity along both directions, and where the best is."""

    index1: Int[Tensor, " N0"]
    best1: Float[Tensor, "N0 2"]
    index0: Int[Tensor, " N1"]
    best0: Float[Tensor, "N1 2"]


def mutual_nearest_neighbours(similarity: Float[Tensor, "N0 N1"]) -> Int[Tensor, "S 2"]:
    """Index pairs (i, j) that are each other's most similar keypoint; the first of equals is the nearest."""
    count0, count1 = similarity.shape
    nearest = nearest_in_blocks(lambda start, stop: similarity[start:stop], count0, count1, block=4096)
    return mutual(nearest)


def mutual(nearest: Nearest) -> Int[Tensor, "S 2"]:
    """Index pairs that chose each other."""
    if nearest.index0.numel() == 0 or nearest.index1.numel() == 0:  # no keypoints: no matches
        return nearest.index0.new_empty((0, 2))
    rows = torch.arange(len(nearest.index1), device=nearest.index1.device)
    chosen = nearest.index0[nearest.index1] == rows
    return torch.stack([rows[chosen], nearest.index1[chosen]], dim=1)


def nearest_in_blocks(
    similarity_rows: SimilarityRows, count0: int, count1: int, block: int, need_second: bool = True
) -> Nearest:
    """Both directions in one sweep over blocks of rows. Without `need_second` the second best stays -inf."""
    if count0 == 0 or count1 == 0:
        return _nothing(count0, count1)
    index1, best1, running = [], [], None
    for start in range(0, count0, block):
        rows = similarity_rows(start, min(start + block, count0))
        value, index = _top2(rows, 1, need_second)
        best1.append(value)
        index1.append(index)
        running = _merged(running, _top2(rows, 0, need_second), start)
    assert running is not None
    return Nearest(torch.cat(index1), torch.cat(best1), running[1], running[0])


def _top2(similarity: Float[Tensor, "R C"], dim: int, need_second: bool) -> tuple[Tensor, Tensor]:
    """(best and second (n, 2), index of the best (n,)); the first of equals is the best."""
    best, index = similarity.max(dim)
    second = torch.full_like(best, -torch.inf)
    if need_second and similarity.shape[dim] > 1:
        hidden = similarity.scatter(dim, index.unsqueeze(dim), -torch.inf)
        second = hidden.amax(dim)
    return torch.stack([best, second], dim=1), index


def _merged(
    running: tuple[Tensor, Tensor] | None, block: tuple[Tensor, Tensor], start: int
) -> tuple[Tensor, Tensor]:
    values, index = block[0], block[1] + start
    if running is None:
        return values, index
    old_values, old_index = running
    better = values[:, 0] > old_values[:, 0]  # a tie keeps the earlier row
    second = torch.maximum(
        torch.minimum(values[:, 0], old_values[:, 0]), torch.maximum(values[:, 1], old_values[:, 1])
    )
    best = torch.maximum(values[:, 0], old_values[:, 0])
    return torch.stack([best, second], dim=1), torch.where(better, index, old_index)


def _nothing(count0: int, count1: int) -> Nearest:
    return Nearest(
        torch.zeros(count0, dtype=torch.long),
        torch.full((count0, 2), -torch.inf),
        torch.zeros(count1, dtype=torch.long),
        torch.full((count1, 2), -torch.inf),
    )
