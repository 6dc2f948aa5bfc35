"""The similarity that is matched: of any two keypoints of a pair of images, weighted by the selection."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.match import fused
from lisrd.match.agreement import agreement
from lisrd.match.gpu import nearest_on_gpu
from lisrd.match.nearest import Nearest, nearest_in_tiles
from lisrd.match.passes import choose_pass
from lisrd.match.policy import Policy
from lisrd.match.selection import meta_factors, tile_weights
from lisrd.types import LocalFeatures

#: Side of a tile, by device: two float32 tiles of four invariances are 2 MB, about a core's own cache. On a GPU the
#: launches count, not the cache.
_TILE = {"cpu": 256, "cuda": 2048}
#: The exponent of two that the weights may reach: float32 ends at 128, and four of them are summed.
_TOP = 100.0
#: Below this exponent the weights of float32 would vanish.
_BOTTOM = -120.0

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(slots=True)
class PairScorer:
    """The weighted similarity of any tile of a pair of images (V of its invariances, K tiles), from thin matrices.

    Exponents are powers of two: exp2 is twice as fast as exp.
    """

    descriptors0: Float[Tensor, "V N0 D"]
    descriptors1: Float[Tensor, "V N1 D"]
    thin0: Float[Tensor, "V N0 K"]  # divided by the temperature
    thin1: Float[Tensor, "V N1 K"]
    bias: Float[Tensor, "V 1 1"]
    selection: str
    sharp: bool  # exponents differ by more than float32 holds
    evidence: Float[Tensor, " V"]  # of all invariances, as logits; in `bias`
    buffers: list[Float[Tensor, " numbers"]]

    @classmethod
    def of(
        cls,
        features0: LocalFeatures,
        features1: LocalFeatures,
        kinds: list[int],
        policy: Policy,
        evidence: Float[Tensor, " V"] | None = None,
    ) -> PairScorer:
        """`evidence` is that of an earlier scorer of the pair, whose keypoints need not be compared again."""
        selection = features0.selection
        if evidence is None:
            evidence = pair_evidence(features0, features1, kinds, policy)
        dtype = _DTYPES[policy.precision]
        d0, d1 = (_of_kinds(f, kinds).to(dtype) for f in (features0, features1))
        thin0, thin1 = _thin(features0, features1, kinds)
        sharpness = 1 / (math.log(2) * (policy.temperature or selection.temperature))
        bias = [
            evidence[v].item() / math.log(2) + math.log2(policy.prior.get(selection.invariances[v], 1.0))
            for v in kinds
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
            evidence,
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
        if self.selection == "soft" and len(self.thin0) > 1:
            chosen, _ = choose_pass(self.thin0.device.type)
            if chosen == "numba":
                return fused.nearest_fused(self._products, self.counts, fused.SIDE)
            if chosen == "triton" and not need_second:
                operands = self.descriptors0, self.descriptors1, self.thin0, self.thin1
                return nearest_on_gpu(*operands, self.bias.flatten(), self.sharp)
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


def _of_kinds(features: LocalFeatures, kinds: list[int]) -> Float[Tensor, "V N D"]:
    """Views where all kinds take part: products read rows of any stride, and a copy takes a fifth of their time."""
    by_kind = features.descriptors[0].transpose(0, 1)
    return by_kind if len(kinds) == len(by_kind) else by_kind[kinds]


def pair_evidence(
    features0: LocalFeatures, features1: LocalFeatures, kinds: list[int], policy: Policy
) -> Float[Tensor, " V"]:
    """What speaks for each invariance anywhere in the pair: its learned bias, and how well it explains the pair.

    Of the invariances `kinds`; 0 for the others.
    """
    selection = features0.selection
    evidence = torch.zeros(len(selection.invariances))
    if selection.bias:
        evidence[kinds] = torch.tensor(selection.bias)[kinds]
    if selection.agreement_power and len(kinds) > 1 and policy.selection != "mean":
        evidence[kinds] += agreement(features0, features1, kinds).cpu()
    return evidence


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
