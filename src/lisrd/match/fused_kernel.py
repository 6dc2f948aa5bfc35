"""The one pass over a tile of similarities, compiled by numba: softmax, weighted sum, running best both ways.

Every step is a loop over the columns of one row, which numba turns into vector instructions; the lines between the
steps stay in the first cache. Nothing of the tile is written, and no exponential is computed twice.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

_F, _I = np.float32, np.int32

#: 2^x on [-1/2, 1/2]: the first terms of its Taylor series, below 1e-8 of the value.
_C1, _C2, _C3, _C4, _C5, _C6 = (
    _F(c) for c in (6.9314718e-1, 2.4022651e-1, 5.5504109e-2, 9.6181291e-3, 1.3333558e-3, 1.5403530e-4)
)
_ONE = _F(1.0)
#: Adding 1.5 * 2^23 leaves a float32 rounded to an integer, in its lowest bits.
_ROUNDING = _F(12582912.0)
_LOWEST_EXPONENT = _F(-126.0)  # of a normal float32: the weight counts for nothing long before
_EXPONENT_BITS = _I(23)

#: Columns that are looked at together for a new best of the row.
_GROUP = 64

# Multiply and add may fuse and there is no NaN; sums keep their order, so that the result is one and the same.
_OPTIONS = {"fastmath": {"contract", "nnan", "ninf", "nsz"}, "error_model": "numpy", "cache": True}


@numba.njit(**_OPTIONS)
@no_type_check  # numba compiles the bare function, run-time checks of shapes would be in its way
def _exp2(x):
    """2^x for x <= 0 to float32's rounding, without a branch."""
    x = x if x > _LOWEST_EXPONENT else _LOWEST_EXPONENT
    rounded = _F(x + _ROUNDING)
    f = x - (rounded - _ROUNDING)
    power = _F(_ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * (_C5 + f * _C6))))))
    exponent = _I(rounded.view(_I) << _EXPONENT_BITS)
    return _I(power.view(_I) + exponent).view(_F)


@numba.njit(nogil=True, **_OPTIONS)
@no_type_check
def sweep(similarity, logits, kinds, rows, corner, best1, best0):
    """Take rows [begin, end) = `rows` of a tile (V, R, C) into the best of its R rows and of its C columns.

    `kinds` is a tuple of V numbers, whose length the compiler knows; `corner` is the row and the column where the tile
    begins. Best are the highest and second highest similarity and the index of the highest; the first of equals is
    the highest.
    """
    C = similarity.shape[2]
    line = np.empty(C, _F)
    for r in range(rows[0], rows[1]):
        for c in range(C):
            top = logits[0, r, c]
            for v in range(1, len(kinds)):
                top = logits[v, r, c] if logits[v, r, c] > top else top
            total, weighted = _F(0), _F(0)
            for v in range(len(kinds)):
                weight = _exp2(logits[v, r, c] - top)
                total += weight
                weighted += weight * similarity[v, r, c]
            line[c] = weighted / total
        _take_into_columns(line, _I(corner[0] + r), best0)
        _take_into_row(line, corner[1], r, best1)


@numba.njit(**_OPTIONS)
@no_type_check
def _take_into_columns(values, row, best):
    first, second, index = best
    for c in range(len(values)):
        value = values[c]
        beaten = value if value < first[c] else first[c]
        second[c] = beaten if beaten > second[c] else second[c]
        index[c] = row if value > first[c] else index[c]
        first[c] = value if value > first[c] else first[c]


@numba.njit(**_OPTIONS)
@no_type_check
def _take_into_row(values, column, r, best):
    """Few columns are new to the best two, so they are looked for in groups and taken one by one."""
    firsts, seconds, index = best
    first, second = firsts[r], seconds[r]
    for start in range(0, len(values), _GROUP):
        stop = min(start + _GROUP, len(values))
        found = 0
        for c in range(start, stop):
            found += values[c] > second
        if not found:
            continue
        for c in range(start, stop):
            if values[c] > first:
                first, second = values[c], first
                index[r] = column + c
            elif values[c] > second:
                second = values[c]
    firsts[r], seconds[r] = first, second
