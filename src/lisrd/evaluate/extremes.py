"""Which pairs are drawn: those on which the method of interest did best and worst."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from lisrd.evaluate.cache import FeatureCache
from lisrd.evaluate.datasets.records import EvaluationPair
from lisrd.evaluate.geometry import is_correct
from lisrd.evaluate.methods import Method
from lisrd.evaluate.pair_matcher import PairMatcher, read_common_pair
from lisrd.evaluate.pictures import Picture, draw_matches
from lisrd.evaluate.score import PairResult

#: Pairs at each end.
COUNT = 3


def extreme_pictures(
    pairs: Sequence[EvaluationPair],
    results: Sequence[PairResult],
    methods: Sequence[Method],
    banks: Collection[str],
    cache: FeatureCache,
    max_keypoints: int,
) -> list[Picture]:
    """The best and worst pairs of the method of interest, ranked by its number of correct matches."""
    method = method_of_interest(methods, banks)
    scored = [k for k, r in enumerate(results) if r.scores and "turn" in r.scores[method.name]]
    ranked = sorted(scored, key=lambda k: (results[k].scores[method.name]["num_correct"], pairs[k].name))
    worst = ranked[: min(COUNT, len(ranked) // 2)]
    best = ranked[::-1][: min(COUNT, len(ranked) - len(worst))]
    return [
        _picture(f"{label}: {pairs[k].name}", pairs[k], results[k], method, cache, max_keypoints)
        for label, chosen in (("best", best), ("worst", worst))
        for k in chosen
    ]


def method_of_interest(methods: Sequence[Method], banks: Collection[str]) -> Method:
    """The first bank, else the first method: what a report is about."""
    return next((method for method in methods if method.name in banks), methods[0])


def _picture(
    title: str,
    pair: EvaluationPair,
    result: PairResult,
    method: Method,
    cache: FeatureCache,
    max_keypoints: int,
) -> Picture:
    common = read_common_pair(cache, pair, max_keypoints)
    matches = PairMatcher(cache, pair, common)(method).matches.matches
    points0, points1 = common.keypoints0[matches[:, 0]], common.keypoints1[matches[:, 1]]
    correct = is_correct(common, matches)
    jpeg = draw_matches(
        pair.image0.read()[0], pair.image1.read()[0], points0.numpy(), points1.numpy(), np.asarray(correct)
    )
    scores = result.scores[method.name]
    caption = f"{method.name}: {scores['num_correct']} of {scores['num_matches']} matches are correct"
    return Picture(title, f"{caption}{_change_words(result)}", jpeg)


def _change_words(result: PairResult) -> str:
    rotation, light = result.change.get("rotation"), result.change.get("light_change")
    words = f"; turned by {rotation:.0f}°" if rotation is not None else ""
    return words + (f", light changed by {light:.1f} stops" if light is not None else "")
