"""Mutual nearest neighbours, exact, without ever holding all N0 x N1 similarities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

#: Similarities of rows [start, stop) of image 0 to all keypoints of image 1.
SimilarityRows = Callable[[int, int], Float[Tensor, "rows N1"]]
#: Similarities of some rows to some columns; used before the next are asked for.
SimilarityTile = Callable[[slice, slice], Float[Tensor, "rows columns"]]

#: The one or two best similarities (n, 1 or 2), and the index of the best (n,).
_Best = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Nearest:
    """The best similarity (K = 1), or the best and the second best (K = 2), both ways, and where the best is."""

    index1: Int[Tensor, " N0"]
    best1: Float[Tensor, "N0 K"]
    index0: Int[Tensor, " N1"]
    best0: Float[Tensor, "N1 K"]


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
    """Both directions in one sweep over blocks of rows; the second best is found where it is needed."""
    return nearest_in_tiles(
        lambda rows, columns: similarity_rows(rows.start, rows.stop),
        (count0, count1),
        (block, count1),
        need_second,
    )


def nearest_in_tiles(
    similarity_tile: SimilarityTile,
    counts: tuple[int, int],
    tile: tuple[int, int],
    need_second: bool = True,
) -> Nearest:
    """Both directions in one sweep over tiles of at most `tile` (rows, columns), which stay in the cache."""
    if 0 in counts:
        return no_neighbours(*counts)
    along1: list[_Best] = []
    along0: list[_Best | None] = [None] * -(-counts[1] // tile[1])
    for rows in slices(counts[0], tile[0]):
        best: _Best | None = None
        for number, columns in enumerate(slices(counts[1], tile[1])):
            similarity = similarity_tile(rows, columns)
            best = _merged(best, _top2(similarity, 1, need_second), columns.start)
            along0[number] = _merged(along0[number], _top2(similarity, 0, need_second), rows.start)
        assert best is not None
        along1.append(best)
    (best1, index1), (best0, index0) = (_joined(parts) for parts in (along1, along0))
    return Nearest(index1, best1, index0, best0)


def slices(count: int, length: int) -> Iterator[slice]:
    """[0, count) in pieces of `length`; the last may be shorter."""
    return (slice(start, min(start + length, count)) for start in range(0, count, length))


def _joined(parts: Sequence[_Best | None]) -> _Best:
    values, index = zip(*(part for part in parts if part is not None), strict=True)
    return torch.cat(values), torch.cat(index)


def _top2(similarity: Float[Tensor, "R C"], dim: int, need_second: bool) -> _Best:
    """The first of equals is the best."""
    best, index = similarity.max(dim)
    if not need_second:
        return best.unsqueeze(1), index
    second = torch.full_like(best, -torch.inf)
    if similarity.shape[dim] > 1:
        hidden = similarity.scatter(dim, index.unsqueeze(dim), -torch.inf)
        second = hidden.amax(dim)
    return torch.stack([best, second], dim=1), index


def _merged(running: _Best | None, found: _Best, start: int) -> _Best:
    values, index = found[0], found[1] + start
    if running is None:
        return values, index
    old_values, old_index = running
    better = values[:, 0] > old_values[:, 0]  # a tie keeps the earlier one
    ranked = torch.cat([old_values, values], dim=1)
    kept = values.shape[1]
    best = ranked.amax(1, keepdim=True) if kept == 1 else ranked.topk(kept).values
    return best, torch.where(better, index, old_index)


def no_neighbours(count0: int, count1: int) -> Nearest:
    """Where one side has no keypoints: index 0 at similarity -inf."""
    return Nearest(
        torch.zeros(count0, dtype=torch.long),
        torch.full((count0, 2), -torch.inf),
        torch.zeros(count1, dtype=torch.long),
        torch.full((count1, 2), -torch.inf),
    )
