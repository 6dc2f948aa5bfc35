"""The picture of `lisrd match`: what matched, by which invariance, and which region used which.

Both images stand beside each other. A match has the colour of the invariance with its highest weight; what the verified
model agrees with is drawn strong, the rest faint. Below each image, one map per invariance shows the mean weight of the
matches in every tile.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.types import ImageLike, LocalFeatures, Matches
from lisrd.view.layout import CAPTION, MARGIN, WIDTH, Box, Layout, arrange
from lisrd.view.tiles import chosen_invariances, tile_weights_of
from lisrd.whole_file import whole_file

DPI = 100
#: More lines than this hide the images: of the rest only the ends are drawn.
MAX_INLIER_LINES, MAX_OUTLIER_LINES = 200, 100
#: Bright enough to stand on a photograph, and different to eyes that confuse red and green.
COLOURS = ("#ff9f1c", "#2d9bf0", "#14c9a2", "#f0549a", "#ffe14d", "#9b6bff", "#c0392b", "#7f8c8d")
INK, FAINT, EMPTY = "#1d2733", "#6b7785", "#eef1f4"


def draw_matches(
    image0: ImageLike,
    image1: ImageLike,
    features0: LocalFeatures,
    features1: LocalFeatures,
    matches: Matches,
    inliers: Bool[np.ndarray | Tensor, " S"],
    path: str | Path,
    verified: str = "",
) -> None:
    """Draw the matches of one pair (batches of one) into `path`, 1600 pixels wide.

    `inliers` are the matches that agree with the model called `verified` ("homography"). The format follows the suffix.

    Raises:
        InputError: a suffix that no picture has, or `inliers` of another length than the matches.
    """
    path = Path(path)
    inside = np.asarray(inliers.cpu() if isinstance(inliers, Tensor) else inliers, dtype=bool)
    if inside.shape != (len(matches),):
        raise InputError(f"inliers have the shape {inside.shape}; pass one per match, ({len(matches)},)")
    check_suffix(path)
    figure = Figure(dpi=DPI, facecolor="white")
    features = (features0, features1)
    sizes = [(int(width), int(height)) for width, height in (f.image_size[0].tolist() for f in features)]
    has_choice = len(matches) > 0 and len(matches.invariances) > 1
    layout = arrange(sizes[0], sizes[1], len(matches.invariances) if has_choice else 0)
    figure.set_size_inches(WIDTH / DPI, layout.height / DPI)
    page = _page(figure, layout)
    _write_header(page, features, matches, inside, verified)
    for image, box, one in zip((image0, image1), layout.images, features, strict=True):
        _show_photograph(page, image, box)
        _show_tile_borders(page, box, one.meta_descriptors.shape[-2])
    _connect(page, layout, features, sizes, matches, inside)
    if has_choice:
        _show_tile_maps(page, layout, features, matches)
    with whole_file(path) as partial:
        figure.savefig(partial)


def check_suffix(path: Path) -> None:
    """Raises InputError for a suffix that no picture has."""
    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise InputError(f"{path}: no picture has the suffix {path.suffix!r}; use .png, .jpg or .pdf")


def _page(figure: Figure, layout: Layout) -> Axes:
    """Axes over the whole picture whose unit is its pixel, y downwards."""
    page = figure.add_axes((0, 0, 1, 1))
    page.set_xlim(0, WIDTH)
    page.set_ylim(layout.height, 0)
    page.axis("off")
    return page


def _write_header(
    page: Axes,
    features: tuple[LocalFeatures, LocalFeatures],
    matches: Matches,
    inside: np.ndarray,
    verified: str,
) -> None:
    counts = " and ".join(f"{f.keypoints.shape[1]:,}" for f in features)
    model = f" of the {verified}" if verified else ""
    found = f"{inside.sum():,} inliers{model}" if inside.any() else "no verified model"
    title = f"{counts} keypoints · {len(matches):,} matches · {found}"
    page.text(MARGIN, 34, title, size=15, weight="bold", color=INK, va="center")
    if matches.turn:
        turn = f"image 1 read turned by {90 * matches.turn:g}° counter-clockwise"
        page.text(WIDTH - MARGIN, 34, turn, size=12, color=FAINT, va="center", ha="right")
    _write_legend(page, matches)


def _write_legend(page: Axes, matches: Matches) -> None:
    """Every invariance with the share of the matches that chose it."""
    chosen = chosen_invariances(matches)
    shares = (torch.bincount(chosen, minlength=len(matches.invariances)) / max(1, len(matches))).tolist()
    spacing = min(380.0, (WIDTH - 2 * MARGIN) / len(matches.invariances))
    texts = [
        f"{name}  chosen by {share:.0%}" for name, share in zip(matches.invariances, shares, strict=True)
    ]
    size = min(12.5, 1.2 * (spacing - 36) / max(map(len, texts)))
    for v, text in enumerate(texts):
        left = MARGIN + v * spacing
        page.add_patch(Rectangle((left, 62), 26, 14, color=_colour(v), linewidth=0))
        page.text(left + 36, 69, text, size=size, color=INK, va="center_baseline")


def _show_photograph(page: Axes, image: ImageLike, box: Box) -> None:
    """The image at the size of its box, half of its colour taken out, so that the lines' colours stand out."""
    batch = as_image(image)[:1].detach().cpu()
    size = round(box.height), round(box.width)
    mode = "area" if size[0] < batch.shape[2] else "bilinear"  # enlarged by area, pixels would show
    pixels = F.interpolate(batch, size, mode=mode)[0].permute(1, 2, 0).numpy()
    muted = 0.5 * pixels + 0.5 * pixels.mean(axis=2, keepdims=True)
    extent = (box.left, box.left + box.width, box.top + box.height, box.top)
    page.imshow(muted, extent=extent, aspect="auto", interpolation="nearest", zorder=0, vmin=0, vmax=1)


