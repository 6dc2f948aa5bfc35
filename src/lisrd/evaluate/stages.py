"""The geometry stage in the evaluation: the same matches through each of its variants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch

from lisrd.evaluate.common_pair import CommonPair
from lisrd.evaluate.geometry import Scores, finite
from lisrd.evaluate.methods import Method
from lisrd.evaluate.metrics import homography, matching
from lisrd.evaluate.pair_matcher import Matched, PairMatcher
from lisrd.verify.patches import PreparedImage
from lisrd.verify.stage import VerifiedPair, verify_pair
from lisrd.verify.steps import ESTIMATE_ALONE, Steps

GeometryRows = Literal["off", "full", "ablation"]

#: By name, the steps of each variant. An ablation adds each step alone to the robust estimate, then all of them.
STAGES: dict[str, dict[str, Steps]] = {
    "off": {},
    "full": {"full": Steps()},
    "ablation": {
        "estimate": ESTIMATE_ALONE,
        "+ frames": replace(ESTIMATE_ALONE, frames="auto"),
        "+ refine": replace(ESTIMATE_ALONE, refine="auto"),
        "+ guided": replace(ESTIMATE_ALONE, guided="auto"),
        "full": Steps(),
    },
}


def score_stages(
    matcher: PairMatcher,
    method: Method,
    matched: Matched | None,
    scores: Scores,
    stages: Mapping[str, Steps],
) -> dict[str, Scores]:
    """Corner and match errors of one method's matches by RANSAC, by MAGSAC++ (from `scores`), and by each stage.

    Without matches (None) no stage has a model. Empty where the truth is a pose: the stage's homography says
    nothing about it.
    """
    common = matcher.common
    if not stages or common.H_0to1 is None:
        return {}
    pairs = torch.zeros(0, 2, dtype=torch.long) if matched is None else matched.matches.matches
    errors = matching.match_errors(common.keypoints0, common.keypoints1, pairs, common.H_0to1)
    known = {name: scores[name] for name in ("num_correct", "median_error")}
    known["error_counts"] = matching.error_counts(errors)
    found: dict[str, Scores] = {
        "ransac": {"corner_error": scores["corner_error"], **known},
        "magsac": {"corner_error": scores["corner_error_magsac"], **known},
    }
    if matched is None:
        return found | {name: {"corner_error": None, **known} for name in stages}
    features, policy = matcher.features(method), matcher.policy(method, matched)
    image0, image1 = (PreparedImage.of(i.read()[0]) for i in (matcher.pair.image0, matcher.pair.image1))
    for name, steps in stages.items():
        if (
            method.four_rotations
        ):  # image 1 was matched as another picture, whose descriptors do not guide here
            steps = replace(steps, guided="off")
        verified = verify_pair(image0, image1, *features, matched.matches, steps=steps, policy=policy)
        found[name] = _scores(common, verified)
    return found


def _scores(common: CommonPair, verified: VerifiedPair) -> dict[str, Any]:
    assert common.H_0to1 is not None
    model = verified.geometry.model
    H = None if model is None else torch.from_numpy(model)
    pairs = torch.arange(len(verified.points0)).unsqueeze(1).expand(-1, 2)
    points0, points1 = torch.from_numpy(verified.points0), torch.from_numpy(verified.points1)
    errors = matching.match_errors(points0, points1, pairs, common.H_0to1)
    corner = math.inf if H is None else homography.corner_error(H, common.H_0to1, *common.image0.size)
    return {
        "corner_error": finite(corner),
        "num_correct": int(matching.correct_matches(errors).sum()),
        "median_error": matching.median_correct_error(errors),
        "error_counts": matching.error_counts(errors),
        "verdict": verified.verdict.answer,
        "num_inliers": verified.geometry.num_inliers,
        "seconds": verified.seconds,
    }
