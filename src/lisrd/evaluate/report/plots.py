"""The curves of the report, inline SVG in the page and PNG beside it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lisrd.evaluate.methods import split_name

#: Okabe and Ito's colours, which remain apart for colour-blind readers; then the same again, dotted.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
METRICS = ("precision", "recall")


def mma_plot(rows: Sequence[dict[str, Any]]) -> str:
    """Matching accuracy over the threshold, with 95 % bands (not for the parts of a bank)."""
    drawn = [row for row in rows if row["mma"] is not None]
    if not drawn:
        return ""
    figure = _figure()
    axes = figure.add_subplot()
    for k, row in enumerate(drawn):
        pixels = range(1, len(row["mma"]) + 1)
        style = _style(k, row["describer"])
        axes.plot(pixels, row["mma"], **style, label=row["label"])
        if not _is_part(row["describer"]):
            axes.fill_between(pixels, *row["interval"]["mma"], color=style["color"], alpha=0.08, linewidth=0)
    axes.set(xlabel="threshold, px", ylabel="matches within it", xlim=(1, len(drawn[0]["mma"])))
    return _svg(_dressed(figure))


def binned_plot(curve: dict[str, Any], labels: dict[str, str]) -> str:
    """Precision and recall over bins of what changed; bars are 95 % intervals (not for the parts of a bank)."""
    figure = _binned_figure(curve, labels)
    return "" if figure is None else _svg(figure)


def binned_png(curve: dict[str, Any], labels: dict[str, str]) -> bytes | None:
    """The same as a picture for other documents; None where the truth defines no metric."""
    figure = _binned_figure(curve, labels)
    if figure is None:
        return None
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _binned_figure(curve: dict[str, Any], labels: dict[str, str]) -> Figure | None:
    metrics = [m for m in METRICS if any(m in means for means in curve["describers"].values())]
    if not metrics:
        return None
    figure = _figure()
    every = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(every, metrics, strict=True):
        for k, (name, means) in enumerate(curve["describers"].items()):
            _draw_bins(axes, means[metric], k, name, labels[name], len(curve["describers"]))
        axes.set(xlabel=curve["label"], ylabel=metric)
        axes.set_xticks(range(len(curve["bins"])), [_bin_name(b) for b in curve["bins"]], fontsize=7)
    return _dressed(figure)


def _draw_bins(axes: Axes, bins: Sequence[dict[str, Any]], k: int, name: str, label: str, count: int) -> None:
    beside = 0.4 * (k / max(1, count - 1) - 0.5)  # bars side by side, not one over the other
    places, means = [b + beside for b in range(len(bins))], [b["mean"] for b in bins]
    style = _style(k, name)
    if _is_part(name):
        axes.plot(places, means, **style, label=label, marker=".", markersize=3)
        return
    ends = [[abs(b["mean"] - b["interval"][side]) for b in bins] for side in (0, 1)]
    axes.errorbar(places, means, ends, **style, label=label, marker="o", markersize=3, elinewidth=0.7)


def _bin_name(one: dict[str, Any]) -> str:
    reach = f"≥ {one['low']:g}" if one["high"] is None else f"{one['low']:g}–{one['high']:g}"
    return f"{reach}\n{one['pairs']} pairs"


def _is_part(name: str) -> bool:
    return len(split_name(name)) > 1


def _style(k: int, name: str) -> dict[str, Any]:
    again = k >= len(COLOURS)
    if _is_part(name):
        return {"color": COLOURS[k % len(COLOURS)], "linestyle": ":" if again else "--", "linewidth": 0.9}
    return {"color": COLOURS[k % len(COLOURS)], "linestyle": "-." if again else "-", "linewidth": 1.8}


def _figure() -> Figure:
    return Figure(figsize=(11.5, 3.8), layout="constrained")


def _dressed(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=8, frameon=False)
    return figure


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # Text stays text, to be searched and scaled; no date and no random ids: same results, same page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lisrd", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
