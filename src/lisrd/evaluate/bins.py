"""Scores over what changed: means in bins of rotation angle and of the change of light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lisrd.evaluate.metrics.bootstrap import bootstrap_interval
from lisrd.evaluate.score import PairResult

METRICS = ("precision", "recall")


@dataclass(frozen=True, slots=True)
class Axis:
    """Something measured between the images of each pair, cut at `edges`; the last bin holds all above."""

    change: str
    label: str
    edges: tuple[float, ...]


AXES = (
    Axis("rotation", "rotation between the images, degrees", (0.0, 10.0, 30.0, 60.0, 90.0, 135.0)),
    Axis("light_change", "mean change of light, stops", (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0)),
)


def binned_scores(results: Sequence[PairResult], describers: Sequence[str]) -> dict[str, Any]:
    """Per axis: its bins {low, high, pairs} and, per describer and metric, a mean and interval in each bin.

    Bins without pairs are left out; an axis on which everything falls in one bin says nothing and is too.
    """
    scored = [result for result in results if result.scores]
    curves = {axis.change: _on_axis(axis, scored, describers) for axis in AXES}
    return {change: curve for change, curve in curves.items() if len(curve["bins"]) > 1}


def _on_axis(axis: Axis, results: Sequence[PairResult], describers: Sequence[str]) -> dict[str, Any]:
    known = [result for result in results if result.change.get(axis.change) is not None]
    bins = []
    for low, high in zip(axis.edges, (*axis.edges[1:], float("inf")), strict=True):
        members = [result for result in known if low <= abs(result.change[axis.change]) < high]
        if members:
            bins.append((low, high, members))
    return {
        "label": axis.label,
        "bins": [
            {"low": low, "high": high if np.isfinite(high) else None, "pairs": len(members)}
            for low, high, members in bins
        ],
        "describers": {name: _means([members for _, _, members in bins], name) for name in describers},
    }


def _means(bins: Sequence[Sequence[PairResult]], describer: str) -> dict[str, list[dict[str, Any]]]:
    means: dict[str, list[dict[str, Any]]] = {}
    for metric in METRICS:
        values = [[result.scores[describer][metric] for result in members] for members in bins]
        if not any(value is None for members in values for value in members):
            means[metric] = [
                {"mean": float(np.mean(v)), "interval": list(bootstrap_interval(v))} for v in values
            ]
    return means
