"""The passes of `PooledNorm` over a map in the cache, compiled by numba: what PyTorch does in seven is done in four.

A map is a matrix here: a row is one or more pixels with their channels side by side, long enough for vector
instructions; what belongs to a channel is repeated along it. bfloat16, which NumPy does not know, comes as uint16,
becomes float32, and is rounded to the nearest, to the even one of two. Sums are float64 over blocks of float32.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numba
import numpy as np
from numba.extending import overload

_F, _U, _H = np.float32, np.uint32, np.uint16
_ZERO = _F(0)

#: Rows whose sums are float32.
_BLOCK = 64

# Multiply and add may fuse; NaN stays NaN.
_OPTIONS = {"fastmath": {"contract", "nsz"}, "error_model": "numpy", "nogil": True, "cache": True}


def _wide(value: Any) -> Any:
    """As float32."""


def _like(value: Any, stored: Any) -> Any:
    """A float32 as numbers like `stored` are kept."""


@overload(_wide, inline="always")
@no_type_check
def _wide_for(value):
    if value == numba.types.uint16:
        return lambda value: _U(_U(value) << _U(16)).view(_F)
    return lambda value: value


@overload(_like, inline="always")
@no_type_check
def _like_for(value, stored):
    if stored == numba.types.uint16:

        def rounded(value, stored):
            bits = _F(value).view(_U)
            return _H((bits + _U(0x7FFF) + ((bits >> _U(16)) & _U(1))) >> _U(16))

        return rounded
    return lambda value, stored: value


@numba.njit(**_OPTIONS)
@no_type_check  # numba compiles the bare function, run-time checks of shapes would be in its way
def add_moments(x, near, totals, rows):
    """To `totals` the sums of x - near and of its square."""
    width = x.shape[1]
    first, second = np.empty(width, _F), np.empty(width, _F)
    for start in range(rows[0], rows[1], _BLOCK):
        first[:] = _ZERO
        second[:] = _ZERO
        for r in range(start, min(start + _BLOCK, rows[1])):
            for c in range(width):
                d = _wide(x[r, c]) - near[c]
                first[c] += d
                second[c] += d * d
        for c in range(width):
            totals[0, c] += first[c]
            totals[1, c] += second[c]


@numba.njit(**_OPTIONS)
@no_type_check
def affine(x, scale, shift, skip, rectify, out, rows):
    """`scale` x + `shift`, plus `skip` where it is an array; not below 0 where `rectify` is not None.

    Like all others of rows [begin, end) = `rows`.
    """
    for r in range(rows[0], rows[1]):
        for c in range(x.shape[1]):
            value = _wide(x[r, c]) * scale[c] + shift[c]
            if skip is not None:
                value += _wide(skip[r, c])
            if rectify is not None:
                value = _ZERO if value < _ZERO else value
            out[r, c] = _like(value, out[r, c])


@numba.njit(**_OPTIONS)
@no_type_check
def add_products(gradient, x, mean, out, masked, totals, rows):
    """To `totals` the sums of g and of g (x - mean); g is the gradient where `out`, if it is an array, is above 0.

    g is written to `masked` where that is an array.
    """
    width = x.shape[1]
    first, second = np.empty(width, _F), np.empty(width, _F)
    for start in range(rows[0], rows[1], _BLOCK):
        first[:] = _ZERO
        second[:] = _ZERO
        for r in range(start, min(start + _BLOCK, rows[1])):
            for c in range(width):
                g = _wide(gradient[r, c])
                if out is not None:
                    g = _ZERO if _wide(out[r, c]) <= _ZERO else g
                if masked is not None:
                    masked[r, c] = _like(g, masked[r, c])
                first[c] += g
                second[c] += g * (_wide(x[r, c]) - mean[c])
        for c in range(width):
            totals[0, c] += first[c]
            totals[1, c] += second[c]


@numba.njit(**_OPTIONS)
@no_type_check
def combine(gradient, x, out, by_gradient, by_x, constant, result, rows):
    """`by_gradient` g + `by_x` x + `constant`, with g as in `add_products`."""
    for r in range(rows[0], rows[1]):
        for c in range(x.shape[1]):
            g = _wide(gradient[r, c])
            if out is not None:
                g = _ZERO if _wide(out[r, c]) <= _ZERO else g
            value = g * by_gradient[c] + _wide(x[r, c]) * by_x[c] + constant[c]
            result[r, c] = _like(value, result[r, c])
