"""The picture of matched images: where things lie, which colours they have, and that degenerate pairs are drawn too."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from lisrd.errors import InputError
from lisrd.image import read_image
from lisrd.types import LocalFeatures, Matches, Selection
from lisrd.view.layout import MARGIN, WIDTH, Box, arrange
from lisrd.view.plot import COLOURS, draw_matches
from lisrd.view.tiles import chosen_invariances, tile_weights_of

GREY = np.full((90, 120, 3), 128, np.uint8)


def features_at(xy: list[tuple[float, float]], names: tuple[str, ...], tiles: int = 3) -> LocalFeatures:
    """Features of a 120 x 90 image; what the picture does not show is zero."""
    n, v = len(xy), len(names)
    return LocalFeatures(
        keypoints=torch.tensor(xy, dtype=torch.float32).view(1, n, 2),
        keypoint_scores=torch.ones(1, n),
        descriptors=torch.zeros(1, n, v, 4),
        meta_descriptors=torch.zeros(1, v, tiles, tiles, 4),
        image_size=torch.tensor([[120.0, 90.0]]),
        mask=torch.ones(1, n, dtype=torch.bool),
        selection=Selection(names),
    )


def matched(weights: list[list[float]], names: tuple[str, ...], turn: int = 0) -> Matches:
    """Keypoint i of image 0 with keypoint i of image 1."""
    index = torch.arange(len(weights))
    table = torch.tensor(weights, dtype=torch.float32).view(len(weights), len(names))
    return Matches(
        torch.stack([index, index], 1), torch.ones(len(index)), table, (len(index),) * 2, names, turn
    )


def pixels_like(picture: np.ndarray, colour: str) -> int:
    return int((np.abs(picture / 255 - to_rgb(colour)).max(-1) < 0.2).sum())


def test_a_pixel_centre_lands_in_the_middle_of_its_enlarged_pixel() -> None:
    box = Box(left=10.0, top=20.0, width=40.0, height=20.0)  # a 4 x 2 image, ten times as large
    places = box.carry(np.array([[0.0, 0.0], [3.0, 1.0]]), (4, 2))
    assert places.tolist() == [[15, 25], [45, 35]]


@given(
    sizes=st.tuples(*[st.tuples(st.integers(32, 4000), st.integers(32, 4000))] * 2),
    count=st.integers(2, 8),
)
def test_nothing_overlaps_or_leaves_the_page(sizes, count: int) -> None:
    layout = arrange(*sizes, count)
    rows = [list(layout.images), [*layout.tiles[0], *layout.tiles[1]]]
    for row in rows:
        assert row[0].left >= MARGIN - 1e-6
        for before, after in pairwise(row):
            assert before.left + before.width < after.left
        assert row[-1].left + row[-1].width <= WIDTH - MARGIN + 1e-6
    below_images = layout.images[0].top + layout.images[0].height
    assert all(box.top > below_images and box.top + box.height < layout.height for box in rows[1])


def test_images_keep_their_shapes() -> None:
    wide, tall = arrange((640, 480), (480, 640), 0).images
    assert wide.width / wide.height == pytest.approx(640 / 480)
    assert tall.width / tall.height == pytest.approx(480 / 640)
    assert wide.height == tall.height


def test_tile_weights_by_hand() -> None:
    names = ("a", "b")
    features = features_at([(10, 10), (20, 20), (100, 80)], names)  # two in the first tile, one in the last
    matches = matched([[0.2, 0.8], [0.4, 0.6], [1.0, 0.0]], names)
    a, b = tile_weights_of(features, matches.matches[:, 0], matches)
    assert a[0, 0] == pytest.approx(0.3)
    assert b[0, 0] == pytest.approx(0.7)
    assert (a[2, 2], b[2, 2]) == (1, 0)
    assert int(torch.isnan(a).sum()) == 7


def test_tiles_follow_the_matches_and_not_the_order_of_keypoints() -> None:
    names = ("a", "b")
    features = features_at([(10, 10), (100, 80)], names)
    matches = matched([[0.0, 1.0]], names)
    matches.matches[0] = torch.tensor([1, 0])
    assert tile_weights_of(features, matches.matches[:, 0], matches)[1, 2, 2] == 1
    assert tile_weights_of(features, matches.matches[:, 1], matches)[1, 0, 0] == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.5, 119.4), st.floats(-0.5, 89.4)), min_size=1, max_size=20))
def test_weights_of_a_tile_sum_to_one(xy) -> None:
    names = ("a", "b", "c", "d")
    weights = torch.rand(len(xy), 4).softmax(1).tolist()
    matches = matched(weights, names)
    total = tile_weights_of(features_at(xy, names), matches.matches[:, 0], matches).sum(0)
    filled = ~torch.isnan(total)
    assert filled.any()
    torch.testing.assert_close(total[filled], torch.ones_like(total[filled]), atol=1e-5, rtol=0)


def test_the_chosen_invariance_has_the_highest_weight() -> None:
    assert chosen_invariances(matched([[0.1, 0.9], [0.6, 0.4]], ("a", "b"))).tolist() == [1, 0]


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c", "d")])
@pytest.mark.parametrize("count", [0, 1, 40])
def test_any_number_of_invariances_and_matches_is_drawn(
    names: tuple[str, ...], count: int, tmp_path: Path
) -> None:
    xy = [(3.0 * k, 2.0 * k) for k in range(count)]
    features = features_at(xy, names, tiles=1 if len(names) == 1 else 3)
    matches = matched([[1 / len(names)] * len(names)] * count, names, turn=1)
    path = tmp_path / "picture.png"
    draw_matches(GREY, GREY, features, features, matches, np.arange(count) % 2 == 0, path, "homography")
    assert read_image(path).shape[1] == WIDTH


def picture_of(weights: list[list[float]], inlier: bool, tmp_path: Path) -> np.ndarray:
    """The photographs' part of the picture of one match."""
    names = ("a", "b")
    features = features_at([(60, 45)], names)
    path = tmp_path / "picture.png"
    draw_matches(GREY, GREY, features, features, matched(weights, names), torch.tensor([inlier]), path)
    box = arrange((120, 90), (120, 90), 2).images[0]
    return read_image(path)[int(box.top) : int(box.top + box.height)]


