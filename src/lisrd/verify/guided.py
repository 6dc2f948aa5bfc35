"""Guided matching: with a model found, look for each keypoint's partner only where the model allows it.

Far fewer rivals, so more of the same descriptors find their match. Only the pairs that the model allows are
compared: a few per keypoint for a homography.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lisrd.errors import InputError
from lisrd.match import Policy
from lisrd.match.pair_scores import score_pairs
from lisrd.match.turn import read_turned
from lisrd.types import LocalFeatures, Matches
from lisrd.verify.geometry import Geometry, project

#: Keypoints of image 0 whose distances to all of image 1 are held at a time.
_BLOCK = 512


@torch.no_grad()
def guided_matches(
    features0: LocalFeatures,
    features1: LocalFeatures,
    geometry: Geometry,
    policy: Policy = Policy(),
    turn: float = 0,
    radius: float = 4.0,
    min_similarity: float = 0.0,
    evidence: Float[Tensor, " V"] | None = None,
) -> Matches:
    """Mutual nearest neighbours among the pairs that `geometry` allows, selected as `lisrd.match` does.

    Features of one image each; `turn` and `evidence` are those of the matches which `geometry` comes from. A pair is
    allowed within `radius` pixels of the homography's place, or of the epipolar line of a fundamental matrix. Raises
    InputError for a geometry without a model and for models of other kinds.
    """
    features0, features1 = features0.select(0), features1.select(0)
    pairs = allowed_pairs(features0.keypoints[0], features1.keypoints[0], geometry, radius)
    scores, weights = score_pairs(features0, features1, pairs, policy, turn, evidence)
    counts = (features0.keypoints.shape[1], features1.keypoints.shape[1])
    matches = Matches(pairs, scores, weights, counts, features0.invariances, turn, evidence=evidence)
    return _mutual_best(matches, min_similarity)


@torch.no_grad()
def second_choices(
    features0: LocalFeatures,
    features1: LocalFeatures,
    matches: Matches,
    geometry: Geometry,
    radius: float = 4.0,
    min_similarity: float = 0.6,
) -> Matches:
    """Tentative matches by any one invariance, for the keypoints that `matches` leaves without a partner.

    A pair's similarity is that of its best invariance, which has all the weight. Features, `radius` and errors as
    in `guided_matches`.
    """
    features0, features1 = features0.select(0), read_turned(features1.select(0), matches.turn)
    free0, free1 = (_free(n, matches.matches[:, k]) for k, n in enumerate(matches.num_keypoints))
    among_free = allowed_pairs(features0.keypoints[0, free0], features1.keypoints[0, free1], geometry, radius)
    pairs = torch.stack([free0[among_free[:, 0]], free1[among_free[:, 1]]], dim=1)
    d0, d1 = features0.descriptors[0, pairs[:, 0]].float(), features1.descriptors[0, pairs[:, 1]].float()
    best = (d0 * d1).sum(2).max(1)
    weights = torch.nn.functional.one_hot(best.indices, len(features0.invariances)).to(best.values.dtype)
    found = replace(matches, matches=pairs, scores=best.values, invariance_weights=weights)
    return _mutual_best(found, min_similarity)


def allowed_pairs(
    keypoints0: Float[Tensor, "N0 2"],
    keypoints1: Float[Tensor, "N1 2"],
    geometry: Geometry,
    radius: float,
) -> Int[Tensor, "P 2"]:
    """Indices of the keypoints that the model maps within `radius` pixels of each other in image 1."""
    if geometry.model is None:
        raise InputError(f"there is no model to guide the matches: {geometry.reason}")
    points0, points1 = (k.detach().double().cpu().numpy() for k in (keypoints0, keypoints1))
    if geometry.kind == "homography":  # places beyond the horizon are not numbers, and near nothing
        pairs = _near(project(points0, geometry.model), points1, radius)
    elif geometry.kind == "fundamental":
        pairs = _near_lines(points0, points1, geometry.model, radius)
    else:
        raise InputError(
            f"a model of kind {geometry.kind!r} guides no matches: use a homography or fundamental"
        )
    return torch.from_numpy(pairs).to(keypoints0.device)


def share_moved(
    features0: LocalFeatures, features1: LocalFeatures, before: Geometry, after: Geometry, pixels: float = 1.0
) -> float:
    """Part of the keypoints of image 0 that two homographies place in image 1, but more than `pixels` apart.

    Features of one image each. 0 for other kinds of models, and where none of the keypoints is placed there.
    """
    if before.kind != "homography" or before.model is None or after.model is None:
        return 0.0
    places = features0.keypoints[0].detach().double().cpu().numpy()
    old, new = project(places, before.model), project(places, after.model)
    last = features1.image_size[0].double().cpu().numpy() - 1
    inside = ((new >= 0) & (new <= last)).all(1)  # false beyond the horizon, where places are not numbers
    moved = ~(np.linalg.norm(old - new, axis=1) <= pixels)
    return float(moved[inside].mean()) if inside.any() else 0.0


def _near(
    places: Float[np.ndarray, "N0 2"], points1: Float[np.ndarray, "N1 2"], radius: float
) -> Int[np.ndarray, "P 2"]:
    """Pairs within `radius`, in the order of their rows; of all pairs only those of one vertical band are compared."""
    order = np.argsort(points1[:, 0], kind="stable")
    x = points1[order, 0]
    first = np.searchsorted(x, places[:, 0] - radius)
    counts = np.searchsorted(x, places[:, 0] + radius, side="right") - first
    rows = np.repeat(np.arange(len(places)), counts)
    ends = np.cumsum(counts)
    within_band = np.arange(len(rows)) - np.repeat(ends - counts, counts)
    columns = order[first[rows] + within_band]
    pairs = np.stack([rows, columns], axis=1)[np.square(places[rows] - points1[columns]).sum(1) <= radius**2]
    return pairs[np.lexsort(pairs.T[::-1])]


def _near_lines(
    points0: Float[np.ndarray, "N0 2"],
    points1: Float[np.ndarray, "N1 2"],
    fundamental: Float[np.ndarray, "3 3"],
    radius: float,
) -> Int[np.ndarray, "P 2"]:
    """Pairs whose point of image 1 lies within `radius` of the other's epipolar line, in the order of their rows."""
    lines = points0 @ fundamental[:, :2].T + fundamental[:, 2]
    lines /= np.linalg.norm(lines[:, :2], axis=1, keepdims=True)
    found = [np.zeros((0, 2), dtype=np.int64)]
    for start in range(0, len(lines), _BLOCK):
        block = lines[start : start + _BLOCK]
        near = np.abs(block[:, :2] @ points1.T + block[:, 2:]) <= radius
        rows, columns = np.nonzero(near)
        found.append(np.stack([rows + start, columns], axis=1))
    return np.concatenate(found)


def _mutual_best(candidates: Matches, least: float) -> Matches:
    """The candidates that are the best of both their keypoints; the first of equals is the best."""
    scores = candidates.scores.detach().cpu().numpy()
    order = np.argsort(-scores, kind="stable")
    chosen = scores[order] >= least
    places = np.arange(len(order))
    for index, count in zip(candidates.matches.cpu().numpy()[order].T, candidates.num_keypoints, strict=True):
        first = np.zeros(count, dtype=places.dtype)
        first[index[::-1]] = places[::-1]  # of several the last one written stays
        chosen &= first[index] == places
    return candidates.keep(torch.from_numpy(np.sort(order[chosen])).to(candidates.matches.device))


def _free(count: int, taken: Int[Tensor, " S"]) -> Int[Tensor, " F"]:
    free = torch.ones(count, dtype=torch.bool, device=taken.device)
    free[taken] = False
    return free.nonzero()[:, 0]
