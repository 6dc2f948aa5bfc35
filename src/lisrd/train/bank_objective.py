"""What the selection of a bank minimises, and how it is validated. The members of the bank are frozen."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lisrd.describe.bank import Bank
from lisrd.describe.selector import Selector
from lisrd.detect import Detector
from lisrd.match.selection import (
    descriptor_similarity,
    invariance_weights,
    meta_factors,
    tile_weights,
    weighted_similarity,
)
from lisrd.train.bank_pairs import Corresponding, Described, describe_pairs, rows
from lisrd.train.data.triplets import Triplets
from lisrd.train.losses import (
    dual_softmax_loss,
    ignored_negatives,
    masked_mean,
    matching_score,
    triplet_loss,
)
from lisrd.train.validation import KINDS, kind_of


@dataclass(frozen=True, slots=True)
class BankLossConfig:
    """The matching loss of the weighted similarity, and the cross entropy to the members that were right."""

    matching: str = "dual_softmax"  # or "triplet", the paper's
    matching_weight: float = 1.0  # the paper's is 10, with the triplet loss
    member_weight: float = 0.0  # of the cross entropy
    correct_radius: float = 3.0  # px: mutual nearest keypoints within it correspond
    ignore_radius: float = 8.0  # px: closer keypoints are no negatives
    initial_sharpness: float = 20.0  # of the dual softmax; learned

    def __post_init__(self) -> None:
        if self.matching not in ("dual_softmax", "triplet"):
            raise ValueError(f"loss.matching is {self.matching!r}; it must be 'dual_softmax' or 'triplet'")


@dataclass(frozen=True)
class SelectedPairs:
    """The corresponding keypoints of a batch of pairs, under one selector."""

    selector: Selector
    side0: Described
    side1: Described
    correspondences: Corresponding

    @property
    def mask(self) -> Bool[Tensor, "B S"]:
        return self.correspondences.mask

    @cached_property
    def xy(self) -> tuple[Float[Tensor, "B S 2"], Float[Tensor, "B S 2"]]:
        """Where the corresponding keypoints are."""
        index = self.correspondences
        return rows(self.side0.keypoints.xy, index.index0), rows(self.side1.keypoints.xy, index.index1)

    @cached_property
    def similarity(self) -> Float[Tensor, "B V S S"]:
        """Of every member."""
        index = self.correspondences
        d0, d1 = rows(self.side0.descriptors, index.index0), rows(self.side1.descriptors, index.index1)
        return descriptor_similarity(d0, d1)

    @cached_property
    def weights(self) -> Float[Tensor, "B V S S"]:
        """What the selection gives each member; differentiable. All keypoints speak for their tiles."""
        selector, sides = self.selector, (self.side0, self.side1)
        meta = [selector(s.descriptors, s.keypoints.xy, s.keypoints.mask, s.image_size) for s in sides]
        tiles = [
            tile_weights(xy, side.image_size, selector.config.tiles_per_side, "nearest")
            for xy, side in zip(self.xy, sides, strict=True)
        ]
        thin0, thin1 = meta_factors(*meta, *tiles)
        return invariance_weights(thin0, thin1, selector.meta.log_sharpness.exp(), selector.meta.bias)


class BankObjective(nn.Module):
    """The loss of a batch of triplets; holds the learned sharpness of the dual softmax."""

    def __init__(self, config: BankLossConfig, bank: Bank, detector: Detector, max_keypoints: int) -> None:
        super().__init__()
        self.config = config
        self.bank, self.detector, self.max_keypoints = bank, detector, max_keypoints
        learned = config.matching == "dual_softmax"
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(config.initial_sharpness)), requires_grad=learned)

    def pairs(self, selector: Selector, triplets: Triplets) -> SelectedPairs:
        """Images 0 and 1 of the triplets."""
        radius = self.config.correct_radius
        return SelectedPairs(
            selector, *describe_pairs(self.bank, self.detector, triplets, self.max_keypoints, radius)
        )

    def forward(
        self, selector: Selector, triplets: Triplets, taught: None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """The parts of the loss by name; "loss" is their weighted sum. A bank has no teacher."""
        config, pairs = self.config, self.pairs(selector, triplets)
        parts = {}
        if config.matching_weight:
            parts["matching"] = self._matching(pairs)
        if config.member_weight:
            parts["member"] = member_cross_entropy(pairs)
        parts["loss"] = config.matching_weight * parts.get("matching", 0) + config.member_weight * parts.get(
            "member", 0
        )
        return parts

    def _matching(self, pairs: SelectedPairs) -> Float[Tensor, ""]:
        weighted = weighted_similarity(pairs.similarity, pairs.weights)
        ignored = ignored_negatives(*pairs.xy, pairs.mask, self.config.ignore_radius)
        if self.config.matching == "triplet":
            return masked_mean(triplet_loss(weighted, ignored), pairs.mask)
        return masked_mean(dual_softmax_loss(weighted, ignored, self.log_sharpness.exp()), pairs.mask)


def member_cross_entropy(pairs: SelectedPairs) -> Float[Tensor, ""]:
    """-log of the weight of the members that match the keypoint rightly, where some do and some do not."""
    hidden = ~(pairs.mask[:, None, :, None] & pairs.mask[:, None, None, :])
    similarity = pairs.similarity.masked_fill(hidden, -torch.inf)
    index = torch.arange(similarity.shape[-1], device=similarity.device)
    right = (similarity.argmax(3) == index) & (similarity.argmax(2) == index)  # (B, V, S)
    telling = right.any(1) & ~right.all(1) & pairs.mask
    weight = (pairs.weights.diagonal(dim1=2, dim2=3) * right).sum(1)
    tiny = torch.finfo(weight.dtype).tiny
    return masked_mean(-weight.clamp_min(tiny).log() * telling, telling)


@torch.no_grad()
def validate_bank(
    objective: BankObjective, selector: Selector, batches: Iterable[Triplets]
) -> dict[str, dict[str, float]]:
    """Mean matching scores, per cent, by kind of pair: each member, "oracle" (best per pair), "mean", "soft", "hard"."""
    scores: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for triplets in batches:
        for index, one in enumerate(_scores(objective.pairs(selector, triplets))):
            scores[kind_of(triplets, index)].append(one)
    return {
        kind: {name: 100 * sum(one[name] for one in found) / len(found) for name in found[0]}
        for kind, found in scores.items()
        if found
    }


def _scores(pairs: SelectedPairs) -> list[dict[str, float]]:
    similarity, weights = pairs.similarity, pairs.weights
    hard = torch.zeros_like(weights).scatter_(1, weights.argmax(1, keepdim=True), 1.0)
    names = pairs.selector.config.invariances
    scores = {name: matching_score(similarity[:, v], pairs.mask) for v, name in enumerate(names)}
    scores["oracle"] = torch.stack(list(scores.values())).amax(0)
    scores["mean"] = matching_score(similarity.mean(1), pairs.mask)
    scores["soft"] = matching_score(weighted_similarity(similarity, weights), pairs.mask)
    scores["hard"] = matching_score(weighted_similarity(similarity, hard), pairs.mask)
    return [{name: float(values[i]) for name, values in scores.items()} for i in range(len(similarity))]
