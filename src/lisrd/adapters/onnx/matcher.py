"""The matcher as a module of tensors alone: turn, selection, mutual nearest neighbours, as in `lisrd.match`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lisrd.adapters.onnx.describer import FEATURES, TURNED_FEATURES
from lisrd.adapters.onnx.voters import best_turn, distinct_shares, mutual_neighbours, strongest
from lisrd.match.agreement import VOTERS, agreement_logits
from lisrd.match.selection import meta_factors, tile_weights
from lisrd.match.turn import TURN_VOTERS
from lisrd.types import Selection


class MatcherGraph(nn.Module):
    """Features of two images to matches, as `lisrd.match` gives them under its default policy.

    The similarities of one kind are held at once: memory grows with N0 x N1, which `lisrd.match` avoids.
    """

    bias: Tensor
    outputs = ("matches", "scores", "invariance_weights", "turn")

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self.selection = selection
        self.turnable = [v for v, is_variant in enumerate(selection.rotation_variant or ()) if is_variant]
        bias = selection.bias or (0.0,) * len(selection.invariances)
        self.register_buffer("bias", torch.tensor(bias))

    @property
    def inputs(self) -> tuple[str, ...]:
        of_each = ("keypoints", "keypoint_scores", *FEATURES)
        of_image1 = of_each + TURNED_FEATURES if self.turnable else of_each
        return (*(f"{name}0" for name in of_each), *(f"{name}1" for name in of_image1))

    def forward(
        self,
        keypoints0: Float[Tensor, "1 N0 2"],
        keypoint_scores0: Float[Tensor, "1 N0"],
        image_size0: Float[Tensor, "1 2"],
        descriptors0: Float[Tensor, "1 N0 V D"],
        meta_descriptors0: Float[Tensor, "1 V T T C"],
        keypoints1: Float[Tensor, "1 N1 2"],
        keypoint_scores1: Float[Tensor, "1 N1"],
        image_size1: Float[Tensor, "1 2"],
        descriptors1: Float[Tensor, "1 N1 V D"],
        meta_descriptors1: Float[Tensor, "1 V T T C"],
        turned_descriptors1: Float[Tensor, "1 N1 turned R D"] | None = None,
        turned_meta_descriptors1: Float[Tensor, "1 turned R T T C"] | None = None,
    ) -> tuple[Int[Tensor, "S 2"], Float[Tensor, " S"], Float[Tensor, "S V"], Tensor]:
        kinds0, kinds1 = (descriptors[0].transpose(0, 1) for descriptors in (descriptors0, descriptors1))
        scores0, scores1, meta1 = keypoint_scores0[0], keypoint_scores1[0], meta_descriptors1[0]
        turn = torch.zeros((), dtype=torch.long)
        if turned_descriptors1 is not None and turned_meta_descriptors1 is not None:
            in_turns = self._in_turns(kinds1, turned_descriptors1[0].permute(1, 2, 0, 3))
            upright0 = strongest(scores0, kinds0[self.turnable], TURN_VOTERS)
            number = best_turn(upright0, strongest(scores1, in_turns, TURN_VOTERS))
            kinds1 = self._at_turn(kinds1, in_turns, number)
            meta1 = self._at_turn(meta1, self._in_turns(meta1, turned_meta_descriptors1[0]), number)
            turn = number if len(in_turns) == 4 else 4 * number / len(in_turns)

        bias = self.bias
        if self.selection.agreement_power:
            voters0, voters1 = strongest(scores0, kinds0, VOTERS), strongest(scores1, kinds1, VOTERS)
            shares = distinct_shares(voters0, voters1, self.selection.agreement_ratio)
            bias = bias + agreement_logits(shares, self.selection.agreement_power)
        tiles_per_side, sampling = meta_descriptors0.shape[2], self.selection.tile_sampling
        tiles0 = tile_weights(keypoints0, image_size0, tiles_per_side, sampling)
        tiles1 = tile_weights(keypoints1, image_size1, tiles_per_side, sampling)
        thin0, thin1 = self._with_bias(*meta_factors(meta_descriptors0, meta1[None], tiles0, tiles1), bias)

        similarity = selected_similarity(kinds0, kinds1, thin0, thin1)
        matches = mutual_pairs(similarity)
        index0, index1 = matches.unbind(1)
        weights = (thin0[:, index0] * thin1[:, index1]).sum(2).softmax(0).T
        return matches, similarity[index0, index1], weights, turn

    def _in_turns(
        self, upright: Float[Tensor, "V ..."], turned: Float[Tensor, "turned R ..."]
    ) -> Float[Tensor, "turns R ..."]:
        """The kinds that vary with a turn, at every turn."""
        return torch.cat([upright[self.turnable][None], turned])

    def _at_turn(
        self, upright: Float[Tensor, "V ..."], in_turns: Float[Tensor, "turns R ..."], number: Int[Tensor, ""]
    ) -> Float[Tensor, "V ..."]:
        """Every kind as it is read at one turn, which the graph itself has chosen."""
        kinds = list(upright.unbind(0))
        chosen = in_turns.index_select(0, number.reshape(1)).squeeze(0)
        for v, read in zip(self.turnable, chosen.unbind(0), strict=True):
            kinds[v] = read
        return torch.stack(kinds)

    def _with_bias(
        self, thin0: Float[Tensor, "1 V N0 K"], thin1: Float[Tensor, "1 V N1 K"], bias: Float[Tensor, " V"]
    ) -> tuple[Float[Tensor, "V N0 L"], Float[Tensor, "V N1 L"]]:
        """Factors of the logits: the bias is one more column, less what keeps the logits at or below 0."""
        sharpness = 1 / self.selection.temperature
        column = (bias - bias.amax(0) - sharpness)[:, None, None]
        return (
            torch.cat([thin0[0] * sharpness, column.expand(-1, thin0.shape[2], 1)], 2),
            F.pad(thin1[0], (0, 1), value=1.0),
        )


def selected_similarity(
    kinds0: Float[Tensor, "V N0 D"],
    kinds1: Float[Tensor, "V N1 D"],
    thin0: Float[Tensor, "V N0 L"],
    thin1: Float[Tensor, "V N1 L"],
) -> Float[Tensor, "N0 N1"]:
    """One kind after the other: a softmax over the first axis is slow in onnxruntime, and would need all at once."""
    total = similarity = torch.zeros(())
    for v in range(len(thin0)):
        part = (thin0[v] @ thin1[v].T).exp()
        total = total + part
        similarity = similarity + part * (kinds0[v] @ kinds1[v].T)
    return similarity / total


def mutual_pairs(similarity: Float[Tensor, "N0 N1"]) -> Int[Tensor, "S 2"]:
    """Index pairs that are each other's most similar keypoint, also where a side has none.

    One more row and column, below everything, are nobody: argmax is undefined over an empty axis.
    """
    is_mutual, index1 = mutual_neighbours(F.pad(similarity, (0, 1, 0, 1), value=-torch.inf))
    chosen = (is_mutual & (index1 < similarity.shape[1]))[:-1].nonzero().squeeze(1)
    return torch.stack([chosen, index1[chosen]], dim=1)
