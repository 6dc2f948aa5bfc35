"""Matches to a fraction of a pixel: the keypoint of image 0 stays, its partner in image 1 moves to where it fits.

A stage of its own after matching. The local patches are aligned by Lucas-Kanade (`lisrd.verify.lucas_kanade`) on
images that the light was taken out of (`lisrd.verify.patches`). How the patch of image 0 looks in image 1 is told
by the estimated model; without one, by the keypoints' frames; without those, by the neighbouring matches
(`lisrd.verify.local_affine`). The last two are only guesses, so there the shape of the patch is searched as well.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from lisrd.errors import InputError
from lisrd.types import ImageLike
from lisrd.verify.local_affine import Frames, affine_of_frames, affine_of_homography, affine_of_neighbours
from lisrd.verify.lucas_kanade import align
from lisrd.verify.patch_pairs import PatchPairs
from lisrd.verify.patches import PreparedImage
from lisrd.verify.robust import Points, as_matrix

Mode = Literal["off", "on", "auto"]

#: Pixels by which a keypoint that was not refined is off, about: the median of correct matches on real pairs.
UNREFINED = 1.0
#: A keypoint of image 1 moves by at most this many pixels; a larger shift leads to other structure.
FARTHEST = 3.0
#: Correlation of the aligned patches that mode "auto" asks for.
MIN_CORRELATION = 0.6
#: Guesses of the local map that shrink or grow lengths more than this are wrong.
LARGEST_SCALE = 8.0
#: Samples of a patch are correlated; so many of them count as one. Measured: see `Refined.uncertainty`.
SAMPLES_PER_FACT = 5.0


@dataclass(frozen=True, slots=True)
class _Stage:
    spacing: float  # of the samples, in pixels of the image that is shown smaller
    side: int  # samples per side
    affine: bool  # whether the shape of the patch is searched as well
    iterations: int


_SHAPE_KNOWN = (_Stage(2.0, 15, False, 5), _Stage(1.0, 15, False, 5))
_SHAPE_GUESSED = (_Stage(1.0, 21, True, 7), _Stage(1.0, 15, False, 4))


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """Refined partners. A match that could not be refined keeps its place and has `UNREFINED` as uncertainty.

    `uncertainty` is the standard deviation per axis in pixels of image 1, from the patch's structure and from what
    is left of its difference; it knows nothing of a wrong match.
    """

    points1: Float[np.ndarray, "S 2"]
    uncertainty: Float[np.ndarray, " S"]
    refined: Bool[np.ndarray, " S"]

    def keep(self, chosen: Bool[np.ndarray, " S"]) -> Refined:
        """Those of the chosen matches."""
        return Refined(self.points1[chosen], self.uncertainty[chosen], self.refined[chosen])

    def replaced(self, chosen: Bool[np.ndarray, " S"], by: Refined) -> Refined:
        """All of these, the chosen ones as in `by`."""
        result = Refined(self.points1.copy(), self.uncertainty.copy(), self.refined.copy())
        result.points1[chosen], result.uncertainty[chosen] = by.points1, by.uncertainty
        result.refined[chosen] = by.refined
        return result


def unrefined(points1: Float[np.ndarray, "S 2"]) -> Refined:
    """Partners that stay where they are."""
    return Refined(points1.copy(), np.full(len(points1), UNREFINED), np.zeros(len(points1), dtype=bool))


def refine(
    image0: ImageLike | PreparedImage,
    image1: ImageLike | PreparedImage,
    points0: Points,
    points1: Points,
    frames0: Frames | None = None,
    frames1: Frames | None = None,
    model_H: Float[np.ndarray, "3 3"] | None = None,
    mode: Mode = "auto",
) -> Refined:
    """Sub-pixel partners of the matches `points0` (S, 2) and `points1` (S, 2), in pixels.

    `model_H` (image 0 to image 1), else `frames0` and `frames1` of the matched keypoints, else the matches
    themselves tell the local map. Mode "auto" keeps a new place where the patches agree there, "on" wherever the
    search ends close by, "off" returns the matches as they are. Pass `PreparedImage`s to refine several times.
    Raises InputError for shapes that do not fit and unknown modes.
    """
    start0, start1 = as_matrix(points0, "points0", 2), as_matrix(points1, "points1", 2)
    _check(start0, start1, frames0, frames1, mode)
    result = unrefined(start1)
    if mode == "off":
        return result
    affine = _local_affine(start0, start1, frames0, frames1, model_H)
    rows = np.flatnonzero(_usable(affine) & np.isfinite(start0).all(1) & np.isfinite(start1).all(1))
    if not len(rows):
        return result
    stages = _SHAPE_GUESSED if model_H is None else _SHAPE_KNOWN
    images = PreparedImage.of(image0), PreparedImage.of(image1)
    moved, sigma, correlation, fits = _run(stages, *images, start0[rows], start1[rows], affine[rows])
    if mode == "auto":
        fits &= correlation >= MIN_CORRELATION
    result.points1[rows[fits]] = moved[fits]
    result.uncertainty[rows[fits]] = sigma[fits]
    result.refined[rows[fits]] = True
    return result


def _run(
    stages: tuple[_Stage, ...],
    image0: PreparedImage,
    image1: PreparedImage,
    points0: np.ndarray,
    start1: np.ndarray,
    affine: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """New places, their deviation, correlation of the patches, and whether the search ended close by."""
    points1, sigma, correlation = start1.copy(), np.zeros(len(start1)), np.zeros(len(start1))
    rows = np.arange(len(start1))  # those that still fit; the others are not looked at again
    for stage in stages:
        found = _align(stage, image0, image1, points0[rows], points1[rows], affine[rows])
        rows, found = rows[found.fits], found.keep(found.fits)
        points1[rows], sigma[rows], correlation[rows] = found.points1, found.sigma, found.correlation
        if not len(rows):
            break
        if stage.affine:
            affine[rows] = found.affine
    fits = np.zeros(len(start1), dtype=bool)
    fits[rows] = found.inside & (np.linalg.norm(points1[rows] - start1[rows], axis=1) <= FARTHEST)
    return points1, sigma, correlation, fits


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """What one stage found of each match."""

    points1: Float[np.ndarray, "S 2"]
    sigma: Float[np.ndarray, " S"]  # standard deviation per axis
    correlation: Float[np.ndarray, " S"]
    affine: Float[np.ndarray, "S 2 2"]
    inside: Bool[np.ndarray, " S"]  # both patches lie within their images
    fits: Bool[np.ndarray, " S"]  # the search ended, at a map that can be

    def keep(self, chosen: Bool[np.ndarray, " S"]) -> _Placed:
        return _Placed(*(getattr(self, f.name)[chosen] for f in fields(self)))


def _align(
    stage: _Stage,
    image0: PreparedImage,
    image1: PreparedImage,
    points0: np.ndarray,
    points1: np.ndarray,
    affine: np.ndarray,
) -> _Placed:
    frame0 = _frame(affine, stage.spacing)
    frame1 = affine @ frame0
    pairs = PatchPairs(image0, image1, points0, points1, frame0, frame1, stage.side)
    found = align(pairs, stage.affine, stage.iterations)
    moved = points1 + (frame1 @ found.warps[:, :, 2:])[..., 0]
    covariance = frame1 @ found.covariance @ frame1.transpose(0, 2, 1) * SAMPLES_PER_FACT / stage.side**2
    sigma = np.sqrt(np.maximum(np.trace(covariance, axis1=1, axis2=2) / 2, 0))
    shape = found.warps[:, :, :2]
    fits = found.converged & _usable(shape)
    return _Placed(moved, sigma, found.correlation, affine @ shape, pairs.inside(moved), fits)


def _frame(affine: np.ndarray, spacing: float) -> Float[np.ndarray, "S 2 2"]:
    """Square frames in image 0 whose samples are at least `spacing` pixels apart in both images."""
    growth = np.sqrt(np.abs(np.linalg.det(affine)))
    return (spacing * np.maximum(1, 1 / growth))[:, None, None] * np.eye(2)


def _usable(affine: np.ndarray) -> Bool[np.ndarray, " S"]:
    """Whether the maps keep orientation and change lengths, along any direction, within reason."""
    finite = np.isfinite(affine).all((1, 2))
    safe = np.where(finite[:, None, None], affine, np.eye(2))
    (a, b), (c, d) = np.moveaxis(safe, 0, -1)
    # The singular values are the sum and the difference of these; many small decompositions take ten times as long.
    similarity, rest = np.hypot(a + d, b - c) / 2, np.hypot(a - d, b + c) / 2
    within = (similarity + rest <= LARGEST_SCALE) & (similarity - rest >= 1 / LARGEST_SCALE)
    return finite & within  # a mirror's difference is negative


def _local_affine(
    points0: np.ndarray,
    points1: np.ndarray,
    frames0: Frames | None,
    frames1: Frames | None,
    model_H: np.ndarray | None,
) -> Float[np.ndarray, "S 2 2"]:
    if model_H is not None:
        return affine_of_homography(np.asarray(model_H, dtype=np.float64), points0)
    if frames0 is not None and frames1 is not None:
        return affine_of_frames(frames0, frames1)
    return affine_of_neighbours(points0, points1)


def _check(
    points0: np.ndarray, points1: np.ndarray, frames0: Frames | None, frames1: Frames | None, mode: str
) -> None:
    if mode not in get_args(Mode):
        raise InputError(f"mode {mode!r} is unknown: use one of {', '.join(get_args(Mode))}")
    counts = {len(points0), len(points1)}
    for frames in (frames0, frames1):
        if frames is not None:
            counts |= {len(frames.scales), len(frames.oris)}
    if len(counts) > 1:
        raise InputError(f"points and frames have {sorted(counts)} rows: pass one row per match in each")
