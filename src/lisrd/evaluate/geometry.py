"""The numbers of one set of matches against the truth of its pair."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lisrd.coordinates import warp_points
from lisrd.evaluate.common_pair import CommonPair
from lisrd.evaluate.metrics import homography, matching, pose

Scores = dict[str, Any]


def score_matches(common: CommonPair, matches: Int[Tensor, "S 2"]) -> Scores:
    """Every metric of one pair; null where the truth (homography or pose) does not define it."""
    start = time.perf_counter()
    scored = _by_pose(common, matches) if common.pose is not None else _by_homography(common, matches)
    return {"num_matches": len(matches), **scored, "seconds_verify": time.perf_counter() - start}


def count_inliers(common: CommonPair, matches: Int[Tensor, "S 2"]) -> int:
    """Inliers of the model that fits these matches, without looking at the truth."""
    points0, points1 = common.keypoints0[matches[:, 0]], common.keypoints1[matches[:, 1]]
    if common.pose is None:
        return int(homography.estimate_homography(points0, points1, "magsac")[1].sum())
    found = pose.estimate_pose(*_original(common, points0, points1), common.pose, _scales(common))
    return 0 if found is None else int(found[2].sum())


def is_correct(common: CommonPair, matches: Int[Tensor, "S 2"]) -> Bool[Tensor, " S"]:
    """The matches that the truth confirms: within 3 px in both images, or close to their epipolar lines."""
    if common.pose is None:
        assert common.H_0to1 is not None
        errors = matching.match_errors(common.keypoints0, common.keypoints1, matches, common.H_0to1)
        return matching.correct_matches(errors)
    points = common.keypoints0[matches[:, 0]], common.keypoints1[matches[:, 1]]
    return pose.epipolar_correct(*_original(common, *points), common.pose)


def _by_homography(common: CommonPair, matches: Int[Tensor, "S 2"]) -> Scores:
    assert common.H_0to1 is not None
    assert common.partners0 is not None
    xy0, xy1, H = common.keypoints0, common.keypoints1, common.H_0to1
    errors = matching.match_errors(xy0, xy1, matches, H)
    points0, points1 = xy0[matches[:, 0]], xy1[matches[:, 1]]
    ransac, _ = homography.estimate_homography(points0, points1, "ransac")
    magsac, inliers = homography.estimate_homography(points0, points1, "magsac")
    corner = homography.corner_error(ransac, H, *common.image0.size)
    corner_magsac = homography.corner_error(magsac, H, *common.image0.size)
    return {
        "num_correct": int(matching.correct_matches(errors).sum()),
        "num_inliers": int(inliers.sum()),
        "precision": matching.precision(errors),
        "recall": matching.recall(matches, common.partners0),
        "mma": matching.mma(errors),
        "median_error": matching.median_correct_error(errors),
        "homography_accuracy": homography.homography_accuracy(corner),
        "homography_accuracy_magsac": homography.homography_accuracy(corner_magsac),
        "corner_error": finite(corner),
        "corner_error_magsac": finite(corner_magsac),
        "pose_error": None,
    }


def _by_pose(common: CommonPair, matches: Int[Tensor, "S 2"]) -> Scores:
    assert common.pose is not None
    matched = common.keypoints0[matches[:, 0]], common.keypoints1[matches[:, 1]]
    points0, points1 = _original(common, *matched)
    correct = pose.epipolar_correct(points0, points1, common.pose)
    found = pose.estimate_pose(points0, points1, common.pose, _scales(common))
    error = math.inf if found is None else pose.pose_error(found[0], found[1], common.pose.T_0to1)
    undefined = ("recall", "mma", "median_error", "homography_accuracy", "homography_accuracy_magsac")
    return {
        "num_correct": int(correct.sum()),
        "num_inliers": 0 if found is None else int(found[2].sum()),
        "precision": float(correct.double().mean()) if len(correct) else 0.0,
        **dict.fromkeys((*undefined, "corner_error", "corner_error_magsac")),
        "pose_error": finite(error),
    }


def _original(
    common: CommonPair, points0: Float[Tensor, "S 2"], points1: Float[Tensor, "S 2"]
) -> tuple[Float[Tensor, "S 2"], Float[Tensor, "S 2"]]:
    back0, back1 = (torch.linalg.inv(image.transform) for image in (common.image0, common.image1))
    return warp_points(points0.double(), back0), warp_points(points1.double(), back1)


def _scales(common: CommonPair) -> tuple[float, float]:
    """Prepared pixels per original one; between the images of a pair with a pose lie turns and uniform resizing."""
    scale0, scale1 = (float(i.transform[:2, :2].det().abs().sqrt()) for i in (common.image0, common.image1))
    return scale0, scale1


def finite(value: float) -> float | None:
    """JSON has no infinity: null is an error beyond any threshold."""
    return value if math.isfinite(value) else None
