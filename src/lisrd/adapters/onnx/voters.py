"""The strongest keypoints of an image, always as many rows, and what they vote for: `lisrd.match` in tensors alone.

`lisrd.match` takes fewer rows where there are fewer keypoints. A graph for any number of them has no `if`: what is
missing is filled up with descriptors of zeros, which have no vote.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.match.agreement import VOTERS


class Voters:
    """The `VOTERS` keypoints of the highest scores, with their descriptors of any kinds and turns."""

    def __init__(self, scores: Float[Tensor, " N"], descriptors: Float[Tensor, "*kinds N D"]) -> None:
        ranked = torch.cat([scores, scores.new_full((VOTERS,), -torch.inf)])
        chosen = ranked.topk(VOTERS).indices
        self.present = chosen < scores.shape[0]
        self.count = self.present.sum().clamp_min(1)
        self.descriptors = F.pad(descriptors, (0, 0, 0, VOTERS)).index_select(-2, chosen)


def best_turn(voters0: Voters, voters1: Voters, turnable: Sequence[int]) -> Int[Tensor, ""]:
    """The turn of image 1, of descriptors (turns, V, K, D), in which the turnable kinds agree best."""
    kinds = list(turnable)
    flat0 = voters0.descriptors[kinds].transpose(0, 1).flatten(1)
    flat1 = voters1.descriptors[:, kinds].transpose(1, 2).flatten(2)
    similarity = flat0 @ flat1.transpose(1, 2)
    agreement = _mean_of_best(similarity, voters0, voters1)
    return (agreement + _mean_of_best(similarity.transpose(1, 2), voters1, voters0)).argmax()


def mutual_shares(voters0: Voters, voters1: Voters, turn: Int[Tensor, ""]) -> Float[Tensor, " V"]:
    """The share of voters that are mutual nearest neighbours by each kind alone; see `lisrd.match.agreement`."""
    descriptors1 = at_turn(voters1.descriptors, turn)
    absent = ~(voters0.present[:, None] & voters1.present)
    similarity = (voters0.descriptors @ descriptors1.transpose(1, 2)).masked_fill(absent, -torch.inf)
    index1, index0 = similarity.argmax(2), similarity.argmax(1)
    rows = torch.arange(VOTERS, device=similarity.device)
    is_mutual = (index0.gather(1, index1) == rows) & voters0.present & voters1.present[index1]
    return 2 * is_mutual.sum(1) / (voters0.count + voters1.count)


def at_turn(in_turns: Float[Tensor, " turns *rest"], turn: Int[Tensor, ""]) -> Float[Tensor, "*rest"]:
    """What a tensor of all turns holds for one, chosen by the graph itself."""
    return in_turns.index_select(0, turn.reshape(1)).squeeze(0)


def _mean_of_best(
    similarity: Float[Tensor, "turns K K"], voters: Voters, others: Voters
) -> Float[Tensor, " turns"]:
    """Mean similarity of the voters, the rows, to their nearest neighbour among the others."""
    best = similarity.masked_fill(~others.present, -torch.inf).amax(2)
    return best.masked_fill(~voters.present, 0).sum(1) / voters.count
