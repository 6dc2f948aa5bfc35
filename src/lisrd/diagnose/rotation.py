"""From the angles between images to an angle for each: one-dimensional rotation averaging.

Wrong angles of single pairs are outvoted: the angles start along the pairs with the most inliers, and are then the
weighted mean of what all pairs of an image say. At first all pairs count, later those that disagree count little: had
they counted little from the beginning, a wrong pair with many inliers would silence all others.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

#: Rounds of averaging; each image hears of its neighbours' neighbours one round later.
_ROUNDS = 50
#: Degrees of disagreement at which a pair counts half, in the first round and at last.
_DOUBT = 180.0, 10.0
#: Images within so many degrees of one another are held the same way.
_ALIKE = 15.0


def image_angles(
    pairs: Int[np.ndarray, "P 2"],
    angles: Float[np.ndarray, " P"],
    weights: Float[np.ndarray, " P"],
    num_images: int,
) -> tuple[Float[np.ndarray, " M"], Int[np.ndarray, " M"]]:
    """Degrees by which each image is turned clockwise, and the number of its group.

    `pairs` are indices of images, `angles` how many degrees the second shows the content turned clockwise against the
    first, `weights` how far to trust it. Images that pairs connect are a group; in each, the angle is 0 where most of
    its images are. An image in no pair has no angle (NaN) and a group of its own.
    """
    directions = np.exp(1j * np.radians(angles))
    start, groups = _along_strongest(pairs, directions, weights, num_images)
    averaged = _averaged(start, pairs, directions, weights)
    degrees = np.full(num_images, np.nan)
    for group in np.unique(groups[pairs]):
        members = np.flatnonzero(groups == group)
        relative = averaged[members] * np.conj(_held_by_most(averaged[members]))
        degrees[members] = np.degrees(np.angle(relative))
    return degrees, groups


def _along_strongest(
    pairs: np.ndarray, directions: np.ndarray, weights: np.ndarray, num_images: int
) -> tuple[np.ndarray, np.ndarray]:
    """Kruskal's maximum spanning tree, each merged group turned to agree with the one it joins."""
    found = np.ones(num_images, dtype=complex)
    groups = np.arange(num_images)
    for p in np.argsort(-weights, kind="stable"):
        first, second = pairs[p]
        if groups[first] == groups[second]:
            continue
        joining = groups == groups[second]
        found[joining] *= found[first] * directions[p] * np.conj(found[second])
        groups[joining] = groups[first]
    return found, groups


def _averaged(
    found: np.ndarray, pairs: np.ndarray, directions: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    first, second = pairs.T
    for doubt in np.geomspace(*_DOUBT, _ROUNDS):
        error = np.degrees(np.abs(np.angle(found[first] * directions * np.conj(found[second]))))
        trust = weights / (1 + (error / doubt) ** 2)
        total = np.zeros_like(found)
        np.add.at(total, second, trust * found[first] * directions)
        np.add.at(total, first, trust * found[second] * np.conj(directions))
        # Half a step, because two images would swap for ever; what no pair speaks of stays.
        halfway = found + total / np.maximum(np.abs(total), np.finfo(float).tiny)
        found = np.where(np.abs(halfway) > 1e-9, halfway, found)
        found = found / np.abs(found)
    return found


def _held_by_most(found: np.ndarray) -> complex:
    """The median direction of the images around the whole degree that has the most beside it."""
    degrees = np.degrees(np.angle(found))
    counts = np.bincount(np.round(degrees).astype(int) % 360, minlength=360)
    reach = int(_ALIKE)
    nearby = sum(np.roll(counts, shift) for shift in range(-reach, reach + 1))
    crowded = np.exp(1j * np.radians(np.argmax(nearby)))
    apart = np.degrees(np.angle(found * np.conj(crowded)))
    middle = np.median(apart[np.abs(apart) <= _ALIKE + 0.5])
    return complex(crowded * np.exp(1j * np.radians(middle)))
