"""Confidence by resampling the pairs (percentile bootstrap); seeded, so that a report can be reproduced."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

#: Of the last axis: one number for each row.
Statistic = Callable[[np.ndarray], np.ndarray]
CONFIDENCE = 0.95


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    statistic: Statistic | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """95 % interval of a statistic of per-pair values (their mean, where none is given).

    One value gives an interval of no width: nothing can be said about others from it. Resamples of which the statistic
    is not a number do not count.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        raise ValueError("no pairs to resample")
    chosen = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    drawn = values[chosen]
    estimates = drawn.mean(axis=1) if statistic is None else statistic(drawn)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(estimates[~np.isnan(estimates)], [tail, 1 - tail])
    return float(low), float(high)


def paired_difference(
    values_a: Sequence[float] | np.ndarray,
    values_b: Sequence[float] | np.ndarray,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[float, tuple[float, float], float]:
    """What B gains over A on the same pairs: mean, its 95 % interval, and the share of resamples above 0."""
    gain = np.asarray(values_b, dtype=np.float64) - np.asarray(values_a, dtype=np.float64)
    chosen = np.random.default_rng(seed).integers(len(gain), size=(resamples, len(gain)))
    means = gain[chosen].mean(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(gain.mean()), (float(low), float(high)), float((means > 0).mean())
