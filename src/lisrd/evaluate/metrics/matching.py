"""How good a set of matches is when the homography between the images is known (paper, section 4.2).

Pixels as in `lisrd.coordinates`; a distance is correct up to and including its threshold. What a method
leaves undefined (no matches, no keypoint with a partner) counts as 0: a method that gives up has failed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lisrd.coordinates import warp_points

#: Pixels within which a match counts as correct, in the paper and here.
CORRECT_PX = 3.0
#: The thresholds of the mean matching accuracy curve.
MMA_PX = tuple(float(pixels) for pixels in range(1, 11))
#: Width of the bins of `error_counts`, pixels.
ERROR_BIN_PX = 0.05


def match_errors(
    keypoints0: Float[Tensor, "N0 2"],
    keypoints1: Float[Tensor, "N1 2"],
    matches: Int[Tensor, "S 2"],
    H_0to1: Float[Tensor, "3 3"],
) -> Float[Tensor, "2 S"]:
    """Pixels between matched keypoints: row 0 with image 1's carried to image 0, row 1 the other way."""
    matched0 = keypoints0[matches[:, 0]].double()
    matched1 = keypoints1[matches[:, 1]].double()
    H = H_0to1.double()
    in_image0 = matched0 - warp_points(matched1, torch.linalg.inv(H))
    in_image1 = matched1 - warp_points(matched0, H)
    return torch.stack([in_image0, in_image1]).norm(dim=-1)


def precision(errors: Float[Tensor, "2 S"], threshold: float = CORRECT_PX) -> float:
    """Share of the matches within `threshold` pixels, averaged over the two directions."""
    return float((errors <= threshold).double().mean()) if errors.numel() else 0.0


def mma(errors: Float[Tensor, "2 S"], thresholds: Sequence[float] = MMA_PX) -> list[float]:
    """Matching accuracy, the precision at 1, 2, .. 10 pixels; its mean over the pairs is the MMA."""
    return [precision(errors, threshold) for threshold in thresholds]


def correct_matches(errors: Float[Tensor, "2 S"], threshold: float = CORRECT_PX) -> Bool[Tensor, " S"]:
    """The matches within `threshold` pixels in both images."""
    return (errors <= threshold).all(dim=0)


def correct_errors(errors: Float[Tensor, "2 S"], threshold: float = CORRECT_PX) -> Float[Tensor, " correct"]:
    """Of the correct matches the mean error in the two images, pixels."""
    return errors[:, correct_matches(errors, threshold)].mean(dim=0)


def median_correct_error(errors: Float[Tensor, "2 S"], threshold: float = CORRECT_PX) -> float | None:
    """Median of `correct_errors`; None without any."""
    correct = correct_errors(errors, threshold)
    return float(correct.quantile(0.5)) if correct.numel() else None


def error_counts(errors: Float[Tensor, "2 S"]) -> list[int]:
    """How many `correct_errors` lie in each bin of `ERROR_BIN_PX` up to `CORRECT_PX`: sums say what many pairs do."""
    bins = round(CORRECT_PX / ERROR_BIN_PX)
    return correct_errors(errors).float().cpu().histc(bins, 0, CORRECT_PX).int().tolist()


def true_partners(
    keypoints0: Float[Tensor, "N0 2"],
    keypoints1: Float[Tensor, "N1 2"],
    H_0to1: Float[Tensor, "3 3"],
    threshold: float = CORRECT_PX,
) -> Int[Tensor, " N0"]:
    """Which keypoint of image 1 lies nearest to each of image 0 carried there; -1 beyond `threshold` pixels."""
    if not len(keypoints0) or not len(keypoints1):
        return torch.full((len(keypoints0),), -1)
    warped = warp_points(keypoints0.double(), H_0to1.double())
    target = keypoints1.double()
    squared = (warped[:, :1] - target[:, 0]).square() + (warped[:, 1:] - target[:, 1]).square()
    # A point on the horizon is nowhere: its distances are NaN, which compare as false.
    distance, nearest = squared.min(dim=1)
    return torch.where(distance.sqrt() <= threshold, nearest, -1)


def recall(matches: Int[Tensor, "S 2"], partners0: Int[Tensor, " N0"]) -> float:
    """Keypoints of image 0 that were matched with their true partner, over those that have one."""
    with_partner = int((partners0 >= 0).sum())
    found = int((partners0[matches[:, 0]] == matches[:, 1]).sum())
    return found / with_partner if with_partner else 0.0


def repeatability(partners0: Int[Tensor, " N0"], partners1: Int[Tensor, " N1"]) -> float:
    """Share of the keypoints of both images that have a partner in the other.

    It belongs to the detector and bounds what any descriptor can match.
    """
    has_partner = torch.cat([partners0, partners1]) >= 0
    return float(has_partner.double().mean()) if len(has_partner) else 0.0
