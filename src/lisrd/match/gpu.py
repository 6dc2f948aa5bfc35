"""Exact nearest neighbours on an NVIDIA GPU through the Triton kernel of `gpu_kernel`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lisrd.match.nearest import Nearest, no_neighbours

#: Programs that keep a large GPU busy; with fewer blocks of rows, columns are shared out as well.
_PROGRAMS = 1024
_NOTHING_YET = torch.iinfo(torch.int64).min


@dataclass(frozen=True, slots=True)
class Tile:
    """What a program takes at a time: rows and columns, and `chunk` numbers of their descriptors.

    Its exponents, sums and products of float32 must fit the registers of its `warps` of 32 threads, and the chunks on
    their way the shared memory: 74 to 82 KB by default, of the 99 that every GPU has since Ampere. Twice the chunk is
    7 % faster in float32 (`benchmarks/RESULTS_GPU.md`), but takes 147 KB, which most GPUs have not.
    """

    rows: int = 128
    columns: int = 64
    chunk: int = 32
    warps: int = 8
    stages: int = 3  # chunks that are on their way at once


def nearest_on_gpu(
    descriptors0: Float[Tensor, "V N0 D"],
    descriptors1: Float[Tensor, "V N1 D"],
    thin0: Float[Tensor, "V N0 K"],
    thin1: Float[Tensor, "V N1 K"],
    bias: Float[Tensor, " V"],
    sharp: bool = True,
    tile: Tile = Tile(),
) -> Nearest:
    """What `nearest_in_tiles` finds (the best alone) for similarities that softmax weighs; exponents are powers of two.

    Descriptors are multiplied in their own precision and summed in float32. Where no exponents are `sharp`, all of them
    are those of normal float32 numbers, and softmax needs no look at the largest.
    """
    from lisrd.match.gpu_kernel import sweep

    (V, N0, D), N1, K = descriptors0.shape, descriptors1.shape[1], thin0.shape[2]
    if not min(N0, N1):
        return no_neighbours(N0, N1)
    best1, best0 = (bias.new_full((n,), _NOTHING_YET, dtype=torch.int64) for n in (N0, N1))
    blocks, tiles = -(-N0 // tile.rows), -(-N1 // tile.columns)
    tiles_of_a_strip = -(-tiles // min(tiles, -(-_PROGRAMS // blocks)))
    operands = [t.contiguous() for t in (descriptors0, descriptors1, thin0, thin1, bias)]
    with torch.cuda.device_of(bias):  # Triton launches on the current GPU, whichever the tensors are on
        sweep[blocks, -(-tiles // tiles_of_a_strip)](
            *operands,
            *(best1, best0, N0, N1, tiles_of_a_strip),
            **{"V": V, "D": D, "K": K, "ROWS": tile.rows, "COLUMNS": tile.columns, "CHUNK": tile.chunk},
            **{"SHARP": sharp, "num_warps": tile.warps, "num_stages": tile.stages},
        )
    (value1, index1), (value0, index0) = (_unpacked(best) for best in (best1, best0))
    return Nearest(index1, value1.unsqueeze(1), index0, value0.unsqueeze(1))


def _unpacked(best: Int64[Tensor, " n"]) -> tuple[Float[Tensor, " n"], Int64[Tensor, " n"]]:
    """The value and the index that `gpu_kernel._packed` made one number of."""
    ordered = (best >> 32).int()
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    return bits.view(torch.float32), 0x7FFFFFFF - (best & 0x7FFFFFFF)
