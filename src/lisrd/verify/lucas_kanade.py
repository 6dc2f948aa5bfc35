"""Inverse compositional Lucas-Kanade for many small patches at once, tolerant to light.

Baker and Matthews, "Lucas-Kanade 20 years on", IJCV 2004: the derivatives are those of the template, so that each
match inverts its system once. The grey values are brought to zero mean and unit deviation first, which takes out
gain and offset of the light. Compiled loops do it where numba is installed, NumPy everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from lisrd.compiled import obstacle_to
from lisrd.threads import run_together, shares
from lisrd.verify.patch_pairs import PatchPairs
from lisrd.verify.patches import square_grid

_KERNEL = "lisrd.verify.lucas_kanade_kernel"

#: A step of at most this many grid units at a time, and of this much change of shape.
_LONGEST_STEP = np.array([1.0, 0.1])
#: Grid units: below the first, a last step has ended the search; below the second, no further one is taken.
_STILL, _SETTLED = 0.05, 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """Where the patches of image 1 fit their templates, in units of the grid."""

    warps: Float[np.ndarray, "S 2 3"]  # grid offset (x, y, 1) of the template to that of image 1
    correlation: Float[np.ndarray, " S"]  # weighted, of the normalised patches, at `warps`
    covariance: Float[np.ndarray, "S 2 2"]  # of the shift, the last column of `warps`
    converged: Bool[np.ndarray, " S"]


def align(pairs: PatchPairs, affine: bool = False, iterations: int = 6) -> Alignment:
    """Warps under which the patches of image 1 fit those of image 0, the templates, best.

    The shift alone is searched, or with `affine` the six numbers of an affine warp. A match is searched no more once
    its steps are small. Compiled or not, what is found differs by the rounding of float32.
    """
    pass_, _ = refining_pass()
    return (align_compiled if pass_ == "numba" else align_in_numpy)(pairs, affine, iterations)


def refining_pass() -> tuple[str, str]:
    """What aligns patches, and the reason in words: for `lisrd info`."""
    obstacle = obstacle_to(_KERNEL)
    return ("numpy", obstacle) if obstacle else ("numba", "each match to its end in the cache")


def align_compiled(pairs: PatchPairs, affine: bool, iterations: int) -> Alignment:
    """`align` by compiled loops, on as many threads as torch computes with."""
    from lisrd.verify.lucas_kanade_kernel import search

    grid, window = np.ascontiguousarray(square_grid(pairs.side).T), gaussian_window(pairs.side)
    limits = np.append(_LONGEST_STEP, _SETTLED)
    count = len(pairs)
    warps, last = np.tile(np.eye(2, 3), (count, 1, 1)), np.zeros(count)
    correlation, covariance = np.zeros(count), np.zeros((count, 2, 2))
    for images, rows in pairs.by_level():
        task = partial(
            search,
            images,
            rows,
            (pairs.points0, pairs.points1),
            (pairs.frames0, pairs.frames1),
            grid,
            window,
            affine,
            iterations,
            limits,
            (warps, correlation, covariance, last),
        )
        run_together([partial(task, share) for share in shares(len(rows))])
    return Alignment(warps, correlation, covariance, last < _STILL)


def align_in_numpy(pairs: PatchPairs, affine: bool, iterations: int) -> Alignment:
    """`align` for all matches at once, step by step."""
    weights = gaussian_window(pairs.side)
    template = normalised(pairs.templates(), weights)
    slopes = _slopes(template, pairs.side, affine)
    inverse = _inverse_hessian(slopes, weights)
    warps = np.tile(np.eye(2, 3), (len(pairs), 1, 1))
    last = np.zeros(len(pairs))
    read = pairs.reader(affine)
    rows = everyone = np.arange(len(pairs))
    moving = [template, slopes * weights, inverse]  # of the rows that still move
    for _ in range(iterations):
        own_template, own_slopes, own_inverse = moving
        error = normalised(read(rows, warps[rows]), weights) - own_template
        step = _shortened((own_inverse @ (own_slopes @ error[..., None]))[..., 0])
        warps[rows] = _composed_with_inverse(warps[rows], step)
        last[rows] = np.linalg.norm(step[:, :2], axis=1)
        moves = last[rows] >= _SETTLED
        if not moves.all():
            rows, moving = rows[moves], [values[moves] for values in moving]
        if not len(rows):
            break
    current = normalised(read(everyone, warps), weights)
    noise = ((current - template) ** 2) @ weights
    return Alignment(
        warps, (template * current) @ weights, inverse[:, :2, :2] * noise[:, None, None], last < _STILL
    )


def gaussian_window(side: int) -> Float[np.ndarray, " K"]:
    """Weights that sum to 1: what lies off the keypoint may move differently."""
    offset = (np.arange(side) - side // 2) / (side / 3)
    one = np.exp(-0.5 * offset**2)
    window = np.outer(one, one).ravel()
    return (window / window.sum()).astype(np.float32)


def normalised(
    patches: Float[np.ndarray, "S K"], weights: Float[np.ndarray, " K"]
) -> Float[np.ndarray, "S K"]:
    """Weighted mean 0 and deviation 1; flat patches become 0."""
    centred = patches - (patches @ weights)[:, None]
    deviation = np.sqrt((centred**2) @ weights)
    return centred / np.maximum(deviation, 1e-3)[:, None]


def _slopes(patches: np.ndarray, side: int, affine: bool) -> Float[np.ndarray, "S parameters K"]:
    """Derivatives of the template by the shift (x, y) and, with `affine`, by the entries of the 2 x 2 part."""
    dy, dx = np.gradient(patches.reshape(len(patches), side, side), axis=(1, 2))
    shift = np.stack([dx, dy], axis=1).reshape(len(patches), 2, side**2)
    if not affine:
        return shift
    shape = shift[:, :, None] * square_grid(side).T
    return np.concatenate([shift, shape.reshape(len(patches), 4, side**2)], axis=1)


def _inverse_hessian(slopes: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "S parameters parameters"]:
    hessian = (slopes * weights) @ np.swapaxes(slopes, 1, 2)
    return np.linalg.inv(hessian.astype(np.float64) + 1e-6 * np.eye(slopes.shape[1]))


def _shortened(step: np.ndarray) -> np.ndarray:
    shift, shape = step[:, :2], step[:, 2:]
    for part, longest in zip((shift, shape), _LONGEST_STEP, strict=True):
        length = np.linalg.norm(part, axis=1, keepdims=True)
        part *= np.minimum(1, longest / np.maximum(length, 1e-9))
    return step


def _composed_with_inverse(warps: np.ndarray, step: np.ndarray) -> Float[np.ndarray, "S 2 3"]:
    change = np.tile(np.eye(2), (len(step), 1, 1))
    if step.shape[1] == 6:
        change += step[:, 2:].reshape(-1, 2, 2)
    shape = warps[..., :2] @ np.linalg.inv(change)
    shift = warps[..., 2] - (shape @ step[:, :2, None])[..., 0]
    return np.concatenate([shape, shift[..., None]], axis=-1)
