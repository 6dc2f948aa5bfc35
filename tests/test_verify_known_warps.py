"""Synthetic truth: errors against noise, blur and light, no bias by half pixels, and the tables made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from benchmarks import geometry, geometry_ablation, geometry_stages
from benchmarks.known_warps import SIZE, Change, corner_error, view
from benchmarks.timing import Effort

from lisrd import LISRD


@pytest.mark.parametrize(
    ("change", "pixels"),
    [
        (Change(), 0.05),
        (Change(noise=15), 0.15),
        (Change(blur=1), 0.25),
        (Change(gain=0.5), 0.06),
        (Change(gain=0.2, noise=5), 0.25),
    ],
)
def test_error_of_matches(change: Change, pixels: float) -> None:
    shares, errors = zip(
        *(geometry.refinement_error(pair) for pair in geometry.known_pairs(change)), strict=True
    )
    assert np.median(shares) > 0.9
    assert np.median(errors) < pixels


@pytest.mark.parametrize(
    ("change", "pixels"), [(Change(), 0.05), (Change(noise=15), 0.2), (Change(gain=0.2, noise=5), 0.3)]
)
def test_error_of_homographies(change: Change, pixels: float) -> None:
    model = LISRD.from_pretrained("root-sift")
    errors = [geometry.homography_errors(pair, model) for pair in geometry.known_pairs(change)]
    full, ransac = (np.median([one[key] for one in errors]) for key in ("full", "ransac"))
    assert full < pixels
    assert full < ransac


def test_no_bias_by_half_pixels() -> None:
    for offset in geometry.bias():
        assert abs(offset) < 0.005


def test_a_view_is_the_photograph_reduced() -> None:
    ramp = np.round(np.arange(2 * SIZE) / 2).astype(np.uint8)
    photograph = np.broadcast_to(ramp[None, :, None], (2 * SIZE, 2 * SIZE, 3)).copy()
    expected = ramp.reshape(SIZE, 2).mean(1)
    off = (view(photograph, np.eye(3))[..., 0] - expected)[:, 2:-2]
    assert abs(off.mean()) < 0.3  # a view that is half a pixel off would be half a grey value off
    moved = view(photograph, np.array([[1, 0, 3.0], [0, 1, 5], [0, 0, 1]]))
    np.testing.assert_array_equal(moved[25:95, 23:93], view(photograph, np.eye(3))[20:90, 20:90])


def test_corner_error_by_hand() -> None:
    shift = np.array([[1, 0, 3.0], [0, 1, 4], [0, 0, 1]])
    assert corner_error(shift, np.eye(3)) == pytest.approx(5)
    assert corner_error(None, shift) == np.inf


def row(describer: str, estimate: str, part: str) -> dict[str, Any]:
    return {
        "detector": "sift",
        "describer": describer,
        "estimate": estimate,
        "part": part,
        "pairs": 29,
        "accuracy_1": 0.25,
        "accuracy_3": 0.5,
        "accuracy_5": 1.0,
        "median_error": 0.81,
        "error_of_all": 0.42 if part == "day" else None,
        "interval": {"accuracy_3": [0.31, 0.69]},
    }


def test_ablation_table_by_hand() -> None:
    rows = [row("aliked-n16=w.pth", "ransac", part) for part in ("day", "night")]
    assert geometry_ablation.ablation_table(rows).splitlines() == [
        "| keypoints | describer | estimate | day, 29 pairs | night, 29 pairs |",
        "| --- | --- | --- | --- | --- |",
        "| sift | aliked-n16 | ransac | 25 / 50 / 100 (31-69); 0.81 / 0.42 | 25 / 50 / 100 (31-69); 0.81 / - |",
    ]


def test_steps_have_their_seconds() -> None:
    seconds = geometry_stages.stage_seconds("root-sift", 200, Effort(1, 0.0))
    assert set(seconds) == {"describe", "match", "estimate", "refine", "guided", "full"}
    assert seconds["full"] > seconds["estimate"] > 0
