"""What changed between two evaluations of the same pairs, with paired confidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lisrd.errors import InputError
from lisrd.evaluate.metrics.bootstrap import paired_difference
from lisrd.evaluate.summary import EVERYTHING

#: Per-pair scores that can be compared as means, higher is better.
METRICS = ("precision", "recall", "homography_accuracy", "homography_accuracy_magsac", "num_correct")

Document = dict[str, Any]


def compare(
    a: str | Path | Document,
    b: str | Path | Document,
    describer_a: str | None = None,
    describer_b: str | None = None,
) -> dict[str, Any]:
    """What run B gains over run A on the pairs that both scored.

    A run is a `results.json` or what `evaluate` returned. Every describer of both runs is compared with
    itself; naming `describer_a` and `describer_b` compares those two instead.

    Returns `rows` of {describer, part, pairs, metrics: {name: {a, b, difference, interval, better}}}, where
    `better` is the share of bootstrap samples in which B is ahead; `settings` that differ; and `only_a`,
    `only_b`: pairs that were left out. Raises `InputError` where nothing can be compared.
    """
    first, second = _document(a), _document(b)
    try:
        return _compared(first, second, describer_a, describer_b)
    except InputError:
        raise
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        # Checking all of two files beforehand would take more lines than comparing them.
        raise InputError(f"a run is damaged or of another version ({error!r}): evaluate again") from None


def _compared(
    first: Document, second: Document, describer_a: str | None, describer_b: str | None
) -> dict[str, Any]:
    names = _described_by_both(first, second, describer_a, describer_b)
    pairs_a, pairs_b = _scored_pairs(first), _scored_pairs(second)
    shared = [name for name in pairs_a if name in pairs_b]
    if not shared:
        raise InputError("the two runs share no pair that both scored; evaluate the same data set twice")
    parts = sorted({pairs_a[name]["part"] for name in shared} - {EVERYTHING})
    rows = []
    for part in (*parts, EVERYTHING):
        chosen = [name for name in shared if part in (pairs_a[name]["part"], EVERYTHING)]
        for name_a, name_b in names:
            scores_a = [pairs_a[name]["scores"][name_a] for name in chosen]
            scores_b = [pairs_b[name]["scores"][name_b] for name in chosen]
            label = name_a if name_a == name_b else f"{name_a} -> {name_b}"
            row = {
                "describer": label,
                "part": part,
                "pairs": len(chosen),
                "metrics": _changes(scores_a, scores_b),
            }
            rows.append(row)
    return {
        "rows": rows,
        "settings": _different_settings(first, second),
        "only_a": sorted(set(pairs_a) - set(pairs_b)),
        "only_b": sorted(set(pairs_b) - set(pairs_a)),
    }


def _document(source: str | Path | Document) -> Document:
    if isinstance(source, dict):
        return source
    try:
        document = json.loads(Path(source).read_text())
    except FileNotFoundError:
        raise InputError(f"no {source}: give the results.json of `lisrd evaluate --out`") from None
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{source} is not the results.json of an evaluation ({error})") from None
    if not isinstance(document, dict) or not {"pairs", "settings"} <= set(document):
        raise InputError(
            f"{source} has no `pairs` and `settings`: give the results.json of `lisrd evaluate --out`"
        )
    return document


def _described_by_both(
    first: Document, second: Document, describer_a: str | None, describer_b: str | None
) -> list[tuple[str, str]]:
    of_a, of_b = first["settings"]["describers"], second["settings"]["describers"]
    if describer_a or describer_b:
        chosen_a = describer_a or describer_b
        chosen_b = describer_b or describer_a
        if chosen_a not in of_a or chosen_b not in of_b:
            raise InputError(f"run A has {', '.join(of_a)}; run B has {', '.join(of_b)}: name one of each")
        return [(str(chosen_a), str(chosen_b))]
    both = [(name, name) for name in of_a if name in of_b]
    if both:
        return both
    if len(of_a) == len(of_b) == 1:
        return [(of_a[0], of_b[0])]
    raise InputError(
        f"no describer is in both: A has {', '.join(of_a)}, B has {', '.join(of_b)}; name one of each"
    )


def _scored_pairs(document: Document) -> dict[str, Any]:
    return {pair["name"]: pair for pair in document["pairs"] if pair["scores"]}


def _changes(scores_a: Sequence[dict[str, Any]], scores_b: Sequence[dict[str, Any]]) -> dict[str, Any]:
    changes = {}
    for metric in METRICS:
        if any(score[metric] is None for score in (*scores_a, *scores_b)):
            continue  # not defined for this data set's ground truth
        values_a = [float(score[metric]) for score in scores_a]
        values_b = [float(score[metric]) for score in scores_b]
        difference, interval, better = paired_difference(values_a, values_b)
        changes[metric] = {
            "a": sum(values_a) / len(values_a),
            "b": sum(values_b) / len(values_b),
            "difference": difference,
            "interval": list(interval),
            "better": better,
        }
    return changes


def _different_settings(first: Document, second: Document) -> dict[str, list[Any]]:
    """All but the describers should be the same for a comparison to mean anything."""
    a, b = first["settings"], second["settings"]
    names = [name for name in {**a, **b} if name != "describers"]
    return {name: [a.get(name), b.get(name)] for name in names if a.get(name) != b.get(name)}