def test_a_match_has_the_colour_of_its_invariance(tmp_path: Path) -> None:
    for chosen in (0, 1):
        photographs = picture_of([[1.0 - chosen, float(chosen)]], True, tmp_path)
        assert pixels_like(photographs, COLOURS[chosen]) > 100
        assert pixels_like(photographs, COLOURS[1 - chosen]) == 0


def test_outliers_are_faint(tmp_path: Path) -> None:
    photographs = picture_of([[1.0, 0.0]], False, tmp_path)
    assert pixels_like(photographs, COLOURS[0]) == 0
    on_grey = np.abs(photographs.astype(int) - 128).max(-1)
    # But there, between the two keypoints. The last row is the page in matplotlib below 3.11.
    assert 5 < on_grey[:-1, 700:780].max() < 80


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    features = features_at([], ("a",), tiles=1)
    draw_matches(GREY, GREY, features, features, matched([], ("a",)), np.zeros(0, bool), tmp_path / "p.jpg")
    assert (tmp_path / "p.jpg").read_bytes().startswith(b"\xff\xd8")


def test_mistakes_are_named(tmp_path: Path) -> None:
    features, matches = features_at([(1, 1)], ("a",), tiles=1), matched([[1.0]], ("a",))
    with pytest.raises(InputError, match="no picture has the suffix"):
        draw_matches(GREY, GREY, features, features, matches, np.ones(1, bool), tmp_path / "p.txt")
    with pytest.raises(InputError, match="one per match"):
        draw_matches(GREY, GREY, features, features, matches, np.ones(2, bool), tmp_path / "p.png")
