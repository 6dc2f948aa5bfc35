"""From per-pair scores to rows: means, areas under curves, and their bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from lisrd.evaluate.metrics.bootstrap import Statistic, bootstrap_interval
from lisrd.evaluate.metrics.curves import CORNER_AUC_PX, POSE_AUC_DEGREES, error_auc
from lisrd.evaluate.metrics.matching import MMA_PX
from lisrd.evaluate.score import PairResult

Row = dict[str, Any]
EVERYTHING = "all"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number of a row: a statistic of one score over the pairs. Shares and areas are higher when better."""

    name: str
    score: str
    statistic: Statistic | None = None  # the mean
    missing: float | None = None  # what a null score stands for; None leaves the pair out of this number


def _areas(prefix: str, score: str, thresholds: Sequence[float]) -> list[Metric]:
    return [
        Metric(f"{prefix}_{t:g}", score, partial(error_auc, threshold=t), missing=math.inf)
        for t in thresholds
    ]


HOMOGRAPHY_METRICS = (
    Metric("precision", "precision"),
    Metric("recall", "recall"),
    Metric("homography_accuracy", "homography_accuracy"),
    Metric("homography_accuracy_magsac", "homography_accuracy_magsac"),
    *_areas("homography_auc", "corner_error_magsac", CORNER_AUC_PX),
)
POSE_METRICS = (Metric("precision", "precision"), *_areas("pose_auc", "pose_error", POSE_AUC_DEGREES))
#: Without intervals: what describes a method rather than ranks it.
COUNTS = (
    "num_matches",
    "num_correct",
    "num_inliers",
    "median_error",
    "seconds_describe",
    "seconds_match",
    "seconds_verify",
)


def summarise(results: Sequence[PairResult], describers: Sequence[str], seed: int = 0) -> list[Row]:
    """One row per describer and part; the part `all` holds every pair."""
    parts = sorted({result.part for result in results} - {EVERYTHING})
    return [
        _row(describer, part, [r for r in results if part in (r.part, EVERYTHING)], seed)
        for part in (*parts, EVERYTHING)
        for describer in describers
    ]


def _row(describer: str, part: str, results: Sequence[PairResult], seed: int) -> Row:
    scored = [result for result in results if result.scores]
    row: Row = {
        "describer": describer,
        "part": part,
        "pairs": len(scored),
        "excluded": len(results) - len(scored),
        **dict.fromkeys(("precision", "recall", "homography_accuracy")),
        "mma": None,
        "interval": {},
    }
    if scored:
        row.update(_numbers([result.scores[describer] for result in scored], row["interval"], seed))
        row["repeatability"] = _mean([result.change["repeatability"] for result in scored])
        row["keypoints"] = _mean(
            [(r.change["num_keypoints0"] + r.change["num_keypoints1"]) / 2 for r in scored]
        )
    return row


def _numbers(scores: Sequence[dict[str, Any]], interval: dict[str, Any], seed: int) -> Row:
    has_pose = all(score["mma"] is None for score in scores)
    numbers: Row = {}
    for metric in POSE_METRICS if has_pose else HOMOGRAPHY_METRICS:
        values = metric_values(metric, scores)
        numbers[metric.name] = float((metric.statistic or np.mean)(values))
        interval[metric.name] = list(bootstrap_interval(values, metric.statistic, seed=seed))
    if not has_pose:
        curves = np.array([score["mma"] for score in scores])
        numbers["mma"] = curves.mean(axis=0).tolist()
        bands = [bootstrap_interval(curves[:, k], seed=seed) for k in range(len(MMA_PX))]
        interval["mma"] = [list(side) for side in zip(*bands, strict=True)]
    return {**numbers, **{name: _mean([score[name] for score in scores]) for name in COUNTS}}


def metric_values(metric: Metric, scores: Sequence[dict[str, Any]]) -> np.ndarray:
    """The per-pair scores a metric is made of."""
    values = (score[metric.score] for score in scores)
    return np.array([metric.missing if value is None else value for value in values], dtype=np.float64)


def _mean(values: Sequence[float | int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
