"""Lucas-Kanade of one match after the other, compiled by numba: its patches never leave the first cache.

NumPy reads the patches of all matches, writes them, and goes over them again for every small step of the search. Here
a match is searched to its end before the next one is looked at. The search is that of `lisrd.verify.lucas_kanade`.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

_F, _I, _U = np.float32, np.int32, np.uint32
_ZERO, _ONE = _F(0), _F(1)

#: Below it a patch is flat; what keeps a flat patch's system from being singular.
_FLAT, _RIDGE = _F(1e-3), 1e-6

# Sums in any order, which vector instructions need: 225 products are within a float32's rounding of each other.
_OPTIONS = {"fastmath": {"contract", "nsz", "reassoc"}, "error_model": "numpy", "cache": True}


@numba.njit(nogil=True, **_OPTIONS)
@no_type_check  # numba compiles the bare function, run-time checks of shapes would be in its way
def search(images, rows, points, frames, grid, window, affine, iterations, limits, found, share):
    """Search the matches [begin, end) = `share` of `rows`, and write what is found of each to its row.

    `images`, `points` and `frames` are pairs, of image 0 and of image 1. `grid` (2, K) are the offsets of a patch's
    samples, `window` (K) their weights, `limits` the longest steps of shift and shape and the step that settles, in
    units of the grid. `found` are an `Alignment`'s warps, correlation and covariance, and the length of the last step.
    """
    image0, image1 = images
    points0, points1 = points
    frames0, frames1 = frames
    warps, correlation, covariance, last = found
    count = len(window)
    side = int(np.sqrt(count))
    unknowns = 6 if affine else 2
    template, patch = np.empty(count, _F), np.empty(count, _F)
    scratch = np.empty(count, _U), np.empty(count, _F), np.empty(count, _F)
    slopes, weighted = np.empty((unknowns, count), _F), np.empty((unknowns, count), _F)
    inverse, step = np.empty((unknowns, unknowns)), np.empty(unknowns)
    for place in range(share[0], share[1]):
        r = rows[place]
        warp, frame = warps[r], frames1[r]
        _read(image0, points0[r], frames0[r], grid, scratch, template)
        _normalise(template, window)
        _slopes(template, side, affine, slopes)
        _invert_hessian(slopes, window, weighted, inverse)
        for _ in range(iterations):
            _read_warped(image1, points1[r], frame, warp, grid, scratch, patch)
            _normalise(patch, window)
            for k in range(count):
                patch[k] -= template[k]
            _solve(inverse, weighted, patch, step)
            last[r] = _shorten(step, limits)
            _compose_with_inverse(warp, step)
            if last[r] < limits[2]:
                break
        _read_warped(image1, points1[r], frame, warp, grid, scratch, patch)
        _normalise(patch, window)
        alike, noise = _ZERO, _ZERO
        for k in range(count):
            difference = patch[k] - template[k]
            alike += window[k] * template[k] * patch[k]
            noise += window[k] * difference * difference
        correlation[r] = alike
        for i in range(2):
            for j in range(2):
                covariance[r, i, j] = inverse[i, j] * noise


@numba.njit(**_OPTIONS)
@no_type_check
def _read_warped(image, centre, frame, warp, grid, scratch, patch):
    """The patch whose grid the warp (2 x 3) moves before the frame (2 x 2) maps it to pixels around the centre."""
    moved, warped = np.empty(2), np.empty((2, 2))
    for i in range(2):
        moved[i] = centre[i] + frame[i, 0] * warp[0, 2] + frame[i, 1] * warp[1, 2]
        for j in range(2):
            warped[i, j] = frame[i, 0] * warp[0, j] + frame[i, 1] * warp[1, j]
    _read(image, moved, warped, grid, scratch, patch)


@numba.njit(**_OPTIONS)
@no_type_check
def _read(image, centre, frame, grid, scratch, patch):
    """Bilinear samples at centre + frame @ (x, y) of the grid; the border is repeated.

    Where to read is computed for all samples before any is read: vector instructions do that at four times the speed.
    """
    pixel, along, down = scratch
    height, width = image.shape
    right, bottom = _F(width - 1), _F(height - 1)
    # The last pixel is read as the far end of the step before it, where there is one.
    last_left, last_top = _I(max(width - 2, 0)), _I(max(height - 2, 0))
    to_right, to_below = min(width - 1, 1), min(height - 1, 1) * width
    a, b, c, d = _F(frame[0, 0]), _F(frame[0, 1]), _F(frame[1, 0]), _F(frame[1, 1])
    x0, y0 = _F(centre[0]), _F(centre[1])
    for k in range(len(patch)):
        u = x0 + a * grid[0, k] + b * grid[1, k]
        v = y0 + c * grid[0, k] + d * grid[1, k]
        u = min(u, right) if u > _ZERO else _ZERO  # what is not a number becomes 0
        v = min(v, bottom) if v > _ZERO else _ZERO
        left, top = _I(u), _I(v)
        left = left if left < last_left else last_left
        top = top if top < last_top else last_top
        along[k], down[k] = u - _F(left), v - _F(top)
        pixel[k] = _I(top * _I(width) + left)  # numba asks of a signed index whether it counts from the end
    corner00 = image.ravel()
    corner10, corner01, corner11 = corner00[to_right:], corner00[to_below:], corner00[to_below + to_right :]
    for k in range(len(patch)):
        i = pixel[k]
        upper = corner00[i] + along[k] * (corner10[i] - corner00[i])
        lower = corner01[i] + along[k] * (corner11[i] - corner01[i])
        patch[k] = upper + down[k] * (lower - upper)


@numba.njit(**_OPTIONS)
@no_type_check
def _normalise(patch, window):
    """Weighted mean 0 and deviation 1; a flat patch becomes 0."""
    mean = _ZERO
    for k in range(len(patch)):
        mean += patch[k] * window[k]
    variance = _ZERO
    for k in range(len(patch)):
        patch[k] -= mean
        variance += patch[k] * patch[k] * window[k]
    factor = _ONE / max(_F(np.sqrt(variance)), _FLAT)
    for k in range(len(patch)):
        patch[k] *= factor


@numba.njit(**_OPTIONS)
@no_type_check
def _slopes(patch, side, affine, slopes):
    """Derivatives by the shift (x, y) and by the entries of the 2 x 2 part: central, at the border one-sided."""
    for row in range(side):
        up, down = max(row - 1, 0), min(row + 1, side - 1)
        for column in range(side):
            left, right = max(column - 1, 0), min(column + 1, side - 1)
            k = row * side + column
            slopes[0, k] = (patch[row * side + right] - patch[row * side + left]) / _F(right - left)
            slopes[1, k] = (patch[down * side + column] - patch[up * side + column]) / _F(down - up)
            if affine:
                x, y = _F(column - side // 2), _F(row - side // 2)
                for i in range(2):
                    slopes[2 + 2 * i, k] = slopes[i, k] * x
                    slopes[3 + 2 * i, k] = slopes[i, k] * y


@numba.njit(**_OPTIONS)
@no_type_check
def _invert_hessian(slopes, window, weighted, inverse):
    """The inverse of the sum of slopes times weighted slopes, which is positive definite, and those slopes."""
    unknowns, count = slopes.shape
    system = np.empty((unknowns, unknowns))
    for i in range(unknowns):
        for k in range(count):
            weighted[i, k] = slopes[i, k] * window[k]
        for j in range(i + 1):
            total = _ZERO
            for k in range(count):
                total += weighted[i, k] * slopes[j, k]
            system[i, j] = system[j, i] = total
        system[i, i] += _RIDGE
        for j in range(unknowns):
            inverse[i, j] = 1.0 if i == j else 0.0
    for i in range(unknowns):  # Gauss and Jordan; a positive definite system needs no pivoting
        factor = 1 / system[i, i]
        for j in range(unknowns):
            system[i, j] *= factor
            inverse[i, j] *= factor
        for other in range(unknowns):
            factor = system[other, i]
            if other != i:
                for j in range(unknowns):
                    system[other, j] -= factor * system[i, j]
                    inverse[other, j] -= factor * inverse[i, j]


@numba.njit(**_OPTIONS)
@no_type_check
def _solve(inverse, weighted, error, step):
    unknowns, count = weighted.shape
    for i in range(unknowns):
        step[i] = 0.0
    for j in range(unknowns):
        total = _ZERO
        for k in range(count):
            total += weighted[j, k] * error[k]
        for i in range(unknowns):
            step[i] += inverse[i, j] * total


@numba.njit(**_OPTIONS)
@no_type_check
def _shorten(step, limits):
    """Bring shift and shape to their limits; the length of the shift."""
    shift, shape = np.hypot(step[0], step[1]), 0.0
    for k in range(2, len(step)):
        shape += step[k] * step[k]
    shape = np.sqrt(shape)
    for k in range(len(step)):
        length, longest = (shift, limits[0]) if k < 2 else (shape, limits[1])
        if length > longest:
            step[k] *= longest / length
    return min(shift, limits[0])


@numba.njit(**_OPTIONS)
@no_type_check
def _compose_with_inverse(warp, step):
    """The warp after the inverse of the step."""
    a, b, c, d = 1.0, 0.0, 0.0, 1.0
    if len(step) == 6:
        a, b, c, d = a + step[2], b + step[3], c + step[4], d + step[5]
    determinant = a * d - b * c
    for i in range(2):
        p, q = warp[i, 0], warp[i, 1]
        warp[i, 0] = (p * d - q * c) / determinant
        warp[i, 1] = (q * a - p * b) / determinant
        warp[i, 2] -= warp[i, 0] * step[0] + warp[i, 1] * step[1]
