"""Octaves: at which size is each image read before the turn and the invariance are selected.

A describer bears a change of scale up to some factor (about 1.5 for `pyramid`). Beyond it, the image that shows
things larger is read at half or at a quarter of its size. Which octaves fit shows in the pair, as the turn does,
but in other evidence: a zoomed image shows a small part of the other one, so that most keypoints have no partner,
and those find mutual neighbours by chance at any octave. Distinct matches, whose second nearest neighbours are
farther by Lowe's ratio, are hardly ever made by chance; the octaves with most of them are chosen (docs/scale.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lisrd.errors import InputError
from lisrd.match.agreement import VOTERS
from lisrd.match.matcher import match
from lisrd.match.policy import Policy
from lisrd.types import LocalFeatures, Matches

#: Distances to the nearest and the second nearest neighbour, both ways, of a match that counts.
DISTINCT = 0.8


def octave_pairs(count0: int, count1: int) -> list[tuple[int, int]]:
    """What is tried for images of so many octaves: one of them at full size, the other at any; full sizes first.

    Only the difference of the octaves changes the relative scale, and full size shows most.

    >>> octave_pairs(3, 2)
    [(0, 0), (1, 0), (0, 1), (2, 0)]
    """
    if not (count0 and count1):
        raise InputError(
            f"{count0} octaves of image 0 and {count1} of image 1; describe at least the full size"
        )
    tried = [(0, 0)]
    for octave in range(1, max(count0, count1)):
        tried += [(octave, 0)] * (octave < count0) + [(0, octave)] * (octave < count1)
    return tried


def choose_octaves(
    octaves0: Sequence[LocalFeatures], octaves1: Sequence[LocalFeatures], policy: Policy = Policy()
) -> tuple[int, int]:
    """The octaves of image 0 and of image 1 with most distinct matches; full size where no other has more.

    `octaves0[k]` are the features of the same keypoints at 1 / 2^k of the size, see `lisrd.describe.octaves`. Swapping
    the images swaps the octaves, unless several have as many matches: then the first of `octave_pairs` stays. Raises
    InputError where an image has no octave, and as `match` does.
    """
    tried = octave_pairs(len(octaves0), len(octaves1))
    if len(tried) == 1:
        return tried[0]
    voters0, voters1 = ([_strongest(f) for f in octaves] for octaves in (octaves0, octaves1))
    distinct = replace(policy, ratio=min(DISTINCT, policy.ratio or 1.0))
    counts = {(k0, k1): len(match(voters0[k0], voters1[k1], distinct)) for k0, k1 in tried}
    return max(tried, key=counts.__getitem__)


def match_octaves(
    octaves0: Sequence[LocalFeatures], octaves1: Sequence[LocalFeatures], policy: Policy = Policy()
) -> Matches:
    """`match` of the octaves that fit; the result's `octaves` say which. Raises InputError as `choose_octaves`."""
    chosen = choose_octaves(octaves0, octaves1, policy)
    matches = match(octaves0[chosen[0]], octaves1[chosen[1]], policy)
    return replace(matches, octaves=chosen)


def _strongest(features: LocalFeatures) -> LocalFeatures:
    """The keypoints that vote, in their order."""
    if len(features) != 1:
        raise InputError(f"features hold {len(features)} images; choose the octaves of one pair at a time")
    scores = features.keypoint_scores[0].masked_fill(~features.mask[0], -torch.inf)
    voting = torch.zeros_like(features.mask)
    voting[0, scores.topk(min(VOTERS, int(features.mask.sum()))).indices] = True
    return replace(features, mask=voting).select(0)
