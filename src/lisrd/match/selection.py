"""Online invariance selection: similarities of meta descriptors become weights of descriptor similarities.

    w_v(i, j) = softmax_v( m_v(i) . m_v(j) / temperature + bias_v )
    s(i, j)   = sum_v w_v(i, j) * d_v(i) . d_v(j)

m_v(i) is the bilinear mix of the tiles' meta descriptors at keypoint i, normalised. The mix is linear, so with W0
(N0 x 9) the tile weights of the keypoints and M0, M1 (9 x C) the tiles' meta descriptors, all N0 x N1 similarities
of one kind are W0 (M0 M1^T) W1^T, over norms that come from W (M M^T) W^T: 9 numbers per keypoint instead of C, with
the same result. Source: LISRD, section 3.3, equations 4 and 5; the factorisation is ours.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.types import TileSampling


def tile_weights(
    xy: Float[Tensor, "B N 2"],
    image_size: Float[Tensor, "B 2"],
    tiles_per_side: int,
    sampling: TileSampling = "bilinear",
) -> Float[Tensor, "B N tiles"]:
    """How much each tile counts at each keypoint; rows sum to 1 (but at the border under "reference")."""
    T = tiles_per_side
    origin = 0.0 if sampling == "reference" else 0.5
    place = (xy + origin) / image_size[:, None] * T - 0.5  # in tiles, 0 is the centre of the first
    if sampling == "nearest":
        own = (place + 0.5).floor().clamp(0, T - 1).long()  # as `lisrd.describe.selector.tile_of` counts
        return torch.nn.functional.one_hot(own[..., 1] * T + own[..., 0], T * T).to(xy.dtype)
    if sampling == "bilinear":
        place = place.clamp(0, T - 1)  # beyond the centres of the border tiles the border is repeated
    centres = torch.arange(T, device=xy.device, dtype=xy.dtype)
    along = (1 - (place[..., None] - centres).abs()).clamp_min(0)  # (B, N, 2, T): the bilinear tent
    return (along[:, :, 1, :, None] * along[:, :, 0, None, :]).flatten(2)


def meta_factors(
    meta0: Float[Tensor, "B V T T C"],
    meta1: Float[Tensor, "B V T T C"],
    weights0: Float[Tensor, "B N0 tiles"],
    weights1: Float[Tensor, "B N1 tiles"],
) -> tuple[Float[Tensor, "B V N0 tiles"], Float[Tensor, "B V N1 tiles"]]:
    """Two thin matrices per invariance whose product is the similarity of the meta descriptors, N0 x N1."""
    tiles0, tiles1 = meta0.flatten(2, 3), meta1.flatten(2, 3)
    cross = tiles0 @ tiles1.transpose(-1, -2)
    thin0 = weights0.unsqueeze(1) @ cross / _norms(tiles0, weights0)
    thin1 = weights1.unsqueeze(1) / _norms(tiles1, weights1)
    return thin0, thin1


def _norms(tiles: Float[Tensor, "B V K C"], weights: Float[Tensor, "B N K"]) -> Float[Tensor, "B V N 1"]:
    gram = tiles @ tiles.transpose(-1, -2)
    squared = ((weights.unsqueeze(1) @ gram) * weights.unsqueeze(1)).sum(-1, keepdim=True)
    return squared.clamp_min(1e-12).sqrt()  # no descriptors in any tile around: similarity 0


def invariance_weights(
    thin0: Float[Tensor, "*batch V N0 K"],
    thin1: Float[Tensor, "*batch V N1 K"],
    sharpness: float | Tensor,
    bias: Float[Tensor, "*batch V"],
) -> Float[Tensor, "*batch V N0 N1"]:
    """Softmax over the invariances; `sharpness` is 1 / temperature, `bias` is one for all pairs or each pair's own."""
    logits = (thin0 * sharpness) @ thin1.transpose(-1, -2) + bias[..., None, None]
    return logits.softmax(dim=-3)


def descriptor_similarity(
    descriptors0: Float[Tensor, "*batch N0 V D"], descriptors1: Float[Tensor, "*batch N1 V D"]
) -> Float[Tensor, "*batch V N0 N1"]:
    """Dot products of each invariance."""
    return descriptors0.transpose(-3, -2) @ descriptors1.transpose(-3, -2).transpose(-1, -2)


def distance_of(similarity: Tensor) -> Tensor:
    """The Euclidean distance of unit vectors with this dot product."""
    return (2 - 2 * similarity).clamp_min(0).sqrt()


def weighted_similarity(
    similarity: Float[Tensor, "*batch V N0 N1"], weights: Float[Tensor, "*batch V N0 N1"]
) -> Float[Tensor, "*batch N0 N1"]:
    """The sum over the invariances."""
    return (similarity * weights).sum(dim=-3)
