"""The picture of a diagnosis: weights over the pairs, directions of the images, changes of light."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from lisrd.diagnose.collection import LIGHT_CHANGED, TURNED, Diagnosis, ImageFinding
from lisrd.errors import InputError
from lisrd.view.plot import COLOURS, DPI, FAINT, INK, check_suffix
from lisrd.whole_file import whole_file

_WIDTH, _HEIGHT = 1600, 620
#: More names than this hide the arrows.
_NAMED_IMAGES = 12


def draw_diagnosis(diagnosis: Diagnosis, path: str | Path) -> None:
    """Draw the diagnosis into `path`, 1600 pixels wide; the format follows the suffix.

    Raises:
        InputError: a suffix that no picture has, or no verified pair to draw.
    """
    path = Path(path)
    check_suffix(path)
    if not diagnosis.weights:
        raise InputError("no pair was verified, so there is nothing to draw; give images that overlap")
    figure = Figure(dpi=DPI, facecolor="white", figsize=(_WIDTH / DPI, _HEIGHT / DPI), layout="constrained")
    grid = figure.add_gridspec(1, 3, width_ratios=(1.25, 1, 1))
    _draw_weights(figure.add_subplot(grid[0]), diagnosis)
    compass = figure.add_subplot(grid[1], projection="polar")
    assert isinstance(compass, PolarAxes)
    _draw_angles(compass, diagnosis)
    _draw_light(figure.add_subplot(grid[2]), diagnosis)
    verified = f"{len(diagnosis.verified):,} of {len(diagnosis.pairs):,} pairs verified"
    figure.suptitle(f"{len(diagnosis.images):,} images · {verified}", size=15, weight="bold", color=INK)
    with whole_file(path) as partial:
        figure.savefig(partial)


def _draw_weights(axes: Axes, diagnosis: Diagnosis) -> None:
    """A dot for each verified pair, the middle eight tenths as a bar, and how often the invariance won."""
    columns = np.array([pair.weights for pair in diagnosis.verified]).T
    spread = np.random.default_rng(0).uniform(-0.25, 0.25, columns.shape[1])
    for v, (summary, weights) in enumerate(zip(diagnosis.weights, columns, strict=True)):
        colour = COLOURS[v % len(COLOURS)]
        axes.barh(v, summary.high - summary.low, left=summary.low, height=0.6, color=colour, alpha=0.25)
        axes.scatter(weights, v + spread, s=9, color=colour, linewidths=0)
        axes.plot([summary.median] * 2, [v - 0.3, v + 0.3], color=INK, linewidth=2)
    labels = [f"{one.invariance}\nwins {one.wins:.0%}" for one in diagnosis.weights]
    axes.set_yticks(range(len(labels)), labels, color=INK)
    axes.set(xlim=(0, 1), xlabel="mean weight of the verified matches of a pair")
    axes.invert_yaxis()
    axes.set_title("which invariance the pairs relied on", color=INK)
    _plain(axes)


def _draw_angles(axes: PolarAxes, diagnosis: Diagnosis) -> None:
    """Up is how most of a group is held; clockwise is clockwise."""
    known = [image for image in diagnosis.images if image.angle is not None]
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set(ylim=(0, 1), yticks=[])
    axes.fill_between(np.radians(np.linspace(-TURNED, TURNED, 50)), 0, 1, color=FAINT, alpha=0.12)
    turned = sorted((image for image in known if image.turned), key=_size_of_turn)
    for image in known:
        colour = COLOURS[3] if image.turned else COLOURS[1]
        axes.plot([0, _radians(image)], [0, 0.82], color=colour, linewidth=1.2, alpha=0.7)
    for image in turned[-_NAMED_IMAGES:]:
        axes.text(
            _radians(image), 0.9, Path(image.name).stem[-14:], size=7, color=INK, ha="center", va="center"
        )
    axes.set_title(f"how the images are held: {len(turned)} of {len(known)} turned", color=INK)


def _draw_light(axes: Axes, diagnosis: Diagnosis) -> None:
    changes = [pair.light_change for pair in diagnosis.verified if pair.light_change is not None]
    axes.set_title("change of light between the images of a pair", color=INK)
    if not changes:
        axes.text(
            0.5, 0.5, "this describer does not tell", ha="center", transform=axes.transAxes, color=FAINT
        )
        axes.set_axis_off()
        return
    counts, edges = np.histogram(changes, bins=min(30, max(8, len(changes) // 4)))
    middles = (edges[:-1] + edges[1:]) / 2
    colours = [COLOURS[3] if middle > LIGHT_CHANGED else COLOURS[1] for middle in middles]
    axes.bar(middles, counts, width=0.9 * (edges[1] - edges[0]), color=colours)
    axes.axvline(LIGHT_CHANGED, color=INK, linewidth=1, linestyle="--")
    axes.set(xlabel="similarity, illumination invariant minus variant kinds", ylabel="verified pairs")
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=FAINT)


def _size_of_turn(image: ImageFinding) -> float:
    return abs(image.angle or 0.0)


def _radians(image: ImageFinding) -> float:
    return float(np.radians(image.angle or 0.0))
