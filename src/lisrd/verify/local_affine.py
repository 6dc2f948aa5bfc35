"""How image 0 maps to image 1 around each match: from a model, from keypoint frames, or from neighbours.

Every function gives (S, 2, 2) matrices A: a small step v at a keypoint of image 0 is the step A v in image 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

#: Points whose distances to all others are held at a time.
_BLOCK = 512


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Scale (any unit that both images share) and orientation (radians, from x towards y) of matched keypoints."""

    scales: Float[np.ndarray, " S"]
    oris: Float[np.ndarray, " S"]


def affine_of_homography(
    H: Float[np.ndarray, "3 3"], points0: Float[np.ndarray, "S 2"]
) -> Float[np.ndarray, "S 2 2"]:
    """The derivative of the homography at each point."""
    homogeneous = points0 @ H[:, :2].T + H[:, 2]
    w = homogeneous[:, 2, None, None]
    mapped = homogeneous[:, :2, None] / w
    return (H[None, :2, :2] - mapped * H[None, None, 2, :2]) / w


def affine_of_frames(frames0: Frames, frames1: Frames) -> Float[np.ndarray, "S 2 2"]:
    """The similarity that turns one keypoint's scale and orientation into the other's."""
    ratio = frames1.scales / np.maximum(frames0.scales, 1e-6)
    return _similarity(ratio * np.exp(1j * (frames1.oris - frames0.oris)))


def affine_of_neighbours(
    points0: Float[np.ndarray, "S 2"], points1: Float[np.ndarray, "S 2"], neighbours: int = 8
) -> Float[np.ndarray, "S 2 2"]:
    """The similarity that most of the nearest matches of image 0 agree with; not a number for lone matches.

    A similarity is one complex factor. Each neighbour proposes one, and the geometric median would be costly: the
    medians of log scale and of the angle around the mean direction bear nearly half of the matches wrong.
    """
    if len(points0) < 3:
        return np.full((len(points0), 2, 2), np.nan)
    near = nearest_neighbours(points0, neighbours)
    step0 = _complex(points0[near] - points0[:, None])
    step1 = _complex(points1[near] - points1[:, None])
    usable = (np.abs(step0) > 1) & (np.abs(step1) > 1)  # a pixel apart, so that localisation does not decide
    factor = np.where(usable, step1 / np.where(usable, step0, 1), np.nan + 0j)
    return _similarity(_median_factor(factor))


def nearest_neighbours(points: Float[np.ndarray, "S 2"], count: int) -> Int[np.ndarray, "S count"]:
    """Indices of the nearest other points, `count` of them or all there are."""
    count = min(count, len(points) - 1)
    blocks = []
    for start in range(0, len(points), _BLOCK):  # all distances at once would grow with the square
        squared = ((points[start : start + _BLOCK, None] - points) ** 2).sum(-1)
        rows = np.arange(len(squared))
        squared[rows, start + rows] = np.inf
        blocks.append(np.argpartition(squared, count - 1, axis=1)[:, :count])
    return np.concatenate(blocks)


def _median_factor(factor: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        direction = np.nansum(factor / np.abs(factor), axis=1)
        angle = np.angle(factor * np.exp(-1j * np.angle(direction))[:, None])
        log_scale = np.log(np.abs(factor))
    lone = np.isnan(log_scale).all(1)
    log_scale[lone], angle[lone] = 0, 0
    found = np.exp(np.nanmedian(log_scale, axis=1) + 1j * (np.nanmedian(angle, axis=1) + np.angle(direction)))
    return np.where(lone, np.nan + 0j, found)


def _complex(vectors: np.ndarray) -> np.ndarray:
    return vectors[..., 0] + 1j * vectors[..., 1]


def _similarity(factor: np.ndarray) -> Float[np.ndarray, "S 2 2"]:
    a, b = factor.real, factor.imag
    return np.stack([np.stack([a, -b], axis=-1), np.stack([b, a], axis=-1)], axis=-2)
