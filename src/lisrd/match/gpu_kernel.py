"""The pass over all keypoint pairs as one Triton kernel, for NVIDIA GPUs: nothing of size N0 x N1 is ever written.

A program takes a block of rows and a strip of columns. The similarities of a tile and the exponents of their weights
live in its registers; what leaves them is the best of each row and of each column, by atomic maxima.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


# Compiled once for all sizes, not again for those that 16 divides.
@triton.jit(do_not_specialize=["count0", "count1", "tiles_of_a_strip"])
@no_type_check  # triton compiles the source, run-time checks of shapes would be in its way
def sweep(
    descriptors0,
    descriptors1,
    thin0,
    thin1,
    bias,
    best1,
    best0,
    count0,
    count1,
    tiles_of_a_strip,
    V: tl.constexpr,
    D: tl.constexpr,
    K: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    CHUNK: tl.constexpr,
    SHARP: tl.constexpr,
):
    """Best of each row (N0,) and each column (N1,), packed as `_packed` says, of contiguous (V, N, D) and (V, N, K)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    first_tile = tl.program_id(1) * tiles_of_a_strip
    best_of_rows = tl.full((ROWS,), -0x7FFFFFFFFFFFFFFF, tl.int64)
    for tile in range(first_tile, first_tile + tiles_of_a_strip):
        columns = tile * COLUMNS + tl.arange(0, COLUMNS)
        similarity = _weighted(
            descriptors0, descriptors1, thin0, thin1, bias, rows, columns, count0, count1,
            V, D, K, CHUNK, SHARP,
        )  # fmt: skip
        inside = (rows < count0)[:, None] & (columns < count1)[None, :]
        similarity = tl.where(inside, similarity, float("-inf"))
        best, where = tl.max(similarity, axis=1, return_indices=True)
        best_of_rows = tl.maximum(best_of_rows, _packed(best, tile * COLUMNS + where))
        best, where = tl.max(similarity, axis=0, return_indices=True)
        found = _packed(best, tl.program_id(0) * ROWS + where)
        tl.atomic_max(best0 + columns, found, mask=columns < count1)
    tl.atomic_max(best1 + rows, best_of_rows, mask=rows < count0)


@triton.jit
@no_type_check
def _weighted(
    descriptors0, descriptors1, thin0, thin1, bias, rows, columns, count0, count1,
    V: tl.constexpr, D: tl.constexpr, K: tl.constexpr, CHUNK: tl.constexpr, SHARP: tl.constexpr,
):  # fmt: skip
    """The similarity of a tile: softmax over V in one sweep, whose sums are rescaled when a larger exponent comes.

    That is needed only where the exponents are SHARP.
    """
    top = tl.full((rows.shape[0], columns.shape[0]), float("-inf"), tl.float32)
    total = tl.zeros_like(top)
    weighted = tl.zeros_like(top)
    for v in range(V):
        product = _product(descriptors0, descriptors1, v, rows, columns, count0, count1, D, CHUNK)
        logits = _product(thin0, thin1, v, rows, columns, count0, count1, K, 16)
        logits += tl.load(bias + v)
        if SHARP:
            higher = tl.maximum(top, logits)
            kept, weight = tl.exp2(top - higher), tl.exp2(logits - higher)
            total = total * kept + weight
            weighted = weighted * kept + weight * product
            top = higher
        else:
            weight = tl.exp2(logits)
            total += weight
            weighted += weight * product
    return weighted / total


@triton.jit
@no_type_check
def _product(
    left, right, v, rows, columns, count0, count1,
    WIDTH: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Dot products of the rows of two matrices of WIDTH columns, CHUNK columns at a time: more would spill.

    Of float32 by three products of TF32, which tensor cores do: as exact as float32's own, and many times faster.
    """
    total = tl.zeros((rows.shape[0], columns.shape[0]), tl.float32)
    for start in range(0, WIDTH, CHUNK):
        within = start + tl.arange(0, CHUNK)
        at0 = (v * count0 + rows[:, None]) * WIDTH + within[None, :]
        at1 = (v * count1 + columns[None, :]) * WIDTH + within[:, None]
        a = tl.load(left + at0, mask=(rows < count0)[:, None] & (within < WIDTH)[None, :], other=0.0)
        b = tl.load(right + at1, mask=(columns < count1)[None, :] & (within < WIDTH)[:, None], other=0.0)
        total = tl.dot(a, b, total, input_precision="tf32x3")
    return total


@triton.jit
@no_type_check
def _packed(value, index):
    """One integer that orders by value and then by lower index: the bits of a float32, turned round below zero."""
    bits = value.to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - index).to(tl.int64)