def _show_tile_borders(page: Axes, box: Box, tiles_per_side: int) -> None:
    right, bottom = box.left + box.width, box.top + box.height
    borders = []
    for share in np.arange(1, tiles_per_side) / tiles_per_side:
        x, y = box.left + share * box.width, box.top + share * box.height
        borders += [[(x, box.top), (x, bottom)], [(box.left, y), (right, y)]]
    _lines(page, np.array(borders), ["white"] * len(borders), width=0.8, alpha=0.45, zorder=1)


def _connect(
    page: Axes,
    layout: Layout,
    features: tuple[LocalFeatures, LocalFeatures],
    sizes: list[tuple[int, int]],
    matches: Matches,
    inside: np.ndarray,
) -> None:
    """Lines between matched keypoints: outliers below and faint, inliers above with a dark rim and dots."""
    ends = np.stack(
        [
            box.carry(f.keypoints[0, matches.matches[:, side]].detach().double().cpu().numpy(), sizes[side])
            for side, (box, f) in enumerate(zip(layout.images, features, strict=True))
        ],
        axis=1,
    )
    colours = np.array([_colour(v) for v in chosen_invariances(matches).tolist()], dtype=object)
    outside = _thinned(np.flatnonzero(~inside), MAX_OUTLIER_LINES)
    _lines(page, ends[outside], colours[outside], width=0.7, alpha=0.3, zorder=2)
    drawn = _thinned(np.flatnonzero(inside), MAX_INLIER_LINES)
    _lines(page, ends[drawn], [INK] * len(drawn), width=2.2, alpha=0.35, zorder=3)
    _lines(page, ends[drawn], colours[drawn], width=1.1, alpha=0.9, zorder=4)
    for side in (0, 1):
        x, y = ends[inside, side].T
        page.scatter(x, y, s=11, c=list(colours[inside]), edgecolors=INK, linewidths=0.4, zorder=5)


def _lines(
    page: Axes, segments: np.ndarray, colours: np.ndarray | list, width: float, alpha: float, zorder: int
) -> None:
    page.add_collection(
        LineCollection(list(segments), colors=list(colours), linewidths=width, alpha=alpha, zorder=zorder)
    )


def _show_tile_maps(
    page: Axes,
    layout: Layout,
    features: tuple[LocalFeatures, LocalFeatures],
    matches: Matches,
) -> None:
    """Mean weights in per cent, in shades up to the highest of both images."""
    maps = [tile_weights_of(f, matches.matches[:, side], matches).numpy() for side, f in enumerate(features)]
    highest = max(float(np.nanmax(one)) for one in maps)
    for side, (row, weights) in enumerate(zip(layout.tiles, maps, strict=True)):
        caption = f"image {side}: mean weight of each invariance in its tiles, per cent"
        page.text(row[0].left, row[0].top - CAPTION + 22, caption, size=11, color=FAINT, va="center")
        spacing = row[1].left - row[0].left
        for v, box in enumerate(row):
            name = matches.invariances[v]
            size = min(11.0, 1.2 * spacing / len(name))
            page.text(box.left, row[0].top - 12, name, size=size, color=INK, va="center")
            _show_tile_map(page, box, weights[v], highest, v)


def _show_tile_map(page: Axes, box: Box, weights: Float[np.ndarray, "T T"], highest: float, v: int) -> None:
    shades = LinearSegmentedColormap.from_list("weights", ["#ffffff", _colour(v)]).with_extremes(bad=EMPTY)
    extent = (box.left, box.left + box.width, box.top + box.height, box.top)
    page.imshow(
        weights, extent=extent, aspect="auto", cmap=shades, vmin=0, vmax=highest, interpolation="nearest"
    )
    page.add_patch(
        Rectangle((box.left, box.top), box.width, box.height, fill=False, color=_colour(v), linewidth=1.2)
    )
    T = len(weights)
    for row, column in np.ndindex(T, T):
        value = weights[row, column]
        x = box.left + (column + 0.5) * box.width / T
        y = box.top + (row + 0.5) * box.height / T
        label = f"{100 * value:.0f}" if np.isfinite(value) else "–"
        page.text(
            x, y, label, size=min(11, 0.4 * box.height / T), color=INK, ha="center", va="center_baseline"
        )


def _thinned(indices: np.ndarray, most: int) -> np.ndarray:
    """Evenly spaced ones of too many."""
    step = max(1, -(-len(indices) // most))
    return indices[::step]


def _colour(v: int) -> str:
    return COLOURS[v % len(COLOURS)]
