"""Guided matching: with a model found, look for each keypoint's partner only where the model allows it.

Far fewer rivals, so more of the same descriptors find their match. Similarities come in blocks of rows, as in
`lisrd.match.nearest`, and those of places that the model forbids do not count.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.errors import InputError
from lisrd.match.nearest import Nearest, SimilarityRows, mutual, nearest_in_blocks
from lisrd.match.turn import read_turned
from lisrd.types import LocalFeatures, Matches
from lisrd.verify.geometry import Geometry, project

#: Rows of similarities that are held at a time.
BLOCK = 1024


def guided_matches(
    similarity_rows: SimilarityRows,
    keypoints0: Float[Tensor, "N0 2"],
    keypoints1: Float[Tensor, "N1 2"],
    geometry: Geometry,
    radius: int | float = 5.0,
    min_similarity: int | float = 0.0,
) -> tuple[Int[Tensor, "S 2"], Float[Tensor, " S"]]:
    """Mutual nearest neighbours among the pairs that `geometry` allows, and their similarities.

    `similarity_rows(start, stop)` gives the similarities (rows, N1) of keypoints [start, stop) of image 0. A pair
    is allowed within `radius` pixels of the homography's place, or of the epipolar line of a fundamental matrix.
    Raises InputError for a geometry without a model and for models of other kinds.
    """
    distance_rows = _distance_rows(keypoints0, keypoints1, geometry)

    def allowed_rows(start: int, stop: int) -> Float[Tensor, "rows N1"]:
        similarity = similarity_rows(start, stop)
        distance = distance_rows(start, stop).to(similarity.device)
        return similarity.masked_fill(~(distance <= radius), -torch.inf)

    nearest = nearest_in_blocks(allowed_rows, len(keypoints0), len(keypoints1), BLOCK, need_second=False)
    return _above(nearest, min_similarity)


def guided_second_choice(
    features0: LocalFeatures,
    features1: LocalFeatures,
    matches: Matches,
    geometry: Geometry,
    radius: int | float = 5.0,
    min_similarity: int | float = 0.6,
) -> tuple[Int[Tensor, "S 2"], Float[Tensor, " S"]]:
    """Further matches by any one invariance, for keypoints to which the selected ones gave no inlier.

    Features of one image each, and the matches that `geometry` was estimated from. A pair's similarity is that of
    its best invariance, read in the turn of `matches`; keypoints of inliers take no part. Raises as
    `guided_matches` does.
    """
    features0, features1 = features0.select(0), read_turned(features1.select(0), matches.turn)
    settled = matches.matches[torch.from_numpy(geometry.inliers).to(matches.matches.device)]
    free0 = _free(len(features0.keypoints[0]), settled[:, 0])
    free1 = _free(len(features1.keypoints[0]), settled[:, 1])
    descriptors0 = features0.descriptors[0, free0].transpose(0, 1)
    descriptors1 = features1.descriptors[0, free1].permute(1, 2, 0)

    def best_invariance(start: int, stop: int) -> Float[Tensor, "rows N1"]:
        return (descriptors0[:, start:stop] @ descriptors1).amax(0)

    keypoints = features0.keypoints[0, free0], features1.keypoints[0, free1]
    pairs, scores = guided_matches(best_invariance, *keypoints, geometry, radius, min_similarity)
    return torch.stack([free0[pairs[:, 0]], free1[pairs[:, 1]]], dim=1), scores


def _above(nearest: Nearest, least: float) -> tuple[Int[Tensor, "S 2"], Float[Tensor, " S"]]:
    """Mutual choices of at least this similarity; keypoints with no allowed partner chose at minus infinity."""
    pairs = mutual(nearest)
    scores = nearest.best1[pairs[:, 0], 0]
    return pairs[scores >= least], scores[scores >= least]


def _free(count: int, taken: Int[Tensor, " S"]) -> Int[Tensor, " F"]:
    free = torch.ones(count, dtype=torch.bool, device=taken.device)
    free[taken] = False
    return free.nonzero()[:, 0]


def _distance_rows(keypoints0: Tensor, keypoints1: Tensor, geometry: Geometry) -> SimilarityRows:
    """Rows of pixels in image 1 between what the model predicts for a keypoint of image 0 and each of image 1."""
    if geometry.model is None:
        raise InputError(f"there is no model to guide the matches: {geometry.reason}")
    points0, model = keypoints0.double().cpu().numpy(), geometry.model
    targets = keypoints1.double().cpu()
    if geometry.kind == "homography":
        places = torch.from_numpy(project(points0, model))
        return lambda start, stop: torch.cdist(places[start:stop], targets)
    if geometry.kind == "fundamental":
        lines = points0 @ model[:, :2].T + model[:, 2]
        unit = torch.from_numpy(lines / np.linalg.norm(lines[:, :2], axis=1, keepdims=True))
        return lambda start, stop: (unit[start:stop, :2] @ targets.T + unit[start:stop, 2:]).abs()
    raise InputError(f"a model of kind {geometry.kind!r} guides no matches: use a homography or fundamental")
