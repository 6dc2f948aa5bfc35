"""Validation that explains: what each descriptor reaches alone, and what choosing among them gives.

Four kinds of pairs: nothing changed, rotation, light, both. Scores are matching scores (share of the keypoints whose
mutual nearest neighbour is the true one), in per cent.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.describe.weights import Network
from lisrd.match.selection import descriptor_similarity, weighted_similarity
from lisrd.train.data.triplets import Triplets
from lisrd.train.losses import matching_score
from lisrd.train.objective import read_views, selection_weights
from lisrd.types import Keypoints

KINDS = ("nothing", "light", "rotation", "both")


@torch.no_grad()
def validate(
    network: Network, batches: Iterable[Triplets], precision: torch.dtype = torch.float32
) -> dict[str, dict[str, float]]:
    """Mean scores by kind of pair: each invariance, "mean", "soft" and "hard" selection, "oracle" (best per pair)."""
    was_training = network.training
    network.eval()
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for triplets in batches:
        device = triplets.images.device.type
        with torch.autocast(device, dtype=precision, enabled=precision != torch.float32):
            for index, scores in enumerate(_scores(network, triplets)):
                rows[kind_of(triplets, index)].append(scores)
    network.train(was_training)
    return {
        kind: {name: 100 * sum(s[name] for s in scores) / len(scores) for name in scores[0]}
        for kind, scores in rows.items()
        if scores
    }


def kind_of(triplets: Triplets, index: int) -> str:
    """What changed between images 0 and 1."""
    return KINDS[bool(triplets.illumination_changed[index]) + 2 * bool(triplets.rotated[index])]


def _scores(network: Network, triplets: Triplets) -> list[dict[str, float]]:
    turn = choose_turns(network, triplets)
    views = read_views(network, triplets, turn, triplets.angle)
    similarity = descriptor_similarity(views.descriptors[0], views.descriptors[1])
    weights = selection_weights(network, views.meta[0], views.meta[1], similarity, triplets)
    hard = torch.zeros_like(weights).scatter_(1, weights.argmax(1, keepdim=True), 1.0)
    names = [kind.name for kind in network.invariances]
    scores = {name: matching_score(similarity[:, v], triplets.mask) for v, name in enumerate(names)}
    scores["oracle"] = torch.stack(list(scores.values())).amax(0)
    scores["mean"] = matching_score(similarity.mean(1), triplets.mask)
    scores["soft"] = matching_score(weighted_similarity(similarity, weights), triplets.mask)
    scores["hard"] = matching_score(weighted_similarity(similarity, hard), triplets.mask)
    return [{name: float(values[i]) for name, values in scores.items()} for i in range(len(turn))]


def choose_turns(network: Network, triplets: Triplets) -> Int[Tensor, " B"]:
    """The turn with the highest mean best similarity of the variant descriptors, as the matcher chooses it."""
    count = triplets.images.shape[1]
    turnable = network.selection.rotation_variant
    if turnable is None:
        return torch.zeros(count, dtype=torch.long, device=triplets.images.device)
    variant = [v for v, is_variant in enumerate(turnable) if is_variant]
    field0, field1 = (network(images) for images in triplets.images[:2])
    keypoints0, keypoints1 = (Keypoints.from_xy(xy) for xy in triplets.keypoints[:2])
    upright = field0.at(keypoints0)[:, :, variant]
    turned = [field1.at(keypoints1, t)[:, :, variant] for t in range(network.num_turns)]
    return torch.stack([_agreement(upright, d, triplets.mask) for d in turned]).argmax(0)


def _agreement(
    d0: Float[Tensor, "B N V D"], d1: Float[Tensor, "B N V D"], mask: Tensor
) -> Float[Tensor, " B"]:
    best = descriptor_similarity(d0, d1).mean(1).amax(-1)
    return (best * mask).sum(1) / mask.sum(1).clamp_min(1)
