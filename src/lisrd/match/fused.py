"""Exact nearest neighbours through the compiled pass of `fused_kernel`, where numba is installed (extra `fast`).

The products of a tile come from torch; one pass then weighs them and takes them into the best of rows and columns.
The exponentials differ from torch's in the last bit, as those of two versions of torch do: the matches are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from lisrd.match.nearest import Nearest, no_neighbours, slices
from lisrd.threads import run_together, shares

#: Similarities of every invariance and exponents of two of their weights, of a tile; used before the next is asked for.
Products = Callable[[slice, slice], tuple[Float[Tensor, "V R C"], Float[Tensor, "V R C"]]]

#: Side of a tile: large enough for fast products, and 8 MB of four invariances stay in the last cache.
SIDE = 512


@dataclass(frozen=True, slots=True)
class _Best:
    """The highest and the second highest similarity of n rows or columns, and where the highest is."""

    first: Float32[np.ndarray, " n"]
    second: Float32[np.ndarray, " n"]
    index: Int32[np.ndarray, " n"]

    @classmethod
    def of(cls, count: int) -> _Best:
        lowest = np.full((2, count), -np.inf, np.float32)
        return cls(lowest[0], lowest[1], np.zeros(count, np.int32))

    def part(self, chosen: slice) -> tuple[np.ndarray, ...]:
        """Views, which the compiled pass writes into."""
        return self.first[chosen], self.second[chosen], self.index[chosen]

    def merged(self, other: _Best) -> _Best:
        """Of equals the lower index."""
        loses = other.first > self.first
        loses |= (other.first == self.first) & (other.index < self.index)
        beaten = np.minimum(self.first, other.first)
        return _Best(
            np.maximum(self.first, other.first),
            np.maximum(beaten, np.maximum(self.second, other.second)),
            np.where(loses, other.index, self.index),
        )

    def tensors(self) -> tuple[Tensor, Tensor]:
        values = np.stack([self.first, self.second], axis=1)
        return torch.from_numpy(self.index).long(), torch.from_numpy(values)


def nearest_fused(products: Products, counts: tuple[int, int], side: int) -> Nearest:
    """What `nearest_in_tiles` finds for the similarities weighted by softmax; both best are always found.

    Rows of a tile are shared among as many threads as torch uses; each has its own best of the columns.
    """
    from lisrd.match.fused_kernel import sweep

    if 0 in counts:
        return no_neighbours(*counts)
    best1 = _Best.of(counts[0])
    best0 = [_Best.of(counts[1]) for _ in range(torch.get_num_threads())]
    for rows, columns in product(slices(counts[0], side), slices(counts[1], side)):
        similarity, logits = (tile.numpy() for tile in products(rows, columns))
        tile = similarity, logits, (0,) * len(similarity)
        corner = rows.start, columns.start
        run_together(
            [
                partial(sweep, *tile, share, corner, best1.part(rows), best.part(columns))
                for share, best in zip(shares(similarity.shape[1]), best0, strict=True)
            ]
        )
    (index1, values1), (index0, values0) = best1.tensors(), reduce(_Best.merged, best0).tensors()
    return Nearest(index1, values1, index0, values0)
