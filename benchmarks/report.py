"""`RESULTS.md` and the plot, made of `results.json` alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

_LABELS = {
    "ours": "match(), 4 x 128-d, online selection",
    "direct": "direct formulation",
    "plain_nn512": "plain nearest neighbours, 512-d",
    "plain_nn128": "plain nearest neighbours, 128-d",
}


def write_report(results: dict[str, Any], path: Path) -> None:
    """The tables beside `results.json`, and the plot of growth beside them."""
    machine = results["machine"]
    parts = ["# Speed", f"{machine['name']}. Made by `python -m benchmarks.run`."]
    parts += [
        _list(machine),
        "`ratio` is baseline over ours, medians of interleaved runs: above 1, ours is faster.",
    ]
    parts += [_comparisons(results["rows"])]
    if results["stages"]:
        parts += ["## Two photographs, from files to verified matches", _stages(results["stages"])]
    if "growth" in results:
        _plot(results["growth"], path.with_name("growth.png"))
        parts += ["## Matching N x N keypoints", "![Seconds against keypoints](growth.png)"]
        parts += [_growth(results["growth"])]
        parts += ["## Memory of matching", _memory(results["memory"])]
        parts += ["## Floors", _ceilings(results["ceilings"]), _floors(results["floors"])]
    path.write_text("\n\n".join(parts) + "\n")


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Markdown."""
    names = list(header)
    lines = [names, ["---"] * len(names), *([str(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(machine: dict[str, Any]) -> str:
    return "\n".join(f"* {name}: {value}" for name, value in machine.items() if name != "name")


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1000 * seconds:.1f}"


def _comparisons(rows: list[dict[str, Any]]) -> str:
    return table(
        ("name", "ours", "baseline", "ours, ms", "baseline, ms", "ratio"),
        (
            (
                f"`{row['name']}`",
                row["ours"],
                row["baseline"],
                _milliseconds(row["seconds_ours"]),
                _milliseconds(row["seconds_baseline"]),
                f"**{row['ratio']:.2f}**",
            )
            for row in rows
        ),
    )


def _growth(growth: list[dict[str, float]]) -> str:
    return table(
        ("keypoints", *(f"{label}, ms" for label in _LABELS.values())),
        ((row["keypoints"], *(_milliseconds(row.get(name)) for name in _LABELS)) for row in growth),
    )


def _plot(growth: list[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure  # without pyplot: no display, no global state

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot(
        xscale="log", yscale="log", xlabel="keypoints in each image", ylabel="seconds, median"
    )
    for name, label in _LABELS.items():
        known = [(row["keypoints"], row[name]) for row in growth if name in row]
        axes.plot(*zip(*known, strict=True), marker="o", label=label)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def _memory(memory: list[dict[str, float]]) -> str:
    return table(
        ("keypoints", "descriptors in, MB", "peak over the input, MB"),
        (
            (row["keypoints"], f"{row['input_megabytes']:.0f}", f"{row['megabytes_over_input']:.0f}")
            for row in memory
        ),
    )


def _stages(stages: dict[str, float]) -> str:
    total = sum(stages.values())
    return table(
        ("stage", "ms, both images", "share"),
        ((name, _milliseconds(seconds), f"{seconds / total:.0%}") for name, seconds in stages.items()),
    )


def _ceilings(ceilings: dict[str, float]) -> str:
    return (
        f"Ceilings measured in the same run: copy {ceilings['copy_bytes_per_second'] / 1e9:.1f} GB/s, "
        f"matrix product {ceilings['float32_operations_per_second'] / 1e9:.0f} GFLOP/s in float32, "
        f"{ceilings['bfloat16_operations_per_second'] / 1e9:.0f} in bfloat16."
    )


def _floors(floors: list[dict[str, Any]]) -> str:
    return table(
        (
            "stage",
            "precision",
            "GFLOP",
            "MB",
            "floor by operations, ms",
            "floor by bytes, ms",
            "measured, ms",
            "times the floor",
        ),
        (
            (
                f["stage"],
                f["precision"],
                f"{f['operations'] / 1e9:.2f}",
                f"{f['bytes'] / 1e6:.0f}",
                _milliseconds(f["seconds_operations"]),
                _milliseconds(f["seconds_bytes"]),
                _milliseconds(f["seconds_measured"]),
                f"{f['seconds_measured'] / max(f['seconds_operations'], f['seconds_bytes']):.1f}",
            )
            for f in floors
        ),
    )
