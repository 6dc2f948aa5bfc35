"""Sentences of the report, the same in HTML and Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from lisrd.evaluate.methods import split_name


def settings_line(document: dict[str, Any]) -> str:
    """What was evaluated, how, and how long it took."""
    settings, seconds = document["settings"], document["seconds"]
    pairs = len(document["pairs"])
    excluded = sum(not pair["scores"] for pair in document["pairs"])
    left_out = f" ({excluded} without usable ground truth or images, not in the means)" if excluded else ""
    return (
        f"{settings['layout']} data in {settings['root']}: {pairs} pairs{left_out}; {settings['detector']} "
        f"keypoints, the {settings['max_keypoints']} strongest that both images show; 95 % intervals by "
        f"bootstrap over the pairs. Predicted in {seconds['predict']:.0f} s, scored in {seconds['score']:.0f} s."
    )


#: What the names of estimates mean, below their table.
GEOMETRY_LEGEND = (
    "Homographies whose corners are within so many pixels, and the area under their curve, by OpenCV's plain RANSAC, "
    "by MAGSAC++, and by the geometry stage (full); + one step: the robust estimate with that step alone. Error: "
    "median of the matches within 3 px of the truth, where the estimate left them."
)


def labels_of(names: Sequence[str]) -> dict[str, str]:
    """Names without the folders of their weights, as long as they stay different."""
    short = {name: _without_folders(name) for name in names}
    taken = Counter(short.values())
    return {name: label if taken[label] == 1 else name for name, label in short.items()}


def _without_folders(name: str) -> str:
    base, *parts = split_name(name)
    kind = base.partition("=")[0]
    return ":".join([PurePath(kind).stem if kind.endswith(".safetensors") else kind, *parts])


def share_text(shares: dict[str, float]) -> str:
    """Shares as percentages, the largest first."""
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{name}: {100 * share:.0f} %" for name, share in ordered) or "nothing"


def gain_sentences(found: dict[str, Any]) -> list[str]:
    """What selection gained and lost, in points of each metric, as far as it was measured."""
    sentences = []
    if found.get("right") is not None:
        sentences.append(
            f"the invariance chosen was the best single one in {100 * found['right']:.0f} % of the pairs"
        )
    comparisons = {
        "gain_over_mean": "selection is ahead of the plain mean by",
        "loss_to_oracle": "the oracle is ahead of selection by",
    }
    for key, words in comparisons.items():
        for metric, gain in found.get(key, {}).items():
            low, high = gain["interval"]
            points = f"{100 * gain['mean']:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
            sentences.append(f"{metric}: {words} {points}")
    return sentences


def problem_counts(document: dict[str, Any]) -> list[list[str]]:
    """Rows of (kind, how often, whether such pairs are in the means)."""
    counts = Counter((problem["kind"], problem["counted"]) for problem in document["problems"])
    return [
        [kind, str(times), "yes, as 0" if counted else "no"]
        for (kind, counted), times in sorted(counts.items())
    ]
