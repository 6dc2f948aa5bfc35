"""The strongest keypoints of an image and what they vote for: `lisrd.match` in tensors alone, without an `if`.

An image without keypoints is stood in for by nobody, a descriptor of zeros, which is for all turns and kinds alike.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lisrd.match.selection import distance_of


def strongest(scores: Float[Tensor, " N"], descriptors: Float[Tensor, "*kinds N D"], most: int) -> Tensor:
    """The descriptors (*kinds, K, D) of the `most` keypoints of the highest scores, of all where there are fewer."""
    # Counted by a tensor: of a size itself the exporter supposes that it is never 0.
    count = cast(int, torch.scalar_tensor(scores.shape[0], dtype=torch.long).clamp(1, most).item())
    torch._check(count <= scores.shape[0] + 1)
    with_nobody = F.pad(scores, (0, 1), value=-torch.inf)
    return F.pad(descriptors, (0, 0, 0, 1)).index_select(-2, with_nobody.topk(count).indices)


def best_turn(voters0: Float[Tensor, "R K0 D"], voters1: Float[Tensor, "turns R K1 D"]) -> Int[Tensor, ""]:
    """The turn of image 1 in which the kinds that vary with it agree best, both ways."""
    flat0, flat1 = voters0.transpose(0, 1).flatten(1), voters1.transpose(1, 2).flatten(2)
    similarity = flat0 @ flat1.transpose(1, 2)
    return (similarity.amax(2).mean(1) + similarity.amax(1).mean(1)).argmax()


def distinct_shares(
    voters0: Float[Tensor, "V K0 D"], voters1: Float[Tensor, "V K1 D"], ratio: float
) -> Float[Tensor, " V"]:
    """The share of voters that are distinct mutual nearest neighbours by each kind alone.

    See `lisrd.match.agreement`.
    """
    similarity = voters0 @ voters1.transpose(1, 2)
    is_mutual, index1 = mutual_neighbours(similarity)
    best = similarity.gather(2, index1.unsqueeze(2))
    hidden = torch.where(is_mutual.unsqueeze(2), -torch.inf, best)
    others = similarity.scatter(2, index1.unsqueeze(2), hidden)
    second = torch.maximum(others.amax(2), others.amax(1).gather(1, index1))
    distance, to_second = (distance_of(s) for s in (best.squeeze(2), second))
    is_distinct = is_mutual & (distance < ratio * to_second)
    return 2 * is_distinct.sum(1) / (voters0.shape[1] + voters1.shape[1])


def mutual_neighbours(
    similarity: Float[Tensor, "*batch N0 N1"],
) -> tuple[Bool[Tensor, "*batch N0"], Int[Tensor, "*batch N0"]]:
    """Of each row the nearest column, and whether the row is nearest to that column too, the first of equals.

    With one argmax, along the rows: onnxruntime is many times slower at one down the columns.
    """
    count = similarity.shape[-2]
    index1 = similarity.argmax(-1)
    best = similarity.gather(-1, index1.unsqueeze(-1)).squeeze(-1)
    is_best = best == similarity.amax(-2).gather(-1, index1)
    rows = torch.arange(count, device=similarity.device)
    nobody = torch.full_like(similarity.select(-2, 0), count, dtype=torch.long)
    first = nobody.scatter_reduce(-1, index1, torch.where(is_best, rows, count), "amin")
    return first.gather(-1, index1) == rows, index1
