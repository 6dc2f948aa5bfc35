"""The matcher as a module of tensors alone: turn, selection, mutual nearest neighbours, as in `lisrd.match`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lisrd.adapters.onnx.describer import FEATURES, TURNED_FEATURES
from lisrd.adapters.onnx.voters import Voters, at_turn, best_turn, mutual_shares
from lisrd.match.selection import meta_factors, tile_weights
from lisrd.types import Selection


class MatcherGraph(nn.Module):
    """Features of two images to matches, as `lisrd.match` gives them under its default policy.

    Every similarity is held at once: memory grows with V x N0 x N1, which `lisrd.match` avoids.
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
        turned_descriptors1: Float[Tensor, "1 N1 3 R D"] | None = None,
        turned_meta_descriptors1: Float[Tensor, "1 3 R T T C"] | None = None,
    ) -> tuple[Int[Tensor, "S 2"], Float[Tensor, " S"], Float[Tensor, "S V"], Int[Tensor, ""]]:
        kinds0 = descriptors0[0].transpose(0, 1)
        in_turns1 = descriptors1[0].transpose(0, 1)[None]  # (turns, V, N1, D)
        meta_in_turns1 = meta_descriptors1
        if turned_descriptors1 is not None and turned_meta_descriptors1 is not None:
            in_turns1 = self._in_turns(in_turns1[0], turned_descriptors1[0].permute(1, 2, 0, 3))
            meta_in_turns1 = self._in_turns(meta_descriptors1[0], turned_meta_descriptors1[0])
        voters0, voters1 = Voters(keypoint_scores0[0], kinds0), Voters(keypoint_scores1[0], in_turns1)
        turn = torch.zeros((), dtype=torch.long)
        if self.turnable:
            turn = best_turn(voters0, voters1, self.turnable)
        kinds1, meta1 = at_turn(in_turns1, turn), at_turn(meta_in_turns1, turn)

        tiles_per_side, sampling = meta_descriptors0.shape[2], self.selection.tile_sampling
        tiles0 = tile_weights(keypoints0, image_size0, tiles_per_side, sampling)
        tiles1 = tile_weights(keypoints1, image_size1, tiles_per_side, sampling)
        thin0, thin1 = meta_factors(meta_descriptors0, meta1[None], tiles0, tiles1)
        logits = (thin0[0] / self.selection.temperature) @ thin1[0].transpose(1, 2)
        logits = logits + self._bias_of_pair(voters0, voters1, turn)[:, None, None]

        # Softmax in its parts: onnxruntime is many times slower at one over the first axis.
        parts = (logits - logits.amax(0)).exp()
        total = parts.sum(0)
        similarity = (kinds0 @ kinds1.transpose(1, 2) * parts).sum(0) / total
        matches = mutual_pairs(similarity)
        index0, index1 = matches.unbind(1)
        weights = parts[:, index0, index1] / total[index0, index1]
        return matches, similarity[index0, index1], weights.T, turn

    def _in_turns(
        self, upright: Float[Tensor, " V *rest"], turned: Float[Tensor, "3 R *rest"]
    ) -> Float[Tensor, "4 V *rest"]:
        """Every kind at every turn; those that do not vary are the same in all four."""
        columns = []
        for v, one in enumerate(upright.unbind(0)):
            others = turned[:, self.turnable.index(v)] if v in self.turnable else torch.stack([one] * 3)
            columns.append(torch.cat([one[None], others]))
        return torch.stack(columns, dim=1)

    def _bias_of_pair(self, voters0: Voters, voters1: Voters, turn: Int[Tensor, ""]) -> Float[Tensor, " V"]:
        """The selection's bias, and what the agreement of each invariance over the pair adds to it."""
        if not self.selection.agreement_gain:
            return self.bias
        return self.bias + self.selection.agreement_gain * mutual_shares(voters0, voters1, turn)


def mutual_pairs(similarity: Float[Tensor, "N0 N1"]) -> Int[Tensor, "S 2"]:
    """Index pairs that are each other's most similar keypoint, also where a side has none.

    One more row and column, below everything, are nobody: argmax is undefined over an empty axis.
    """
    with_nobody = F.pad(similarity, (0, 1, 0, 1), value=-torch.inf)
    nearest1 = with_nobody.argmax(1)[:-1]
    nearest0 = with_nobody.argmax(0)[:-1]
    nearest_of = torch.cat([nearest0, nearest0.new_full((1,), -1)])  # nobody chooses no one
    index0 = torch.arange(similarity.shape[0], device=similarity.device)
    chosen = (nearest_of[nearest1] == index0).nonzero().squeeze(1)
    return torch.stack([chosen, nearest1[chosen]], dim=1)
