"""What one pair of images says: which weights won, by which angle the images differ, whether the light changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from lisrd.invariance import ILLUMINATION, ROTATION, Factor, invariances
from lisrd.types import LocalFeatures, Matches
from lisrd.verify import Steps, verify_pair
from lisrd.verify.geometry import Kind

#: Each point is joined by a line to those so many places after it; all pairs of points would say little more.
_PARTNERS = (1, 2, 3, 4)
#: Of the geometry stage what needs no image and adds no match: the evidence is of what the matcher chose.
FROM_FEATURES = Steps(refine="off", guided="off")


@dataclass(frozen=True, slots=True)
class PairEvidence:
    """Facts of the matches that one model verified; without it, `angle` and `light_change` are None.

    `weights` are the mean weights of the invariances over the verified matches (over all matches without a model).
    `angle` (degrees, clockwise on the screen) is how far image 1 shows the content turned. `light_change` is by how
    much more similar the illumination invariant descriptors of the matches are than the illumination variant ones; it
    is None too where the describer has no such kinds.
    """

    names: tuple[str, str]
    matches: int
    inliers: int
    verified: bool
    turn: float
    weights: tuple[float, ...]
    angle: float | None
    light_change: float | None


def pair_evidence(
    names: tuple[str, str], features0: LocalFeatures, features1: LocalFeatures, matches: Matches
) -> PairEvidence:
    """The evidence of one pair (batches of one), verified by a homography or else a fundamental matrix."""
    points0, points1 = (
        f.keypoints[0, matches.matches[:, side]].double().cpu().numpy()
        for side, f in enumerate((features0, features1))
    )
    found = _verified(features0, features1, matches)
    verified = found is not None
    inliers = np.ones(len(matches), dtype=bool) if found is None else found
    weights = (
        matches.invariance_weights[inliers].mean(0) if inliers.any() else matches.invariance_weights.sum(0)
    )
    return PairEvidence(
        names,
        len(matches),
        int(inliers.sum()) if verified else 0,
        verified,
        matches.turn,
        tuple(weights.tolist()),
        relative_angle(points0[inliers], points1[inliers]) if verified else None,
        _light_change(features0, features1, matches.keep(torch.from_numpy(inliers))) if verified else None,
    )


def kinds_invariant_to(factor: Factor, names: tuple[str, ...]) -> list[bool] | None:
    """Of each invariance whether it ignores the factor; None where the names do not tell."""
    known = {invariance.name: invariance for invariance in invariances()}
    if not all(name in known for name in names):
        return None
    return [factor in known[name].invariant_to for name in names]


def relative_angle(points0: Float[np.ndarray, "S 2"], points1: Float[np.ndarray, "S 2"]) -> float | None:
    """Degrees by which the points are turned, clockwise where y points down; None where they are in one place.

    The weighted median of what the lines between points say, so that some of them may be wrong; long lines say it more
    precisely.
    """
    z0, z1 = (points @ (1, 1j) for points in (points0, points1))
    lines0, lines1 = (np.concatenate([z - np.roll(z, shift) for shift in _PARTNERS]) for z in (z0, z1))
    turned = lines1 * np.conj(lines0)
    if not turned.any():
        return None
    middle = np.angle(turned.sum())
    votes = np.angle(turned * np.exp(-1j * middle))
    order = np.argsort(votes)
    length = np.cumsum(np.abs(lines0)[order])
    median = votes[order][np.searchsorted(length, length[-1] / 2)]
    return float(np.degrees(np.angle(np.exp(1j * (middle + median)))))


def _verified(
    features0: LocalFeatures, features1: LocalFeatures, matches: Matches
) -> Bool[np.ndarray, " S"] | None:
    """Inliers of the first kind of model whose verdict is "one place"; None where no kind's is."""
    kinds: tuple[Kind, ...] = ("homography", "fundamental")
    for kind in kinds:
        found = verify_pair(None, None, features0, features1, matches, kind, FROM_FEATURES)
        if found.verdict.answer == "yes":
            return found.geometry.inliers
    return None


def _light_change(features0: LocalFeatures, features1: LocalFeatures, matches: Matches) -> float | None:
    """Of the rotation invariant kinds, because a tilt disturbs the others as light does.

    The weights do not tell: they favour the illumination invariant kinds under steady light, too.
    """
    ignores_light = kinds_invariant_to(ILLUMINATION, matches.invariances) or []
    ignores_turns = kinds_invariant_to(ROTATION, matches.invariances) or []
    kinds = [v for v, ignores in enumerate(ignores_turns) if ignores]
    steady, changing = ([v for v in kinds if ignores_light[v] is wanted] for wanted in (True, False))
    if not steady or not changing:
        return None
    index0, index1 = matches.matches.unbind(1)
    similarity = (features0.descriptors[0, index0] * features1.descriptors[0, index1]).sum(-1).mean(0)
    return float(similarity[steady].mean() - similarity[changing].mean())
