"""A picture of what the network sees: triplets with their keypoints and a few correspondences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lisrd.train.data.triplets import Triplets
from lisrd.whole_file import whole_file

_TITLES = ("anchor", "changed", "steady")


def draw_sheet(triplets: Triplets, path: Path | str, rows: int = 8, correspondences: int = 24) -> None:
    """Writes a PNG: one row per triplet; equal colours and numbers mark one keypoint in the three images."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = min(rows, triplets.images.shape[1])
    height, width = triplets.images.shape[-2:]
    figure = Figure(figsize=(3 * 4, rows * 4 * height / width + 0.25 * rows), layout="constrained")
    axes = figure.subplots(rows, 3, squeeze=False)
    for row in range(rows):
        chosen = _spread_choice(triplets.keypoints[0, row], triplets.mask[row], correspondences)
        for view in range(3):
            axis = axes[row, view]
            axis.imshow(triplets.images[view, row].permute(1, 2, 0).cpu().float().numpy())
            axis.set_title(_caption(triplets, row, view), fontsize=8)
            axis.set_axis_off()
            _draw_keypoints(axis, triplets.keypoints[view, row], triplets.mask[row], chosen)
    with whole_file(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _draw_keypoints(axis: Any, keypoints: Tensor, mask: Tensor, chosen: np.ndarray) -> None:
    xy = keypoints.cpu().numpy()
    seen = xy[mask.cpu().numpy()]
    axis.scatter(*seen.T, s=2, c="yellow", linewidths=0)
    axis.scatter(
        *xy[chosen].T, s=18, c=np.arange(len(chosen)), cmap="hsv", edgecolors="black", linewidths=0.4
    )
    for number, (x, y) in enumerate(xy[chosen]):
        axis.annotate(
            str(number), (x, y), xytext=(3, 3), textcoords="offset points", fontsize=6, color="white"
        )


def _spread_choice(keypoints: Tensor, mask: Tensor, number: int) -> np.ndarray:
    """Indices of visible keypoints, each the farthest from those before it."""
    index = mask.cpu().nonzero().squeeze(1).numpy()
    xy = keypoints.cpu().numpy()[index]
    chosen: list[int] = []
    distance = np.full(len(index), np.inf)
    for _ in range(min(number, len(index))):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(xy - xy[chosen[-1]], axis=1))
    return index[chosen]


def _caption(triplets: Triplets, row: int, view: int) -> str:
    if view != 1:
        return _TITLES[view]
    light = "other light" if triplets.illumination_changed[row] else "same light"
    return f"changed: turned {np.rad2deg(float(triplets.angle[row])):.0f}°, {light}"
