"""`lisrd evaluate`, and `lisrd evaluate compare` of two of its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lisrd.cli.console import SOME_BROKEN, JsonOption, answer, words
from lisrd.errors import InputError

#: Columns of the table on the terminal; the report has all of them.
_COLUMNS = {
    "precision": "precision",
    "recall": "recall",
    "homography_accuracy": "homography",
    "pose_auc_5": "pose 5°",
    "pose_auc_10": "pose 10°",
    "pose_auc_20": "pose 20°",
}


def evaluate(
    root: Annotated[str, typer.Argument(help="Data set folder; or `compare` and two result files.")],
    others: Annotated[list[Path] | None, typer.Argument(help="With compare: A.json B.json.")] = None,
    layout: Annotated[str, typer.Option(help="hpatches, rdnim, pairs, poses or sweep.")] = "hpatches",
    describers: Annotated[str, typer.Option(help="Names, separated by commas.")] = "pyramid,root-sift",
    detector: str = "sift",
    max_keypoints: Annotated[int, typer.Option(min=1)] = 1000,
    out: Annotated[Path | None, typer.Option(help="Features, scores and the report go here.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes; the result is the same.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="So many pairs, spread over the data set.")] = None,
    pairs_file: Annotated[Path | None, typer.Option(help="poses: the list of pairs, wherever it is.")] = None,
    longest_side: Annotated[int | None, typer.Option(help="poses, sweep: shrink images to this.")] = None,
    geometry: Annotated[
        str | None, typer.Option(help="full or ablation: rows of the geometry stage.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure describers on a data set, or compare two results."""
    if root == "compare":
        _compare(others or [], json)
        return
    if others:
        raise InputError(f"evaluate takes one folder; {others[0]} is a second one")
    from lisrd.evaluate import BROKEN_INPUT
    from lisrd.evaluate import evaluate as run_evaluation

    optional: dict[str, Any] = {
        "pairs_file": pairs_file,
        "longest_side": longest_side,
        "geometry": geometry,
    }
    document = run_evaluation(
        Path(root),
        layout=layout,
        describers=split_describers(describers),
        detector=detector,
        max_keypoints=max_keypoints,
        out=out,
        workers=workers,
        limit=limit,
        **{name: value for name, value in optional.items() if value is not None},
    )
    tables = [_table(document["rows"]), *_geometry_table(document["geometry"])]
    answer(document, json, "\n\n".join(tables))
    broken = [problem for problem in document["problems"] if problem["kind"] in BROKEN_INPUT]
    for problem in broken:
        words.print(f"broken: {problem}", markup=False)
    if broken:
        raise typer.Exit(SOME_BROKEN)


def split_describers(text: str) -> list[str]:
    """Names at commas; the second path of lisrd-aliked, and the file of a selection behind it, stay with it."""
    names: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        if names and _belongs_to(names[-1], part):
            names[-1] += f",{part}"
        else:
            names.append(part)
    return names


def _belongs_to(name: str, part: str) -> bool:
    if not name.startswith("lisrd-aliked="):
        return False
    commas = name.count(",")
    return commas == 0 or (commas == 1 and _is_selection(part))


def _is_selection(part: str) -> bool:
    from lisrd.describe.weights import read_metadata

    return part.endswith(".safetensors") and read_metadata(part)["kind"] == "selector"


def _compare(results: Sequence[Path], json: bool) -> None:
    from lisrd.evaluate import compare

    if len(results) != 2:
        raise InputError("compare needs two result files: lisrd evaluate compare A.json B.json")
    document = compare(results[0], results[1])
    answer(document, json, _changes(document))


def _table(rows: Sequence[dict[str, Any]]) -> str:
    shown = {
        name: title for name, title in _COLUMNS.items() if any(row.get(name) is not None for row in rows)
    }
    lines = [["describer", "part", "pairs", *shown.values()]]
    lines += [
        [row["describer"], row["part"], str(row["pairs"]), *(_percent(row.get(name)) for name in shown)]
        for row in rows
    ]
    return _aligned(lines)


def _geometry_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line per estimate of the geometry stage; no table where they were not asked for."""
    lines = [["describer", "part", "estimate", "pairs", "1 px", "3 px", "5 px", "error, px", "of all, px"]]
    for row in rows:
        shares = (_percent(row[f"accuracy_{pixels}"]) for pixels in (1, 3, 5))
        named = [row["describer"], row["part"], row["estimate"], str(row["pairs"])]
        errors = (_pixels(row[name]) for name in ("median_error", "error_of_all"))
        lines.append([*named, *shares, *errors])
    return [_aligned(lines)] if rows else []


def _changes(document: dict[str, Any]) -> str:
    """One line per describer, part and metric: A, B, and what B gains with its paired 95 % interval."""
    lines = [["describer", "part", "pairs", "metric", "A", "B", "gain", "95 %"]]
    for row in document["rows"]:
        for metric, change in row["metrics"].items():
            numbers = (change["a"], change["b"], change["difference"], *change["interval"])
            a, b, gain, low, high = (_number(value, metric) for value in numbers)
            lines.append(
                [row["describer"], row["part"], str(row["pairs"]), metric, a, b, gain, f"{low} to {high}"]
            )
    different = (f"{name}: {a} in A, {b} in B" for name, (a, b) in document["settings"].items())
    left_out = (
        f"{len(document[key])} pairs are in {key[-1].upper()} alone"
        for key in ("only_a", "only_b")
        if document[key]
    )
    return "\n".join([_aligned(lines), *different, *left_out])


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _number(value: float, metric: str) -> str:
    return f"{value:.1f}" if metric.startswith("num_") else _percent(value)


def _pixels(error: float | None) -> str:
    return "-" if error is None else f"{error:.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
