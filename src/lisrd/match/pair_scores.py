"""Similarities of chosen keypoint pairs, for whoever compares fewer than all of them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.match.policy import Policy
from lisrd.match.scorer import PairScorer
from lisrd.match.turn import read_turned
from lisrd.types import LocalFeatures

#: Pairs whose descriptors are gathered at a time: 32 MB of them.
_BLOCK = 8192


@torch.no_grad()
def score_pairs(
    features0: LocalFeatures,
    features1: LocalFeatures,
    pairs: Int[Tensor, "P 2"],
    policy: Policy = Policy(),
    turn: float = 0,
    evidence: Float[Tensor, " V"] | None = None,
) -> tuple[Float[Tensor, " P"], Float[Tensor, "P V"]]:
    """The similarity of each pair of keypoints as `lisrd.match` weighs it, and its invariances' weights.

    Features of one image each; `pairs` count as `Matches.matches` do; `turn` and `evidence` are those of the
    matches, and without the latter the pair is asked again.
    Raises InputError for an invariance in `policy` that the features do not have.
    """
    kinds = policy.kinds(features0.invariances)
    turned = read_turned(features1.select(0), turn)
    scorer = PairScorer.of(features0.select(0), turned, kinds, policy, evidence)
    blocks = [scorer.at(block) for block in pairs.split(_BLOCK)]
    scores, of_kinds = (torch.cat(parts) for parts in zip(*blocks, strict=True))
    weights = of_kinds.new_zeros(len(pairs), len(features0.invariances))
    weights[:, kinds] = of_kinds
    return scores, weights
