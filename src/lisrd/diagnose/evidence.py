"""What one pair of images says: which weights won, by which angle the images differ, whether the light changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from lisrd.invariance import ILLUMINATION, Factor, invariances
from lisrd.match.turn import read_turned
from lisrd.types import LocalFeatures, Matches
from lisrd.verify import Geometry, estimate, same_place


@dataclass(frozen=True, slots=True)
class PairEvidence:
    """Facts of the matches that one model verified; without it, `angle` and `light_change` are None.

    `weights` are the mean weights of the invariances over the verified matches (over all matches without a model).
    `angle` (degrees, clockwise on the screen) is how far image 1 shows the content turned. `light_change` is by how
    much more similar the illumination invariant descriptors of the matches are than the illumination variant ones; None
    too where the describer has no such kinds.
    """

    names: tuple[str, str]
    matches: int
    inliers: int
    verified: bool
    turn: int
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
    geometry, verified = _verified(points0, points1, matches)
    inliers = np.asarray(geometry.inliers) if verified else np.ones(len(matches), dtype=bool)
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
    """Degrees by which the points are turned about their middle, clockwise where y points down.

    A weighted median of what each point says, so that half of them may be wrong; far points say it more precisely. None
    for fewer than two places.
    """
    arms0, arms1 = ((p - np.median(p, axis=0)) @ (1, 1j) for p in (points0, points1))
    turned = arms1 * np.conj(arms0)
    if not np.abs(turned).sum():
        return None
    middle = np.angle(turned.sum())
    votes = np.angle(turned * np.exp(-1j * middle))
    order = np.argsort(votes)
    lever = np.cumsum(np.abs(arms0)[order])
    median = votes[order][np.searchsorted(lever, lever[-1] / 2)]
    return float(np.degrees(np.angle(np.exp(1j * (middle + median)))))


def _verified(
    points0: Float[np.ndarray, "S 2"], points1: Float[np.ndarray, "S 2"], matches: Matches
) -> tuple[Geometry, bool]:
    """The first kind of model that says "one place"; the last one tried where none does."""
    for kind in ("homography", "fundamental"):
        geometry = estimate(points0, points1, kind, scores=matches.scores)
        if same_place(geometry, points0, points1).answer == "yes":
            return geometry, True
    return geometry, False


def _light_change(features0: LocalFeatures, features1: LocalFeatures, matches: Matches) -> float | None:
    """The weights do not tell: they favour the illumination invariant kinds under steady light, too."""
    invariant = kinds_invariant_to(ILLUMINATION, matches.invariances)
    if invariant is None or all(invariant) or not any(invariant):
        return None
    index0, index1 = matches.matches.unbind(1)
    turned1 = read_turned(features1, matches.turn)
    similarity = (features0.descriptors[0, index0] * turned1.descriptors[0, index1]).sum(-1).mean(0)
    ignores_light = torch.tensor(invariant, device=similarity.device)
    return float(similarity[ignores_light].mean() - similarity[~ignores_light].mean())
