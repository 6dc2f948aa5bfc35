"""Rows of the geometry stage: how many homographies each estimate gets right, and how closely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from lisrd.evaluate.metrics.bootstrap import bootstrap_interval
from lisrd.evaluate.metrics.curves import CORNER_AUC_PX, error_auc
from lisrd.evaluate.metrics.matching import ERROR_BIN_PX
from lisrd.evaluate.score import PairResult
from lisrd.evaluate.summary import EVERYTHING, Metric, Row, metric_values


def share_within(errors: Float[np.ndarray, "*batch N"], threshold: float) -> Float[np.ndarray, "*batch"]:
    """Share of the errors up to and including `threshold`."""
    return np.asarray((errors <= threshold).mean(axis=-1))


def mean_of_known(values: Float[np.ndarray, "*batch N"]) -> Float[np.ndarray, "*batch"]:
    """Mean without what is not a number; NaN where nothing is one."""
    known = np.isfinite(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0).sum(axis=-1)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def median_of_all(counts: Float[np.ndarray, "*batch N bins"]) -> Float[np.ndarray, "*batch"]:
    """The median error of all correct matches of N pairs, from their `error_counts`; NaN without any."""
    below = counts.sum(axis=-2).cumsum(axis=-1)
    half = below[..., -1:] / 2
    place = (below < half).sum(axis=-1, keepdims=True)  # of the bin that holds the median
    start = np.where(place > 0, np.take_along_axis(below, np.maximum(place - 1, 0), axis=-1), 0)
    inside = np.take_along_axis(below, np.minimum(place, below.shape[-1] - 1), axis=-1) - start
    share = np.divide(half - start, inside, out=np.full_like(half, np.nan), where=inside > 0)
    return np.asarray(ERROR_BIN_PX * (place + share)[..., 0])


METRICS = (
    *(
        Metric(f"accuracy_{t:g}", "corner_error", partial(share_within, threshold=t), missing=math.inf)
        for t in CORNER_AUC_PX
    ),
    *(
        Metric(f"auc_{t:g}", "corner_error", partial(error_auc, threshold=t), missing=math.inf)
        for t in CORNER_AUC_PX
    ),
    Metric("median_error", "median_error", mean_of_known, missing=math.nan),
    Metric("num_correct", "num_correct"),
)
#: Steps that the stage times.
STEPS = ("estimate", "refine", "guided")


def geometry_rows(results: Sequence[PairResult], describers: Sequence[str], seed: int = 0) -> list[Row]:
    """One row per part, describer and estimate; the part `all` holds every pair. None where nothing was asked.

    `accuracy_T` and `auc_T` are of the corner errors up to T pixels; `median_error` (pixels, the mean of the pairs'
    medians), `error_of_all` (the median of all pairs' matches together) and `num_correct` of the matches within 3 px of
    the truth, as the estimate left them, both errors None without any; `seconds` per step.
    """
    scored = [result for result in results if result.scores]
    parts = sorted({result.part for result in scored} - {EVERYTHING})
    return [
        _row(describer, estimate, part, members, seed)
        for part in (*parts, EVERYTHING)
        if (members := [result for result in scored if part in (result.part, EVERYTHING)])
        for describer in describers
        for estimate in members[0].scores[describer].get("geometry", {})
    ]


def _row(describer: str, estimate: str, part: str, results: Sequence[PairResult], seed: int) -> Row:
    scores = [result.scores[describer]["geometry"][estimate] for result in results]
    row: Row = {"describer": describer, "estimate": estimate, "part": part, "pairs": len(results)}
    interval: dict[str, Any] = {}
    counts = np.array([score["error_counts"] for score in scores], dtype=np.float64)
    of_pairs = [(metric.name, metric_values(metric, scores), metric.statistic) for metric in METRICS]
    for name, values, statistic in (*of_pairs, ("error_of_all", counts, median_of_all)):
        number = float((statistic or np.mean)(values))
        row[name] = None if math.isnan(number) else number  # an error without a correct match
        if row[name] is not None:
            interval[name] = list(bootstrap_interval(values, statistic, seed=seed))
    timed = [score["seconds"] for score in scores if "seconds" in score]
    seconds = {step: float(np.mean([one.get(step, 0.0) for one in timed])) for step in STEPS if timed}
    return {**row, "seconds": seconds, "interval": interval}
