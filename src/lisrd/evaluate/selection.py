"""The question only this method asks: was the invariance that was chosen the right one, and what did it gain?

For each bank evaluated by its default policy. What it gained over the plain mean and lost to the oracle (the
best single descriptor for the pair) is there where those were evaluated beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lisrd.evaluate.methods import base_of
from lisrd.evaluate.metrics.bootstrap import paired_difference
from lisrd.evaluate.score import PairResult

COMPARED = ("precision", "recall")


def selection_analysis(results: Sequence[PairResult], describers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Per bank what was chosen and what that gained, over all pairs and per scene.

    `chosen` and `best_single` are shares of the pairs, `right` the share in which both are the same.
    """
    scored = [result for result in results if result.scores]
    banks = [name for name in describers if name == base_of(name) and _is_bank(scored, name)]
    return {bank: _bank_analysis(scored, bank) for bank in banks}


def chosen_invariance(scores: dict[str, Any]) -> str | None:
    """The invariance with the highest mean weight over the matches; None without matches."""
    weights = scores.get("invariance_weights") or {}
    return max(weights, key=weights.__getitem__) if weights else None


def _is_bank(results: Sequence[PairResult], name: str) -> bool:
    return any(len(result.scores[name].get("invariance_weights") or {}) > 1 for result in results)


def _bank_analysis(results: Sequence[PairResult], bank: str) -> dict[str, Any]:
    of_bank = [result.scores[bank] for result in results]
    analysis: dict[str, Any] = {
        "pairs": len(results),
        "chosen": _shares(chosen_invariance(scores) for scores in of_bank),
        "weights": _mean_weights(of_bank),
        "turns": _shares(str(scores["turn"]) for scores in of_bank if "turn" in scores),
        "scenes": _per_scene(results, bank),
    }
    if _has(results, f"{bank}:mean"):
        analysis["gain_over_mean"] = _gain(results, f"{bank}:mean", bank)
    if _has(results, f"{bank}:oracle"):
        best = [result.scores[f"{bank}:oracle"].get("best_single") for result in results]
        right = [b == chosen_invariance(s) for b, s in zip(best, of_bank, strict=True) if b is not None]
        analysis["best_single"] = _shares(best)
        analysis["right"] = float(np.mean(right)) if right else None
        analysis["loss_to_oracle"] = _gain(results, bank, f"{bank}:oracle")
    return analysis


def _per_scene(results: Sequence[PairResult], bank: str) -> list[dict[str, Any]]:
    scenes = []
    for scene, part in sorted({(result.scene, result.part) for result in results}):
        members = [result for result in results if (result.scene, result.part) == (scene, part)]
        row: dict[str, Any] = {"scene": scene, "part": part, "pairs": len(members)}
        for name in (bank, f"{bank}:mean", f"{bank}:oracle"):
            if _has(members, name):
                row[name] = float(np.mean([result.scores[name]["precision"] for result in members]))
        row["chosen"] = _shares(chosen_invariance(result.scores[bank]) for result in members)
        scenes.append(row)
    return scenes


def _gain(results: Sequence[PairResult], worse: str, better: str) -> dict[str, Any]:
    gains = {}
    for metric in COMPARED:
        values = [(r.scores[worse][metric], r.scores[better][metric]) for r in results]
        if all(a is not None and b is not None for a, b in values):
            mean, interval, _ = paired_difference([a for a, _ in values], [b for _, b in values])
            gains[metric] = {"mean": mean, "interval": list(interval)}
    return gains


def _mean_weights(scores: Sequence[dict[str, Any]]) -> dict[str, float]:
    known = [weights for one in scores if (weights := one.get("invariance_weights"))]
    return {name: float(np.mean([weights[name] for weights in known])) for name in known[0]} if known else {}


def _shares(values: Any) -> dict[str, float]:
    counts = Counter(value for value in values if value is not None)
    total = sum(counts.values())
    return {value: count / total for value, count in sorted(counts.items())}


def _has(results: Sequence[PairResult], name: str) -> bool:
    return bool(results) and name in results[0].scores
