"""Score: one pair, every method, from cached features alone.

A method without matches, or whose describer failed, gets zeros and infinite errors and is listed as a
problem. Only a pair whose ground truth or images are broken has no scores at all; it is listed too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from lisrd.evaluate.cache import FeatureCache
from lisrd.evaluate.common_pair import CommonPair
from lisrd.evaluate.datasets.records import EvaluationPair
from lisrd.evaluate.geometry import Scores, score_matches
from lisrd.evaluate.methods import Method
from lisrd.evaluate.metrics.change import light_change, similarity_at_centre
from lisrd.evaluate.metrics.matching import repeatability, true_partners
from lisrd.evaluate.pair_matcher import Matched, PairMatcher, read_common_pair
from lisrd.evaluate.predict import Failures
from lisrd.evaluate.stages import score_stages
from lisrd.types import Matches
from lisrd.verify import Steps


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that went wrong; `counted`: whether the pair is in the means (with zeros) all the same."""

    kind: str  # "image", "ground truth", "describer", "no keypoints", "no matches", "no model"
    what: str
    pair: str
    describer: str | None = None
    counted: bool = True


@dataclass(frozen=True, slots=True)
class PairResult:
    """One pair with the scores of every method, none of them where it is excluded."""

    name: str
    scene: str
    part: str
    change: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores one pair at a time; small enough to be sent to another process."""

    cache: FeatureCache
    methods: tuple[Method, ...]
    max_keypoints: int
    failures: Failures
    stages: Mapping[str, Steps] = field(default_factory=dict)  # variants of the geometry stage, by name

    def __call__(self, pair: EvaluationPair) -> PairResult:
        excluded = self._excluded(pair)
        if excluded is not None:
            return PairResult(pair.name, pair.scene, pair.part, dict(pair.tags), problems=[excluded])
        common = read_common_pair(self.cache, pair, self.max_keypoints)
        result = PairResult(pair.name, pair.scene, pair.part, {**pair.tags, **_change(pair, common)})
        matcher = PairMatcher(self.cache, pair, common)
        for method in self.methods:
            result.scores[method.name], problem = self._score(method, matcher)
            result.problems.extend([problem] if problem else [])
        return result

    def _excluded(self, pair: EvaluationPair) -> Problem | None:
        for image in (pair.image0, pair.image1):
            if image.key in self.failures.images:
                return Problem("image", self.failures.images[image.key], pair.name, counted=False)
        return Problem("ground truth", pair.broken, pair.name, counted=False) if pair.broken else None

    def _score(self, method: Method, matcher: PairMatcher) -> tuple[Scores, Problem | None]:
        pair, common = matcher.pair, matcher.common
        wrong = failure = self._failure(method, pair, common)
        matched = _nothing(common) if failure else matcher(method)
        described = None if wrong else matcher.describe_seconds(method)
        scores = score_matches(common, matched.matches.matches)
        wrong = wrong or _shortcoming(scores)
        times = {"seconds_describe": described, "seconds_match": matched.seconds}
        about = {**scores, **times, **matched.about}
        if self.stages:
            known = None if failure else matched
            about["geometry"] = score_stages(matcher, method, known, scores, self.stages)
        return about, Problem(*wrong, pair.name, method.name) if wrong else None

    def _failure(self, method: Method, pair: EvaluationPair, common: CommonPair) -> tuple[str, str] | None:
        for key in (pair.image0.key, pair.image1.key):
            for base in method.bases:
                if (base, key) in self.failures.features:
                    return "describer", self.failures.features[base, key]
        if not len(common.index0) or not len(common.index1):
            return "no keypoints", "one image has no keypoints that the other one shows"
        return None


def _shortcoming(scores: Scores) -> tuple[str, str] | None:
    if scores["num_matches"] == 0:
        return "no matches", "there are no mutual nearest neighbours"
    if scores["num_inliers"] == 0:
        return "no model", f"{scores['num_matches']} matches fit no geometric model"
    return None


def _change(pair: EvaluationPair, common: CommonPair) -> dict[str, Any]:
    counts = {"num_keypoints0": len(common.index0), "num_keypoints1": len(common.index1)}
    if common.H_0to1 is None:
        return {**counts, "rotation": None, "scale": None, "light_change": None, "repeatability": None}
    rotation, scale = similarity_at_centre(common.H_0to1, *common.image0.size)
    return {
        **counts,
        "rotation": rotation,
        "scale": scale,
        "light_change": light_change(pair.image0.read()[0], pair.image1.read()[0], common.H_0to1),
        "repeatability": _repeatability(common),
    }


def _repeatability(common: CommonPair) -> float:
    assert common.H_0to1 is not None
    assert common.partners0 is not None
    partners1 = true_partners(common.keypoints1, common.keypoints0, torch.linalg.inv(common.H_0to1))
    return repeatability(common.partners0, partners1)


def _nothing(common: CommonPair) -> Matched:
    empty = torch.zeros((0, 2), dtype=torch.long)
    counts = (len(common.index0), len(common.index1))
    return Matched(Matches(empty, torch.zeros(0), torch.zeros((0, 0)), counts, ()), 0.0)
