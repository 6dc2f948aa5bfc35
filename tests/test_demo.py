"""The demo's truth, checked by hand, and the demo itself on its real photographs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lisrd import MatchedPair, Matches, demo
from lisrd.image import read_image
from lisrd.types import LocalFeatures, Selection


def flat_scene(disparity: float, angle: float = 0.0) -> demo.Scene:
    """40 x 30 pixels, everything at one depth."""
    image = np.zeros((30, 40, 3), np.uint8)
    turned, rotation = demo.turn(image, angle)
    return demo.Scene(image, turned, np.full((30, 40), disparity), rotation)


def pair_of(points0: np.ndarray, points1: np.ndarray) -> MatchedPair:
    """Row i of the one matched with row i of the other."""

    def features(points: np.ndarray) -> LocalFeatures:
        n = len(points)
        xy = torch.from_numpy(points).float()[None]
        one = torch.ones(1, n)
        size = torch.tensor([[40.0, 30.0]])
        return LocalFeatures(
            xy, one, torch.zeros(1, n, 1, 2), torch.zeros(1, 1, 1, 1, 1), size, one.bool(), Selection(("a",))
        )

    index = torch.arange(len(points0))
    matches = Matches(
        torch.stack([index, index], 1), index.float(), torch.ones(len(index), 1), (len(index),) * 2, ("a",)
    )
    return MatchedPair(features(points0), features(points1), matches)


def test_a_quarter_turn_moves_the_corners_to_corners() -> None:
    turned, rotation = demo.turn(np.zeros((30, 40, 3), np.uint8), 90)
    assert turned.shape == (40, 30, 3)
    corners = np.array([[0, 0], [39, 0]]) @ rotation[:, :2].T + rotation[:, 2]
    np.testing.assert_allclose(corners, [[0, 39], [0, 0]], atol=1e-9)  # counter-clockwise, like np.rot90


def test_a_spot_goes_where_the_rotation_says() -> None:
    image = np.zeros((60, 80, 3), np.uint8)
    image[19:22, 49:52] = 255
    turned, rotation = demo.turn(image, 100)
    weight = turned[..., 0].astype(float)
    y, x = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]]
    centre = np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()
    np.testing.assert_allclose(centre, rotation @ [50, 20, 1], atol=0.1)


def test_the_disparity_leads_to_the_left_and_nowhere_where_it_is_unknown() -> None:
    scene = flat_scene(5.0)
    scene.disparity[10, 20] = np.inf
    places = scene.true_places(np.array([[30.0, 12.0], [20.2, 9.9]]))
    np.testing.assert_allclose(places[0], [25, 12])
    assert np.isnan(places[1]).all()


def test_three_pixels_are_right_and_four_are_wrong() -> None:
    points = np.array([[20.0, 10.0], [30.0, 20.0]])
    found = points - [5.0, 0.0] + [[0.0, 2.9], [4.0, 0.0]]
    accuracy = demo.measure(flat_scene(5.0), pair_of(points, found))
    assert (accuracy.matches, accuracy.correct, accuracy.precision) == (2, 1, 0.5)


def test_no_matches_are_no_accuracy() -> None:
    nothing = np.zeros((0, 2))
    assert demo.measure(flat_scene(5.0), pair_of(nothing, nothing)).precision == 0


def test_the_evening_is_dark_warm_at_the_lamp_and_always_the_same() -> None:
    grey = np.full((60, 80, 3), 128, np.uint8)
    relit = demo.evening(grey)
    assert relit.mean() < 100
    by_the_lamp, far_away = relit[10:25, 4:14].mean((0, 1)), relit[:, 70:].mean((0, 1))
    assert by_the_lamp[0] > by_the_lamp[2] + 20
    assert far_away[2] > far_away[0]
    np.testing.assert_array_equal(relit, demo.evening(grey))


def test_the_demo_finds_the_motorcycle_and_draws_it(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", "--describer", "root-sift", "--out", str(tmp_path / "new")])
    demo.main()
    printed = capsys.readouterr().out
    row = next(line.split() for line in printed.splitlines() if line.startswith("root-sift"))
    correct = int(row[2].replace(",", ""))
    assert correct > 300  # of 2,048 keypoints; chance would give a handful
    assert "inliers" in printed
    assert read_image(tmp_path / "new" / "matches.jpg").shape[1] == 1600


def test_an_unknown_describer_is_one_line(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["demo", "--describer", "root-shift"])
    with pytest.raises(SystemExit, match="did you mean root-sift"):
        demo.main()


def test_our_network_beats_plain_sift(tmp_path: Path) -> None:
    accuracies, _, _ = demo.run("pyramid", tmp_path)
    assert accuracies["pyramid"].correct > accuracies["root-sift"].correct
    assert accuracies["pyramid"].precision > accuracies["root-sift"].precision
