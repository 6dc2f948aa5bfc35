"""Matching two images: choose the turn, select the invariance for every keypoint pair, find mutual neighbours.

Work is done in tiles that stay in the cache, so that memory grows with N0 + N1, never with N0 x N1 x V.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.errors import InputError
from lisrd.match import fused
from lisrd.match.agreement import agreement
from lisrd.match.gpu import nearest_on_gpu
from lisrd.match.nearest import Nearest, mutual, nearest_in_tiles
from lisrd.match.passes import choose_pass
from lisrd.match.policy import Policy
from lisrd.match.selection import meta_factors, tile_weights
from lisrd.match.turn import choose_turn, read_turned
from lisrd.types import LocalFeatures, Matches

#: Side of a tile, by device: two float32 tiles of four invariances are 2 MB, about a core's own cache. On a GPU the
#: launches count, not the cache.
_TILE = {"cpu": 256, "cuda": 2048}
#: The exponent of two that the weights may reach: float32 ends at 128, and four of them are summed.
_TOP = 100.0
#: Below this exponent the weights of float32 would vanish.
_BOTTOM = -120.0

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@torch.no_grad()
def match(features0: LocalFeatures, features1: LocalFeatures, policy: Policy = Policy()) -> Matches:
    """Matches of one pair of images (batches of one), each with the weights of its invariances.

    Raises:
        InputError: the features hold several images, or come from different describers, or the policy names an
            invariance that they do not have.
    """
    for suffix, features in enumerate((features0, features1)):
        if len(features) != 1:
            raise InputError(
                f"features{suffix} hold {len(features)} images; match one pair, or use match_batch"
            )
    _check_alike(features0, features1)
    # Without padding there is nothing to remove, and a copy would cost more than choosing the turn.
    features0, features1 = (f if f.mask.all() else f.select(0) for f in (features0, features1))
    kinds = policy.kinds(features0.invariances)
    turn = choose_turn(features0, features1, kinds, policy)
    scorer = _Scorer.of(features0, read_turned(features1, turn), kinds, policy)
    nearest = scorer.nearest(need_second=policy.ratio is not None)
    pairs = mutual(nearest).to(features0.keypoints.device)
    pairs = _filtered(pairs, nearest.best1, nearest.best0, policy)
    scores, weights = scorer.at(pairs)
    if not bool(scores.isfinite().all()):
        raise InputError("features hold NaN or infinite descriptors; describe the images again")
    full_weights = weights.new_zeros(len(pairs), len(features0.invariances))
    full_weights[:, kinds] = weights
    return Matches(pairs, scores, full_weights, scorer.counts, features0.invariances, turn)


def match_batch(
    features0: LocalFeatures,
    features1: LocalFeatures,
    policy: Policy = Policy(),
) -> list[Matches]:
    """Image i of one ragged batch against image i of the other; padding takes no part."""
    if len(features0) != len(features1):
        raise InputError(f"{len(features0)} images on one side and {len(features1)} on the other; pair them")
    return [match(features0.select(i), features1.select(i), policy) for i in range(len(features0))]


def _check_alike(features0: LocalFeatures, features1: LocalFeatures) -> None:
    if features0.invariances != features1.invariances:
        raise InputError(
            f"features of different describers: {', '.join(features0.invariances)} against "
            f"{', '.join(features1.invariances)}; describe both images with one"
        )
    for name in ("descriptors", "meta_descriptors"):
        shapes = [tuple(getattr(f, name).shape[-2:]) for f in (features0, features1)]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"{name} differ in size, {shapes[0]} and {shapes[1]}; describe both images with one"
            )


def _filtered(
    pairs: Int[Tensor, "S 2"], best1: Float[Tensor, "N0 K"], best0: Float[Tensor, "N1 K"], policy: Policy
) -> Int[Tensor, "kept 2"]:
    """Lowe's ratio in both directions and the floor of similarity."""
    keep = torch.ones(len(pairs), dtype=torch.bool, device=pairs.device)
    if policy.ratio is not None:
        for best in (best1[pairs[:, 0]], best0[pairs[:, 1]]):
            distance = (2 - 2 * best).clamp_min(0).sqrt()
            keep &= distance[:, 0] < policy.ratio * distance[:, 1]
    if policy.min_similarity is not None:
        keep &= best1[pairs[:, 0], 0] >= policy.min_similarity
    return pairs[keep]


