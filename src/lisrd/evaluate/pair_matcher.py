"""One pair, any method: the matches from cached features. No network is loaded here."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from lisrd.evaluate.cache import DescribedImage, DetectedImage, FeatureCache
from lisrd.evaluate.common_pair import CommonPair, common_pair, features_at
from lisrd.evaluate.datasets.records import EvaluationPair
from lisrd.evaluate.geometry import count_inliers, is_correct
from lisrd.evaluate.methods import Method
from lisrd.evaluate.predict import turned_keypoints
from lisrd.match import Policy
from lisrd.match.octave import match_octaves
from lisrd.types import LocalFeatures, Matches

#: Feature files kept in memory: the reference image of a scene comes back in pair after pair.
FILES_IN_MEMORY = 24


@dataclass(frozen=True, slots=True)
class Matched:
    """The matches of one method, how long they took, and how it came to them."""

    matches: Matches
    seconds: float
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairMatcher:
    """Matches one pair by any method; what several methods share is matched once."""

    cache: FeatureCache
    pair: EvaluationPair
    common: CommonPair
    known: dict[str, Matched] = field(default_factory=dict)

    def __call__(self, method: Method) -> Matched:
        """The matches of one method, among the common keypoints."""
        key = f"{method.bases} {method.policy} {method.four_rotations} {method.oracle}"
        if key not in self.known:
            if method.oracle:
                self.known[key] = self._oracle(method)
            elif method.four_rotations:
                self.known[key] = self._four_rotations(method)
            else:
                self.known[key] = self._match(method.bases, method.policy)
        return self.known[key]

    def describe_seconds(self, method: Method) -> float:
        """What describing both images took when they were predicted, all their keypoints together."""
        turns = range(4) if method.four_rotations else (0,)
        files = [(self.pair.image0.key, 0), *((self.pair.image1.key, turn) for turn in turns)]
        described = [(base, key, turn) for base in method.bases for key, turn in files]
        return sum(read_features(self.cache, *one).seconds for one in described)

    def features(self, method: Method) -> tuple[LocalFeatures, LocalFeatures]:
        """What the method matches, of the images as they are."""
        octave0, octave1 = self(method).matches.octaves
        return self._features(method.bases[octave0])[0], self._features(method.bases[octave1])[1]

    def policy(self, method: Method, matched: Matched) -> Policy:
        """How the method came to its matches: an oracle took one descriptor."""
        best = matched.about.get("best_single")
        return replace(method.policy, only=(best,)) if best else method.policy

    def _features(self, base: str, turn: int = 0) -> tuple[LocalFeatures, LocalFeatures]:
        described0 = read_features(self.cache, base, self.pair.image0.key)
        described1 = read_features(self.cache, base, self.pair.image1.key, turn)
        features0 = features_at(described0.features, self.common.index0)
        features1 = features_at(described1.features, self.common.index1)
        return features0, features1

    def _match(self, bases: list[str], policy: Policy, turn: int = 0) -> Matched:
        octaves0, octaves1 = zip(*(self._features(base, turn) for base in bases), strict=True)
        start = time.perf_counter()
        matches = match_octaves(octaves0, octaves1, policy)
        seconds = time.perf_counter() - start
        weights = matches.invariance_weights.mean(dim=0).tolist() if len(matches) else []
        chosen = dict(zip(matches.invariances, weights, strict=True)) if weights else {}
        about = {"turn": matches.turn, "octaves": list(matches.octaves), "invariance_weights": chosen}
        return Matched(matches, seconds, about)

    def _oracle(self, method: Method) -> Matched:
        singles = read_features(self.cache, method.base, self.pair.image0.key).features.invariances
        candidates = {}
        for name in singles:
            alone = replace(method, oracle=False, policy=replace(method.policy, only=(name,)))
            candidates[name] = self(alone)
        correct = {n: int(is_correct(self.common, m.matches.matches).sum()) for n, m in candidates.items()}
        best = max(singles, key=correct.__getitem__)
        about = {**candidates[best].about, "best_single": best, "correct_of_singles": correct}
        return Matched(candidates[best].matches, sum(one.seconds for one in candidates.values()), about)

    def _four_rotations(self, method: Method) -> Matched:
        tried = [self._match([method.base], method.policy, turn) for turn in range(4)]
        inliers = [count_inliers(self.common, one.matches.matches) for one in tried]
        best = max(range(4), key=inliers.__getitem__)
        about = {**tried[best].about, "turn": best}
        return Matched(tried[best].matches, sum(one.seconds for one in tried), about)


@lru_cache(maxsize=4 * FILES_IN_MEMORY)
def read_keypoints(cache: FeatureCache, key: str) -> DetectedImage:
    """Keypoints that were predicted before."""
    detected = cache.keypoints(key)
    assert detected is not None, f"{key} was not predicted"
    return detected


def read_common_pair(cache: FeatureCache, pair: EvaluationPair, max_keypoints: int) -> CommonPair:
    """The common keypoints of a pair whose images were predicted before."""
    image0, image1 = read_keypoints(cache, pair.image0.key), read_keypoints(cache, pair.image1.key)
    return common_pair(pair, image0, image1, max_keypoints)


@lru_cache(maxsize=FILES_IN_MEMORY)
def read_features(cache: FeatureCache, base: str, key: str, turn: int = 0) -> DescribedImage:
    """Features that were predicted before, at the keypoints turned with the image."""
    detected = read_keypoints(cache, key)
    keypoints = turned_keypoints(detected.keypoints, *detected.size, turn)
    described = cache.features(base, key, keypoints, turn)
    assert described is not None, f"{base} was not predicted on {key}"
    return described


def forget_files() -> None:
    """Forget what was read: the next evaluation may find other files under the same names."""
    read_keypoints.cache_clear()
    read_features.cache_clear()
