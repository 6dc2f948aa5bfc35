"""How well each invariance alone explains a pair of images: evidence for the selection from the pair as a whole.

A meta descriptor sees one region of one image. Whether a descriptor survived what happened between two images shows
in the pair: where it did, many keypoints are mutual nearest neighbours, and far nearer than the second; where it did
not, few are.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.match.selection import distance_of
from lisrd.types import LocalFeatures

#: Enough keypoints to compare invariances; the strongest ones are the most repeatable.
VOTERS = 1024

#: Added to the shares: ten matches of a thousand tell nothing yet.
_FEW = 0.01


def agreement(features0: LocalFeatures, features1: LocalFeatures, kinds: list[int]) -> Float[Tensor, " V"]:
    """Evidence for the invariances `kinds` from the strongest keypoints of a pair (batches of one), as logits.

    Zero descriptors, where a describer has none, do not count.
    """
    voters0, voters1 = (_of_voters(f, kinds).transpose(0, 1) for f in (features0, features1))
    selection = features0.selection
    shares = [  # one kind at a time: its similarities stay in the cache, which halves the time
        distinct_shares(one0 @ one1.T, one0.any(-1), one1.any(-1), selection.agreement_ratio)
        for one0, one1 in zip(voters0, voters1, strict=True)
    ]
    return agreement_logits(torch.stack(shares), selection.agreement_power)


def agreement_logits(shares: Float[Tensor, "*batch V"], power: float) -> Float[Tensor, "*batch V"]:
    """Logits that weigh invariances by their shares to the power of `power`: twice the share, 2^power the weight."""
    return power * (shares + _FEW).log()


def distinct_shares(
    similarity: Float[Tensor, "*batch V N0 N1"],
    present0: Bool[Tensor, "*batch V N0"],
    present1: Bool[Tensor, "*batch V N1"],
    ratio: float,
) -> Float[Tensor, "*batch V"]:
    """The share of present keypoints that are mutual nearest neighbours and distinct; the same for swapped images.

    Distinct: to either keypoint the other is nearer than `ratio` times the distance of the second nearest. Where
    light has left few true matches, most mutual neighbours are there by chance, as many for one invariance as for
    another; chance has no distance to the second. `similarity` is written to meanwhile, and left as it was.
    """
    if not min(similarity.shape[-2:]):
        return similarity.new_zeros(similarity.shape[:-2])
    if not (present0.all() and present1.all()):
        # Absent ones become minus infinity by sums: a quarter of the time of filling by a mask.
        rows, columns = (torch.where(p, 0.0, -math.inf).to(similarity.dtype) for p in (present0, present1))
        similarity = (similarity + rows.unsqueeze(-1)).add_(columns.unsqueeze(-2))
    best1, index1 = similarity.max(-1)
    best0 = similarity.amax(-2)  # their indices are not needed, and an argmax down the columns is slow
    is_mutual = (best1 == best0.gather(-1, index1)) & present0 & present1.gather(-1, index1)
    # Of equal rows that choose one column the first is its neighbour, and the others make it indistinct: as it is where
    # equal columns are chosen by one row.
    N0 = similarity.shape[-2]
    row = torch.arange(N0, device=similarity.device).expand_as(index1)
    first = torch.full_like(best0, N0, dtype=torch.long)
    first.scatter_reduce_(-1, index1, torch.where(is_mutual, row, N0), "amin")
    is_mutual &= first.gather(-1, index1) == row
    # With the mutual ones hidden, the best of their rows and columns are the second best. They are hidden in place, for
    # a copy takes longer than all else here, and put back.
    place = index1.unsqueeze(-1)
    similarity.scatter_(-1, place, torch.where(is_mutual, -math.inf, best1).unsqueeze(-1))
    second = torch.maximum(similarity.amax(-1), similarity.amax(-2).gather(-1, index1))
    similarity.scatter_(-1, place, best1.unsqueeze(-1))
    is_distinct = is_mutual & (distance_of(best1) < ratio * distance_of(second))
    count = present0.sum(-1) + present1.sum(-1)
    return 2 * is_distinct.sum(-1) / count.clamp_min(1).to(similarity.dtype)


def _of_voters(features: LocalFeatures, kinds: list[int]) -> Float[Tensor, "N V D"]:
    voters = features.keypoint_scores[0].topk(min(VOTERS, features.keypoints.shape[1])).indices
    return features.descriptors[0, voters][:, kinds].float()
