"""What a teacher's descriptors of the clean anchor ask of every view: to be like them, or to find them.

Asked to be like them, a network answers what it cannot know with the mean of what it may be, which is near to all and
tells nothing apart. Asked to find them among all others, it learns what tells them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.train.losses import ignored_negatives, masked_mean
from lisrd.train.pair_softmax import dual_softmax_of_descriptors

#: Names of the losses.
TEACHER_LOSSES = ("cosine", "dual_softmax")


def likeness_loss(
    learners: Float[Tensor, "views S N K D"],
    taught: Float[Tensor, "S N K D"],
    asked: Bool[Tensor, "views S K"],
    mask: Bool[Tensor, "S N"],
) -> Float[Tensor, ""]:
    """1 - cosine, in the views and kinds that are asked, at the keypoints that are there."""
    return masked_mean(1 - (learners * taught).sum(-1), asked[:, :, None] & mask[:, :, None])


def finding_loss(
    learners: Float[Tensor, "views S N K D"],
    taught: Float[Tensor, "S N K D"],
    asked: Bool[Tensor, "views S K"],
    mask: Bool[Tensor, "S N"],
    keypoints: Sequence[Float[Tensor, "S N 2"]],
    radius: float,
    sharpness: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """The dual softmax of every view with the teacher's descriptors, the mean over the views.

    `keypoints` are those of the views, the anchor's first; what is closer than `radius` is no negative.
    """
    losses = []
    for learned, xy, chosen in zip(learners, keypoints, asked, strict=True):
        ignored = ignored_negatives(keypoints[0], xy, mask, radius)
        loss = dual_softmax_of_descriptors(learned, taught, ignored, chosen, sharpness)
        losses.append(masked_mean(loss, mask[chosen.nonzero(as_tuple=True)[0]]))
    return torch.stack(losses).mean()
