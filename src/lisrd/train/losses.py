"""Losses over corresponding keypoints: row i of image 0 belongs to row i of image 1.

Every loss is vectorised over the batch and takes similarities (dot products of unit vectors); squared L2 distances
are 2 - 2s, so that the weighted and the single descriptors are measured by one ruler.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.processes import mean_over_processes, process_count


def ignored_negatives(
    xy0: Float[Tensor, "B N 2"], xy1: Float[Tensor, "B N 2"], mask: Bool[Tensor, "B N"], radius: float
) -> Bool[Tensor, "B N N"]:
    """Pairs (i, j) that are no negatives: i or j masked, or closer than `radius` px in either image; i = j."""
    near = torch.cdist(xy0, xy0) < radius
    near |= torch.cdist(xy1, xy1) < radius
    missing = ~mask
    return near | missing[:, :, None] | missing[:, None, :]


def masked_mean(values: Float[Tensor, " B *rest"], mask: Bool[Tensor, " B *rest"]) -> Float[Tensor, ""]:
    """Mean of what counts; 0 when nothing does.

    With several processes, what counts in all of them is what is divided by, so that the mean of their results is
    the mean of one process with all of their samples.
    """
    return (values * mask).sum() / mean_over_processes(mask.sum().float()).clamp_min(1 / process_count())


def dual_softmax_loss(
    similarity: Float[Tensor, "B N N"], ignored: Bool[Tensor, "B N N"], sharpness: float | Tensor
) -> Float[Tensor, "B N"]:
    """Cross entropy of the true partner, from image 0 to 1 and back, per keypoint.

    One exponential serves both directions: similarities are bounded by 1, so exp(sharpness (s - 1)) cannot overflow.
    """
    positive = similarity.diagonal(dim1=1, dim2=2)
    eye = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
    scores = torch.exp((similarity - 1) * sharpness).masked_fill(ignored & ~eye, 0.0)
    tiny = torch.finfo(scores.dtype).tiny
    rows, columns = (scores.sum(d).clamp_min(tiny).log() for d in (2, 1))
    return 0.5 * (rows + columns) - sharpness * (positive - 1)


def triplet_loss(
    similarity: Float[Tensor, "B N N"], ignored: Bool[Tensor, "B N N"], margin: float = 1.0
) -> Float[Tensor, "B N"]:
    """max(0, m + p - n) with the hardest negative over both directions. Source: LISRD, equation 1."""
    squared = 2 - 2 * similarity
    positive = squared.diagonal(dim1=1, dim2=2)
    negatives = squared.masked_fill(ignored, math.inf)
    hardest = torch.minimum(negatives.amin(2), negatives.amin(1))
    return F.relu(margin + positive - hardest)


def variant_loss(
    steady: Float[Tensor, "B N"], changed: Float[Tensor, "B N"], gap: Float[Tensor, " B"], margin: float = 1.0
) -> Float[Tensor, "B N"]:
    """max(0, g m + d(0, 2) - d(0, 1)): closer to the steady view than to the changed one.

    `steady` and `changed` are similarities of corresponding keypoints. Source: LISRD, equation 2.
    """
    return F.relu(gap[:, None] * margin + 2 * (changed - steady))


def rotation_gap(angle: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """clip(|angle| / 45 degrees, 0, 1), the angle in radians. Source: LISRD, section 3.1."""
    return (angle.abs() / (math.pi / 4)).clamp(max=1)


def matching_score(similarity: Float[Tensor, "B N N"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, " B"]:
    """Share of the keypoints whose mutual nearest neighbour is their true partner."""
    hidden = ~(mask[:, :, None] & mask[:, None, :])
    similarity = similarity.masked_fill(hidden, -math.inf)
    nearest1, nearest0 = similarity.argmax(2), similarity.argmax(1)
    index = torch.arange(similarity.shape[1], device=similarity.device)
    right = (nearest1 == index) & (nearest0 == index) & mask
    return right.sum(1) / mask.sum(1).clamp_min(1)
