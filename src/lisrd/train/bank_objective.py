"""What the selection of a bank minimises, and how it is validated. The members of the bank are frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lisrd.describe.selector import Selector
from lisrd.match.agreement import agreement_logits, distinct_shares
from lisrd.match.selection import (
    descriptor_similarity,
    invariance_weights,
    meta_factors,
    tile_weights,
    weighted_similarity,
)
from lisrd.train.bank_pairs import DescribedPairs
from lisrd.train.losses import (
    dual_softmax_loss,
    ignored_negatives,
    masked_mean,
    matching_score,
    triplet_loss,
)
from lisrd.train.validation import KINDS


@dataclass(frozen=True, slots=True)
class BankLossConfig:
    """The matching loss of the weighted similarity, and the cross entropy to the members that were right."""

    matching: str = "dual_softmax"  # or "triplet", the paper's
    matching_weight: float = 1.0  # the paper's is 10, with the triplet loss
    member_weight: float = 0.3  # of the cross entropy
    ignore_radius: float = 8.0  # px: closer keypoints are no negatives
    initial_sharpness: float = 20.0  # of the dual softmax; learned

    def __post_init__(self) -> None:
        if self.matching not in ("dual_softmax", "triplet"):
            raise ValueError(f"loss.matching is {self.matching!r}; it must be 'dual_softmax' or 'triplet'")


@dataclass(frozen=True)
class SelectedPairs:
    """The corresponding keypoints of described pairs under one selector."""

    selector: Selector
    pairs: DescribedPairs

    @cached_property
    def xy(self) -> tuple[Float[Tensor, "P S 2"], Float[Tensor, "P S 2"]]:
        """Where the corresponding keypoints are."""
        pairs = self.pairs
        return _rows(pairs.xy0, pairs.index0), _rows(pairs.xy1, pairs.index1)

    @cached_property
    def similarity(self) -> Float[Tensor, "P V S S"]:
        """Of every member, between all of the corresponding keypoints."""
        pairs = self.pairs
        d0, d1 = _rows(pairs.descriptors0, pairs.index0), _rows(pairs.descriptors1, pairs.index1)
        return descriptor_similarity(d0.float(), d1.float())

    @cached_property
    def weights(self) -> Float[Tensor, "P V S S"]:
        """What the selection gives each member; differentiable. All keypoints speak for their tiles."""
        pairs, selector, size = self.pairs, self.selector, self.pairs.image_size
        meta0 = selector(pairs.descriptors0.float(), pairs.xy0, pairs.mask0, size)
        meta1 = selector(pairs.descriptors1.float(), pairs.xy1, pairs.mask1, size)
        tiles0, tiles1 = (tile_weights(xy, size, selector.config.tiles_per_side, "nearest") for xy in self.xy)
        thin0, thin1 = meta_factors(meta0, meta1, tiles0, tiles1)
        bias = selector.meta.bias + agreement_logits(self.shares, selector.config.agreement_power)
        return invariance_weights(thin0, thin1, selector.meta.log_sharpness.exp(), bias)

    @property
    def shares(self) -> Float[Tensor, "P V"]:
        """How well each member alone explains the pairs."""
        present = self.pairs.corresponds.unsqueeze(1).expand(self.similarity.shape[:3])
        return distinct_shares(self.similarity, present, present, self.selector.config.agreement_ratio)


class BankObjective(nn.Module):
    """The loss of described pairs; holds the learned sharpness of the dual softmax."""

    def __init__(self, config: BankLossConfig) -> None:
        super().__init__()
        self.config = config
        learned = config.matching == "dual_softmax"
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(config.initial_sharpness)), learned)

    def forward(self, selector: Selector, pairs: DescribedPairs) -> dict[str, Float[Tensor, ""]]:
        """The parts of the loss by name; "loss" is their weighted sum."""
        config, selected = self.config, SelectedPairs(selector, pairs)
        parts = {"loss": selector.meta.bias.new_zeros(())}
        if config.matching_weight:
            parts["matching"] = self._matching(selected)
            parts["loss"] = parts["loss"] + config.matching_weight * parts["matching"]
        if config.member_weight:
            parts["member"] = member_cross_entropy(selected)
            parts["loss"] = parts["loss"] + config.member_weight * parts["member"]
        return parts

    def _matching(self, selected: SelectedPairs) -> Float[Tensor, ""]:
        mask = selected.pairs.corresponds
        weighted = weighted_similarity(selected.similarity, selected.weights)
        ignored = ignored_negatives(*selected.xy, mask, self.config.ignore_radius)
        if self.config.matching == "triplet":
            return masked_mean(triplet_loss(weighted, ignored), mask)
        return masked_mean(dual_softmax_loss(weighted, ignored, self.log_sharpness.exp()), mask)


def member_cross_entropy(selected: SelectedPairs) -> Float[Tensor, ""]:
    """-log of the weight of the members that match the keypoint rightly, where some do and some do not."""
    mask = selected.pairs.corresponds
    hidden = ~(mask[:, None, :, None] & mask[:, None, None, :])
    similarity = selected.similarity.masked_fill(hidden, -torch.inf)
    index = torch.arange(similarity.shape[-1], device=similarity.device)
    right = (similarity.argmax(3) == index) & (similarity.argmax(2) == index)  # (P, V, S)
    telling = right.any(1) & ~right.all(1) & mask
    weight = (selected.weights.diagonal(dim1=2, dim2=3) * right).sum(1)
    tiny = torch.finfo(weight.dtype).tiny
    return masked_mean(-weight.masked_fill(~telling, 1.0).clamp_min(tiny).log(), telling)


@torch.no_grad()
def validate_bank(selector: Selector, pairs: DescribedPairs) -> dict[str, dict[str, float]]:
    """Mean matching scores, per cent, by kind of pair: members, "oracle" (best per pair), "mean", "soft", "hard"."""
    kind = pairs.illumination_changed.long() + 2 * pairs.rotated.long()
    rows = [_scores(SelectedPairs(selector, pairs.choose(one))) for one in torch.arange(len(pairs)).split(4)]
    scores = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    return {
        KINDS[k]: {name: 100 * float(values[kind == k].mean()) for name, values in scores.items()}
        for k in range(len(KINDS))
        if (kind == k).any()
    }


def _scores(selected: SelectedPairs) -> dict[str, Float[Tensor, " P"]]:
    similarity, weights, mask = selected.similarity, selected.weights, selected.pairs.corresponds
    hard = torch.zeros_like(weights).scatter_(1, weights.argmax(1, keepdim=True), 1.0)
    names = selected.selector.config.invariances
    scores = {name: matching_score(similarity[:, v], mask) for v, name in enumerate(names)}
    scores["oracle"] = torch.stack(list(scores.values())).amax(0)
    scores["mean"] = matching_score(similarity.mean(1), mask)
    scores["soft"] = matching_score(weighted_similarity(similarity, weights), mask)
    scores["hard"] = matching_score(weighted_similarity(similarity, hard), mask)
    return scores


def _rows(values: Float[Tensor, "P N *rest"], index: Int[Tensor, "P S"]) -> Float[Tensor, "P S *rest"]:
    batch = torch.arange(len(values), device=values.device)[:, None]
    return values[batch, index]
