"""The verdict: clear cases by hand, laws of its evidence, and real pairs of one scene and of two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.errors import InputError
from lisrd.verify import Geometry, estimate
from lisrd.verify.geometry import Kind
from lisrd.verify.verdict import CALIBRATIONS, evidence, same_place

KINDS: tuple[Kind, ...] = ("homography", "fundamental")


def matches_with(
    inliers: int, count: int, kind: Kind = "homography"
) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """The first `inliers` of `count` matches, all over the image, agree."""
    points = np.random.default_rng(0).uniform(0, 500, (count, 2))
    model = np.eye(3) if inliers else None
    return Geometry(model, np.arange(count) < inliers, kind, "usac"), points, points[::-1].copy()


@pytest.mark.parametrize("kind", KINDS)
def test_clear_cases(kind: Kind) -> None:
    same, different, nothing = (same_place(*matches_with(n, 400, kind)) for n in (250, 5, 0))
    assert same.answer == "yes"
    assert same.probability > 0.99
    assert (different.answer, nothing.answer) == ("no", "no")
    assert different.probability < 0.05
    assert (same.num_inliers, same.inlier_ratio) == (250, 250 / 400)
    assert str(same).startswith("yes (1.00): 250 inliers")


@settings(max_examples=20, deadline=None)
@given(inliers=st.integers(4, 300), more=st.integers(1, 90), kind=st.sampled_from(KINDS))
def test_more_inliers_never_speak_against(inliers: int, more: int, kind: Kind) -> None:
    fewer = same_place(*matches_with(inliers, 400, kind)).probability
    assert same_place(*matches_with(inliers + more, 400, kind)).probability >= fewer


def test_inliers_in_a_corner_count_less() -> None:
    rng = np.random.default_rng(0)
    everywhere, corner = rng.uniform(0, 500, (300, 2)), rng.uniform(0, 60, (30, 2))
    geometry = Geometry(np.eye(3), np.arange(330) < 30, "homography", "usac")
    clustered = np.concatenate([corner, everywhere])
    spread = np.concatenate([rng.uniform(0, 500, (30, 2)), everywhere])
    assert evidence(geometry, clustered, clustered)[2] < 0.1
    assert evidence(geometry, spread, spread)[2] > 0.7
    assert evidence(geometry, spread, clustered)[2] == evidence(geometry, clustered, spread)[2]


def test_random_matches_are_not_one_place() -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        points0, points1 = rng.uniform(0, 600, (300, 2)), rng.uniform(0, 600, (300, 2))
        for kind in KINDS:
            assert same_place(estimate(points0, points1, kind), points0, points1).answer != "yes"


def test_thresholds_are_in_order() -> None:
    for calibration in CALIBRATIONS.values():
        assert 0 < calibration.no <= calibration.yes < 1


def test_no_matches_at_all() -> None:
    empty = np.zeros((0, 2))
    verdict = same_place(estimate(empty, empty), empty, empty)
    assert (verdict.answer, verdict.inlier_ratio) == ("no", 0)


def test_wrong_usage_says_what_to_do() -> None:
    geometry, points0, points1 = matches_with(10, 50)
    with pytest.raises(InputError, match="other matches"):
        same_place(geometry, points0[:5], points1)
    pose = Geometry(None, np.zeros(50, dtype=bool), "absolute_pose", "usac")
    with pytest.raises(InputError, match="no verdict"):
        same_place(pose, points0, points1)


@pytest.mark.slow
def test_real_photographs(shared: Path) -> None:
    from lisrd import LISRD

    scenes = shared / "data" / "eval" / "hpatches_style"
    names = ("v_graf/1.png", "v_graf/2.png", "v_boat/1.png", "v_boat/2.png")
    if not all((scenes / name).is_file() for name in names):
        pytest.skip(f"no photographs in {scenes}")
    model = LISRD.from_pretrained("root-sift")
    for first, second, answer in ((0, 1, "yes"), (2, 3, "yes"), (0, 2, "no"), (1, 3, "no")):
        pair = model.match_images(scenes / names[first], scenes / names[second], max_keypoints=1000)
        geometry = estimate(pair.points0, pair.points1, scores=pair.matches.scores)
        assert same_place(geometry, pair.points0, pair.points1).answer == answer
