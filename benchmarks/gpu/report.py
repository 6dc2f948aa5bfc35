"""`RESULTS_GPU.md`, made of `results_gpu.json` alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.report import table

Row = dict[str, Any]

_ABOUT = """\
Times are medians of CUDA events around single calls, MB the peak of the GPU's memory over the inputs. *Share of
ceiling* is the time that a case's operations or bytes (whichever take longer) need at the speed of the ceilings in its
arithmetic, over its own; *busy* the share of the wall time in which a kernel runs. *Changed* are keypoints whose
nearest neighbour is another one than by torch's pass in float32; *lost* is the most similarity that this costs."""


def write_report(results: dict[str, Any], path: Path) -> None:
    """The tables, for a file beside `results_gpu.json`."""
    machine = results["machine"]
    made = (
        "Made by `python -m benchmarks.gpu`; with `--report` again of `results_gpu.json`, nothing measured."
    )
    parts = ["# Speed on a GPU", f"{machine['device']}. {made}"]
    parts += ["\n".join(f"* {name}: {value}" for name, value in machine.items() if name != "device")]
    parts += [_ABOUT]
    if "calls" in results:
        parts += ["\n".join(f"* call {number}: {words}" for number, words in results["calls"].items())]
    path.write_text("\n\n".join([*parts, *sections(results["rows"])]) + "\n")


def sections(rows: list[Row]) -> Iterator[str]:
    """A title and a table for every part that was measured."""
    for title, groups, columns in _SECTIONS:
        chosen = [row for row in rows if row["group"] in groups]
        extra = [name for name, key in _WHERE_KNOWN.items() if any(key in row for row in chosen)]
        if chosen:
            yield f"## {title}"
            yield _table((*columns, *extra), chosen)


def _table(columns: Iterable[str], rows: Iterable[Row]) -> str:
    names = list(columns)
    return table(names, ([_COLUMNS[name](row) for name in names] for row in rows))


def _number(key: str, pattern: str, factor: float = 1.0) -> Callable[[Row], str]:
    """The value of a row under `key`, empty where it was not measured."""
    return lambda row: "" if row.get(key) is None else format(factor * row[key], pattern)


def _speed(row: Row) -> str:
    if "seconds" not in row:
        return ""
    amount, unit = (row["operations"], "TFLOP/s") if row["operations"] else (row["bytes"], "TB/s")
    return f"{amount / row['seconds'] / 1e12:.1f} {unit}"


_COLUMNS: dict[str, Callable[[Row], str]] = {
    "case": lambda row: row["name"],
    "products": lambda row: row["unit"],
    "ms": _number("seconds", ".2f", 1000),
    "fastest, ms": _number("fastest", ".2f", 1000),
    "speed": _speed,
    "a second": _number("items_per_second", ".0f"),
    "MB": _number("megabytes_over_input", ".0f"),
    "share of ceiling": _number("share_of_ceiling", ".1%"),
    "busy": _number("gpu_busy_share", ".0%"),
    "kernels": _number("kernels_per_step", ".0f"),
    "changed in image 0": _number("changed_rows", ".2%"),
    "changed in image 1": _number("changed_columns", ".2%"),
    "lost": _number("largest_loss", ".5f"),
    "tile": lambda row: row.get("tile", ""),
    "call": _number("call", ".0f"),
    "error": lambda row: row.get("error", "").replace("\n", " ").replace("|", "/")[:90],
}
_CHANGES = ("share of ceiling", "changed in image 0", "changed in image 1", "lost")
_SECTIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Ceilings", ("ceilings",), ("case", "products", "ms", "speed")),
    (
        "Describing, images a second",
        ("describe",),
        ("case", "products", "ms", "fastest, ms", "a second", "MB", "share of ceiling"),
    ),
    (
        "Training, triplets a second",
        ("train",),
        ("case", "products", "ms", "fastest, ms", "a second", "MB", "busy", "kernels"),
    ),
    ("Matching N x N keypoints", ("match", "triton"), ("case", "products", "ms", "MB", *_CHANGES)),
    ("Tiles of the Triton kernel", ("tiles",), ("case", "products", "ms", *_CHANGES)),
)
#: Columns that are shown where a row has something for them.
_WHERE_KNOWN = {"tile": "tile", "call": "call", "error": "error"}
