"""How well each invariance alone explains a pair of images: evidence for the selection from the pair as a whole.

A meta descriptor sees one region of one image. Whether a descriptor survived what happened between two images shows
in the pair: where it did, many keypoints are mutual nearest neighbours; where it did not, few more than by chance.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.match.selection import descriptor_similarity
from lisrd.types import LocalFeatures

#: Enough keypoints to compare invariances; the strongest ones are the most repeatable.
VOTERS = 1024


def agreement(features0: LocalFeatures, features1: LocalFeatures, kinds: list[int]) -> Float[Tensor, " V"]:
    """`mutual_shares` of the invariances `kinds` among the strongest keypoints of a pair (batches of one).

    Zero descriptors, where a describer has none, do not count.
    """
    descriptors0, descriptors1 = (_of_voters(f, kinds) for f in (features0, features1))
    similarity = descriptor_similarity(descriptors0, descriptors1)
    return mutual_shares(similarity, descriptors0.any(-1).T, descriptors1.any(-1).T)


def mutual_shares(
    similarity: Float[Tensor, "*batch V N0 N1"],
    present0: Bool[Tensor, "*batch V N0"],
    present1: Bool[Tensor, "*batch V N1"],
) -> Float[Tensor, "*batch V"]:
    """The share of present keypoints that are mutual nearest neighbours; the same for swapped images, 0 for none."""
    if not min(similarity.shape[-2:]):
        return similarity.new_zeros(similarity.shape[:-2])
    if not (present0.all() and present1.all()):
        absent = ~(present0.unsqueeze(-1) & present1.unsqueeze(-2))
        similarity = similarity.masked_fill(absent, -math.inf)
    best1, index1 = similarity.max(-1)
    best0 = similarity.amax(-2)  # their indices are not needed, and an argmax down the columns is slow
    is_mutual = (best1 == best0.gather(-1, index1)) & present0
    chosen = torch.zeros_like(present1, dtype=torch.int).scatter_add_(-1, index1, is_mutual.int())
    count = present0.sum(-1) + present1.sum(-1)
    shared = ((chosen > 0) & present1).sum(-1)  # equal rows that chose one column are one
    return 2 * shared / count.clamp_min(1).to(similarity.dtype)


def _of_voters(features: LocalFeatures, kinds: list[int]) -> Float[Tensor, "N V D"]:
    voters = features.keypoint_scores[0].topk(min(VOTERS, features.keypoints.shape[1])).indices
    return features.descriptors[0, voters][:, kinds].float()
