"""The direct formulations: what the formulas of the paper say, computed as they stand, in float32.

Every keypoint gets its own 1024 values per meta descriptor, and tensors of N x V x M are held whole.
Source: LISRD, section 3.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lisrd.coordinates import sample_map
from lisrd.describe.network import PyramidNetwork
from lisrd.describe.weights import Network
from lisrd.match.agreement import agreement_logits, distinct_shares
from lisrd.train.data.triplets import Triplets
from lisrd.train.losses import masked_mean
from lisrd.train.objective import TripletObjective, Views
from lisrd.types import LocalFeatures


def meta_at_keypoints(
    meta: Float[Tensor, "B V T T C"], xy: Float[Tensor, "B N 2"], width: float, height: float
) -> Float[Tensor, "B N V C"]:
    """Bilinear samples of the grid of tiles, normalised: one map of T x T pixels per invariance."""
    sampled = [sample_map(one.permute(0, 3, 1, 2), xy, width, height) for one in meta.unbind(1)]
    return F.normalize(torch.stack(sampled, dim=2), dim=-1)


@torch.no_grad()
def match_direct(features0: LocalFeatures, features1: LocalFeatures) -> Int[Tensor, "S 2"]:
    """Online selection at the keypoints as given, and mutual nearest neighbours."""
    selection = features0.selection
    meta0, meta1 = (
        meta_at_keypoints(f.meta_descriptors, f.keypoints, *f.image_size[0].tolist())[0]
        for f in (features0, features1)
    )
    logits = torch.einsum("nvc,mvc->nvm", meta0, meta1) / selection.temperature
    logits = logits + logits.new_tensor(selection.bias)[:, None]
    weights = logits.softmax(dim=1)
    similarity = torch.einsum("nvd,mvd->nvm", features0.descriptors[0], features1.descriptors[0])
    return mutual_argmax((weights * similarity).sum(1))


@torch.no_grad()
def match_plain(
    descriptors0: Float[Tensor, "N0 D"], descriptors1: Float[Tensor, "N1 D"]
) -> Int[Tensor, "S 2"]:
    """Mutual nearest neighbours of one descriptor per keypoint: the floor of all matching."""
    return mutual_argmax(descriptors0 @ descriptors1.T)


def mutual_argmax(similarity: Float[Tensor, "N0 N1"]) -> Int[Tensor, "S 2"]:
    nearest1, nearest0 = similarity.argmax(1), similarity.argmax(0)
    index0 = torch.arange(len(nearest1), device=nearest1.device)
    is_mutual = nearest0[nearest1] == index0
    return torch.stack([index0[is_mutual], nearest1[is_mutual]], dim=1)


def selection_weights_direct(
    network: PyramidNetwork,
    meta0: Float[Tensor, "B V T T C"],
    meta1: Float[Tensor, "B V T T C"],
    similarity: Float[Tensor, "B V N N"],
    triplets: Triplets,
) -> Float[Tensor, "B V N N"]:
    """`lisrd.train.objective.selection_weights` with a meta descriptor per keypoint."""
    height, width = triplets.images.shape[-2:]
    at0, at1 = (
        meta_at_keypoints(meta, xy, width, height)
        for meta, xy in zip((meta0, meta1), triplets.keypoints[:2], strict=True)
    )
    logits = torch.einsum("bnvc,bmvc->bvnm", at0, at1) * network.meta.log_sharpness.exp()
    present = triplets.mask.unsqueeze(1).expand(similarity.shape[:3])
    config = network.config
    shares = distinct_shares(similarity.detach().float(), present, present, config.agreement_ratio)
    bias = network.meta.bias + agreement_logits(shares, config.agreement_power)
    return (logits + bias[..., None, None]).softmax(dim=1)


class DirectObjective(TripletObjective):
    """The same losses from the similarities of every kind of every pair, held whole; those not asked for are masked.

    Keypoints carry 1024-d meta descriptors.
    """

    def _matching(
        self,
        descriptors0: Float[Tensor, "B N V D"],
        descriptors1: Float[Tensor, "B N V D"],
        ignored: Bool[Tensor, "B N N"],
        mask: Bool[Tensor, "B N"],
        chosen: Bool[Tensor, "B V"],
    ) -> Float[Tensor, ""]:
        similarity = descriptor_similarities(descriptors0, descriptors1)
        losses = [self._pair_loss(one, ignored) for one in similarity.unbind(1)]
        return masked_mean(torch.stack(losses, dim=1), mask[:, None] & chosen[:, :, None])

    def _selected(
        self, network: Network, views: Views, triplets: Triplets
    ) -> tuple[Float[Tensor, "B N N"], Float[Tensor, "B V N"]]:
        d0, d1, _ = views.descriptors
        similarity = descriptor_similarities(d0.detach(), d1.detach()).float()
        assert isinstance(network, PyramidNetwork)
        weights = selection_weights_direct(network, *views.meta, similarity, triplets)
        return (weights * similarity).sum(1), weights.diagonal(dim1=2, dim2=3)


def descriptor_similarities(
    descriptors0: Float[Tensor, "B N V D"], descriptors1: Float[Tensor, "B N V D"]
) -> Float[Tensor, "B V N N"]:
    """Of all kinds and pairs at once."""
    return torch.einsum("bnvd,bmvd->bvnm", descriptors0, descriptors1)
