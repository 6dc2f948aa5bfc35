"""The curves of the report as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

#: Okabe and Ito's colours, which remain apart for colour-blind readers; then the same again, dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A8A00")
DASHES = ("-", "--", ":")


def mma_plot(rows: Sequence[dict[str, Any]]) -> str:
    """Matching accuracy over the threshold, with 95 % bands."""
    drawn = [row for row in rows if row["mma"] is not None]
    if not drawn:
        return ""
    figure, axes = _figure()
    for k, row in enumerate(drawn):
        pixels = range(1, len(row["mma"]) + 1)
        low, high = row["interval"]["mma"]
        axes.plot(pixels, row["mma"], **_style(k), label=row["describer"])
        axes.fill_between(pixels, low, high, color=_style(k)["color"], alpha=0.08, linewidth=0)
    axes.set(xlabel="threshold, px", ylabel="matches within it", xlim=(1, len(drawn[0]["mma"])))
    return _svg(figure, axes)


def binned_plot(curve: dict[str, Any], metric: str) -> str:
    """A metric over bins of what changed; bars are 95 % intervals."""
    drawn = {name: means[metric] for name, means in curve["describers"].items() if metric in means}
    if not drawn:
        return ""
    figure, axes = _figure()
    for k, (name, bins) in enumerate(drawn.items()):
        place = [
            b + 0.5 * (k / max(1, len(drawn) - 1) - 0.5) for b in range(len(bins))
        ]  # side by side, not stacked
        means = [b["mean"] for b in bins]
        ends = [[abs(b["mean"] - b["interval"][side]) for b in bins] for side in (0, 1)]
        axes.errorbar(place, means, ends, **_style(k), label=name, marker="o", markersize=3, elinewidth=0.6)
    axes.set(xlabel=curve["label"], ylabel=metric)
    axes.set_xticks(range(len(curve["bins"])), [_bin_name(b) for b in curve["bins"]], fontsize=8)
    return _svg(figure, axes)


def _bin_name(one: dict[str, Any]) -> str:
    reach = f"≥ {one['low']:g}" if one["high"] is None else f"{one['low']:g}–{one['high']:g}"
    return f"{reach}\n{one['pairs']} pairs"


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    return figure, figure.add_subplot()


def _style(k: int) -> dict[str, Any]:
    return {
        "color": COLOURS[k % len(COLOURS)],
        "linestyle": DASHES[k // len(COLOURS) % len(DASHES)],
        "linewidth": 1.4,
    }


def _svg(figure: Figure, axes: Axes) -> str:
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), fontsize=8, frameon=False)
    buffer = io.StringIO()
    # Text stays text, to be searched and scaled; no date and no random ids: same results, same page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "lisrd", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
