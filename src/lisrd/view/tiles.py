"""Which invariance each region of an image used: the mean of the matches' weights in every tile."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.describe.selector import tile_of
from lisrd.types import LocalFeatures, Matches


def tile_weights_of(
    features: LocalFeatures, indices: Int[Tensor, " S"], matches: Matches
) -> Float[Tensor, "V T T"]:
    """Mean invariance weights of the matches in each tile of one image; NaN where a tile has none.

    `indices` are the matches' keypoints in this image: a column of `matches.matches`.
    """
    T = features.meta_descriptors.shape[-2]
    tiles = tile_of(features.keypoints[:1, indices].float(), features.image_size[:1].float(), T)[0]
    weights = matches.invariance_weights.double()
    sums = weights.new_zeros(T * T, weights.shape[1]).index_add_(0, tiles, weights)
    counts = torch.bincount(tiles, minlength=T * T).unsqueeze(1)
    return (sums / counts).T.unflatten(1, (T, T)).cpu()  # 0 / 0 is the NaN


def chosen_invariances(matches: Matches) -> Int[Tensor, " S"]:
    """The invariance of the highest weight of each match."""
    return matches.invariance_weights.argmax(dim=1).cpu()
