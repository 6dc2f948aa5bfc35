"""The passes of `rectified_norm` over a map on a CPU, compiled by numba: one row is one pixel's channels.

Every inner loop runs over the channels and becomes vector instructions. bfloat16, which numpy does not know, comes as
its bits in uint16: the upper half of the float32.
"""

from __future__ import annotations

from typing import Any, no_type_check

import numba
import numpy as np
from numba.core import types
from numba.extending import overload

_F, _U, _BF = np.float32, np.uint32, np.uint16
_ZERO, _HALF = _F(0), _U(16)

#: Rows whose sums are kept in float32 before they are added to those in float64.
_BLOCK = 64

# Multiply and add may fuse and there is no NaN; sums keep their order, so that the result is one and the same.
_OPTIONS = {
    "fastmath": {"contract", "nnan", "ninf", "nsz"},
    "error_model": "numpy",
    "cache": True,
    "nogil": True,
}


def _wide(value: Any) -> Any:
    """float32 of a stored number."""


def _narrow(value: Any, like: Any) -> Any:
    """What is stored of a float32, rounded to the nearest where `like` is bfloat16."""


@overload(_wide, inline="always")
@no_type_check
def _wide_of(value):
    if isinstance(value, types.Integer):
        return lambda value: _U(_U(value) << _HALF).view(_F)
    return lambda value: value


@overload(_narrow, inline="always")
@no_type_check
def _narrow_of(value, like):
    if not isinstance(like, types.Integer):
        return lambda value, like: value

    def rounded(value, like):
        bits = _F(value).view(_U)
        return _BF((bits + _U(0x7FFF) + ((bits >> _HALF) & _U(1))) >> _HALF)

    return rounded


@numba.njit(**_OPTIONS)
@no_type_check  # numba compiles the bare function, run-time checks of shapes would be in its way
def statistics(x, begin, end, pivot):
    """Sums over rows [begin, end) of x - pivot and of its square, for each channel, 2 x K in float64."""
    K = x.shape[1]
    sums, block = np.zeros((2, K)), np.empty((2, K), _F)
    for start in range(begin, end, _BLOCK):
        block[:] = _ZERO
        for r in range(start, min(start + _BLOCK, end)):
            for k in range(K):
                value = _wide(x[r, k]) - pivot[k]
                block[0, k] += value
                block[1, k] += value * value
        sums += block
    return sums


@numba.njit(**_OPTIONS)
@no_type_check
def rectified(x, begin, end, scale, shift, shortcut, out):
    """relu(scale x + shift + shortcut) into `out`; `shortcut` may be None."""
    for r in range(begin, end):
        for k in range(x.shape[1]):
            value = _wide(x[r, k]) * scale[k] + shift[k]
            if shortcut is not None:
                value += _wide(shortcut[r, k])
            out[r, k] = _narrow(value if value > _ZERO else _ZERO, out[r, k])


@numba.njit(**_OPTIONS)
@no_type_check
def gradient_sums(gradient, x, begin, end, scale, shift, mean, out):
    """Sums over rows of the gradient where `rectified` is above zero, and of it times x - mean: 2 x K in float64.

    Without a shortcut, `out` is None and told from x.
    """
    K = x.shape[1]
    sums, block = np.zeros((2, K)), np.empty((2, K), _F)
    for start in range(begin, end, _BLOCK):
        block[:] = _ZERO
        for r in range(start, min(start + _BLOCK, end)):
            for k in range(K):
                value = _wide(x[r, k])
                reached = _wide(gradient[r, k])
                if out is not None:
                    reached = reached if _wide(out[r, k]) > _ZERO else _ZERO
                else:
                    reached = reached if value * scale[k] + shift[k] > _ZERO else _ZERO
                block[0, k] += reached
                block[1, k] += reached * (value - mean[k])
        sums += block
    return sums


@numba.njit(**_OPTIONS)
@no_type_check
def gradients(gradient, x, begin, end, scale, shift, slope, offset, out, by_x, by_shortcut):
    """scale g + slope x + offset into `by_x`, g being the gradient where `rectified` is above zero.

    With a shortcut, whose gradient g is, `out` and `by_shortcut` are not None.
    """
    for r in range(begin, end):
        for k in range(x.shape[1]):
            value = _wide(x[r, k])
            reached = _wide(gradient[r, k])
            if out is not None:
                reached = reached if _wide(out[r, k]) > _ZERO else _ZERO
                by_shortcut[r, k] = _narrow(reached, by_shortcut[r, k])
            else:
                reached = reached if value * scale[k] + shift[k] > _ZERO else _ZERO
            by_x[r, k] = _narrow(reached * scale[k] + (value * slope[k] + offset[k]), by_x[r, k])
