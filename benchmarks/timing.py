"""Ratios of medians of interleaved runs: both sides see the same load, the same clock and the same warm caches."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Run = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: rounds go on until both are reached."""

    rounds: int = 5
    seconds: float = 8.0
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row to be: what is compared, in words, and the two callables."""

    name: str
    ours: str
    baseline: str
    run_ours: Run
    run_baseline: Run


@dataclass(frozen=True, slots=True)
class Row:
    """`ratio` is baseline over ours: above 1, ours is faster."""

    name: str
    ours: str
    baseline: str
    seconds_ours: float
    seconds_baseline: float
    ratio: float


def compare(comparison: Comparison, effort: Effort) -> Row:
    """Medians of both sides, run in turns."""
    medians = interleaved({"ours": comparison.run_ours, "baseline": comparison.run_baseline}, effort)
    ours, baseline = medians["ours"], medians["baseline"]
    return Row(comparison.name, comparison.ours, comparison.baseline, ours, baseline, baseline / ours)


def interleaved(runs: Mapping[str, Run], effort: Effort) -> dict[str, float]:
    """Median seconds of each callable; every round runs each of them once, in the other order than the last."""
    for run in runs.values():
        run()  # the first call allocates, compiles and fills caches
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    begun = time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        while len(seconds[names[0]]) < effort.rounds or time.perf_counter() - begun < effort.seconds:
            for name in names:
                start = effort.clock()
                runs[name]()
                seconds[name].append(effort.clock() - start)
            names.reverse()
    finally:
        gc.enable()
    return {name: median(times) for name, times in seconds.items()}