@dataclass(slots=True)
class _Scorer:
    """The weighted similarity of any tile of a pair of images, from thin matrices.

    Exponents are powers of two: exp2 is twice as fast as exp.
    """

    descriptors0: Float[Tensor, "V N0 D"]
    descriptors1: Float[Tensor, "V N1 D"]
    thin0: Float[Tensor, "V N0 K"]  # divided by the temperature
    thin1: Float[Tensor, "V N1 K"]
    bias: Float[Tensor, "V 1 1"]
    selection: str
    sharp: bool  # exponents differ by more than float32 holds
    buffers: list[Float[Tensor, " numbers"]]

    @classmethod
    def of(
        cls, features0: LocalFeatures, features1: LocalFeatures, kinds: list[int], policy: Policy
    ) -> _Scorer:
        selection = features0.selection
        dtype = _DTYPES[policy.precision]
        d0, d1 = (
            torch.stack([f.descriptors[0, :, v].to(dtype) for v in kinds]) for f in (features0, features1)
        )
        thin0, thin1 = _thin(features0, features1, kinds)
        sharpness = 1 / (math.log(2) * (policy.temperature or selection.temperature))
        bias = [
            evidence / math.log(2) + math.log2(policy.prior.get(selection.invariances[v], 1.0))
            for v, evidence in zip(kinds, _evidence(features0, features1, kinds, policy), strict=True)
        ]
        # Softmax forgets a common offset; under this one no exponent exceeds _TOP.
        top, bottom = max(bias) + sharpness, min(bias) - sharpness
        return cls(
            d0,
            d1,
            thin0 * sharpness,
            thin1,
            thin0.new_tensor(bias).view(-1, 1, 1) + (_TOP - top),
            policy.selection,
            top - bottom > _TOP - _BOTTOM,
            [thin0.new_empty(0), thin0.new_empty(0)],
        )

    @property
    def counts(self) -> tuple[int, int]:
        return self.descriptors0.shape[1], self.descriptors1.shape[1]

    @property
    def block(self) -> int:
        """Side of a tile."""
        return _TILE.get(self.thin0.device.type, _TILE["cpu"])

    def nearest(self, need_second: bool) -> Nearest:
        """By one compiled pass where there is one for what the policy asks, else by torch: the same neighbours."""
        chosen, _ = choose_pass(self.thin0.device.type)
        if self.selection == "soft" and len(self.thin0) > 1:
            if chosen == "numba":
                return fused.nearest_fused(self._products, self.counts, fused.SIDE)
            if chosen == "triton" and not need_second:
                operands = self.descriptors0, self.descriptors1, self.thin0, self.thin1
                return nearest_on_gpu(*operands, self.bias.flatten())
        return nearest_in_tiles(self.similarity_tile, self.counts, (self.block, self.block), need_second)

    def _products(
        self, rows: slice, columns: slice
    ) -> tuple[Float[Tensor, "V rows columns"], Float[Tensor, "V rows columns"]]:
        return self._similarity(rows, columns), self._logits(rows, columns)

    def similarity_tile(self, rows: slice, columns: slice) -> Float[Tensor, "rows columns"]:
        """The next call overwrites it."""
        similarity = self._similarity(rows, columns)
        if len(similarity) == 1:
            return similarity[0]
        if self.selection == "mean":
            return similarity.mean(0)
        logits = self._logits(rows, columns)
        if self.selection == "hard":
            return similarity.gather(0, logits.argmax(0, keepdim=True))[0]
        if self.sharp:
            logits -= logits.amax(0)
        weights = logits.exp2_()
        weighted, total = similarity[0].mul_(weights[0]), weights[0]
        for one, weight in zip(similarity[1:], weights[1:], strict=True):
            weighted.addcmul_(one, weight)
            total.add_(weight)
        return weighted.div_(total)

    def _similarity(self, rows: slice, columns: slice) -> Float[Tensor, "V rows columns"]:
        d0, d1 = self.descriptors0[:, rows], self.descriptors1[:, columns].transpose(1, 2)
        if d0.dtype != torch.float32:
            return (d0 @ d1).float()
        return torch.bmm(d0, d1, out=self._buffer(0, d0, d1))

    def _logits(self, rows: slice, columns: slice) -> Float[Tensor, "V rows columns"]:
        thin0, thin1 = self.thin0[:, rows], self.thin1[:, columns].transpose(1, 2)
        return torch.baddbmm(self.bias, thin0, thin1, out=self._buffer(1, thin0, thin1))

    def _buffer(self, number: int, left: Tensor, right: Tensor) -> Float[Tensor, "V rows columns"]:
        """Where the product goes: fresh memory for every tile would be cold."""
        shape = (left.shape[0], left.shape[1], right.shape[2])
        if self.buffers[number].numel() < math.prod(shape):
            self.buffers[number] = left.new_empty(math.prod(shape))
        return self.buffers[number][: math.prod(shape)].view(shape)

    def at(self, pairs: Int[Tensor, "S 2"]) -> tuple[Float[Tensor, " S"], Float[Tensor, "S V"]]:
        """Scores and invariance weights of chosen pairs."""
        index0, index1 = pairs.unbind(1)
        d0, d1 = self.descriptors0[:, index0].float(), self.descriptors1[:, index1].float()
        similarity = (d0 * d1).sum(2).T
        logits = ((self.thin0[:, index0] * self.thin1[:, index1]).sum(2) + self.bias[:, :, 0]).T
        if self.selection == "mean":
            logits = torch.zeros_like(logits)
        weights = (logits * math.log(2)).softmax(1)
        if self.selection == "hard":
            weights = torch.zeros_like(weights).scatter_(1, logits.argmax(1, keepdim=True), 1.0)
        return (similarity * weights).sum(1), weights


def _evidence(
    features0: LocalFeatures, features1: LocalFeatures, kinds: list[int], policy: Policy
) -> list[float]:
    """What speaks for each invariance anywhere in the pair: its learned bias, and how well it explains the pair."""
    selection = features0.selection
    bias = [selection.bias[v] if selection.bias else 0.0 for v in kinds]
    if not selection.agreement_gain or len(kinds) == 1 or policy.selection == "mean":
        return bias
    shares = agreement(features0, features1, kinds).tolist()
    return [b + selection.agreement_gain * share for b, share in zip(bias, shares, strict=True)]


def _thin(
    features0: LocalFeatures, features1: LocalFeatures, kinds: list[int]
) -> tuple[Float[Tensor, "V N0 K"], Float[Tensor, "V N1 K"]]:
    sampling = features0.selection.tile_sampling
    weights0, weights1 = (
        tile_weights(f.keypoints.float(), f.image_size.float(), f.meta_descriptors.shape[2], sampling)
        for f in (features0, features1)
    )
    meta0, meta1 = (f.meta_descriptors[:, kinds].float() for f in (features0, features1))
    thin0, thin1 = meta_factors(meta0, meta1, weights0, weights1)
    return thin0[0], thin1[0]
