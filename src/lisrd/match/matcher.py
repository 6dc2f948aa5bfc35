"""Matching two images: choose the turn, select the invariance for every keypoint pair, find mutual neighbours.

Work is done in tiles that stay in the cache, so that memory grows with N0 + N1, never with N0 x N1 x V.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.errors import InputError
from lisrd.match.nearest import mutual
from lisrd.match.policy import Policy
from lisrd.match.scorer import PairScorer
from lisrd.match.selection import distance_of
from lisrd.match.turn import choose_turn, read_turned
from lisrd.types import LocalFeatures, Matches

#: Of values of unit vectors, with room for rounding; of pixels, whose products stay finite in float32.
_LARGEST = {
    "keypoints": 1e6,
    "descriptors": 2.0,
    "meta_descriptors": 2.0,
    "turned_descriptors": 2.0,
    "turned_meta_descriptors": 2.0,
}


@torch.no_grad()
def match(features0: LocalFeatures, features1: LocalFeatures, policy: Policy = Policy()) -> Matches:
    """Matches of one pair of images (batches of one), each with the weights of its invariances.

    Raises:
        InputError: the features hold several images, come from different describers, hold values that are not finite or
            descriptors that are no unit vectors, or the policy names an invariance that they do not have.
    """
    for suffix, features in enumerate((features0, features1)):
        if len(features) != 1:
            raise InputError(
                f"features{suffix} hold {len(features)} images; match one pair, or use match_batch"
            )
    _check_alike(features0, features1)
    # Without padding there is nothing to remove, and a copy would cost more than choosing the turn.
    features0, features1 = (f if f.mask.all() else f.select(0) for f in (features0, features1))
    for suffix, features in enumerate((features0, features1)):
        _check_values(features, suffix)
    kinds = policy.kinds(features0.invariances)
    turn = choose_turn(features0, features1, kinds, policy)
    scorer = PairScorer.of(features0, read_turned(features1, turn), kinds, policy)
    nearest = scorer.nearest(need_second=policy.ratio is not None)
    pairs = _filtered(mutual(nearest), nearest.best1, nearest.best0, policy)
    pairs = pairs.to(features0.keypoints.device)
    scores, weights = scorer.at(pairs)
    full_weights = weights.new_zeros(len(pairs), len(features0.invariances))
    full_weights[:, kinds] = weights
    return Matches(
        pairs, scores, full_weights, scorer.counts, features0.invariances, turn, evidence=scorer.evidence
    )


def match_batch(
    features0: LocalFeatures,
    features1: LocalFeatures,
    policy: Policy = Policy(),
) -> list[Matches]:
    """Image i of one ragged batch against image i of the other; padding takes no part."""
    if len(features0) != len(features1):
        raise InputError(f"{len(features0)} images on one side and {len(features1)} on the other; pair them")
    return [match(features0.select(i), features1.select(i), policy) for i in range(len(features0))]


def _check_alike(features0: LocalFeatures, features1: LocalFeatures) -> None:
    if features0.invariances != features1.invariances:
        raise InputError(
            f"features of different describers: {', '.join(features0.invariances)} against "
            f"{', '.join(features1.invariances)}; describe both images with one"
        )
    for name in ("descriptors", "meta_descriptors"):
        shapes = [tuple(getattr(f, name).shape[-2:]) for f in (features0, features1)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{name} differ in size, {shapes[0]} and {shapes[1]}; describe both images with one"
            )


def _check_values(features: LocalFeatures, suffix: int) -> None:
    """One descriptor that is not finite, or too long, would take the maxima of all keypoints."""
    shares = {  # of what is allowed, NaN where there is one; they take no memory
        name: torch.stack(values.aminmax()).abs().amax().float() / largest
        for name, largest in _LARGEST.items()
        if (values := getattr(features, name)) is not None and values.numel()
    }
    if not shares or torch.stack([*shares.values()]).amax() < 1:  # asks a GPU once
        return
    broken = next(name for name, share in shares.items() if not share < 1)
    if shares[broken].isfinite() and broken != "keypoints":
        raise InputError(f"features{suffix} hold {broken} that are no unit vectors; divide by their lengths")
    raise InputError(f"features{suffix} hold NaN or infinite {broken}; describe the image again")


def _filtered(
    pairs: Int[Tensor, "S 2"], best1: Float[Tensor, "N0 K"], best0: Float[Tensor, "N1 K"], policy: Policy
) -> Int[Tensor, "kept 2"]:
    """Lowe's ratio in both directions and the floor of similarity."""
    keep = torch.ones(len(pairs), dtype=torch.bool, device=pairs.device)
    if policy.ratio is not None:
        for best in (best1[pairs[:, 0]], best0[pairs[:, 1]]):
            distance = distance_of(best)
            keep &= distance[:, 0] < policy.ratio * distance[:, 1]
    if policy.min_similarity is not None:
        keep &= best1[pairs[:, 0], 0] >= policy.min_similarity
    return pairs[keep]
