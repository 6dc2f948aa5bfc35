"""Metrics: numbers that can be checked by hand, laws, and those of the released code."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.coordinates import scale_transform, warp_points
from lisrd.evaluate.cache import DetectedImage
from lisrd.evaluate.common_pair import CommonPair
from lisrd.evaluate.geometry import score_matches
from lisrd.evaluate.geometry_rows import mean_of_known
from lisrd.evaluate.keypoints import common_keypoints
from lisrd.evaluate.metrics.bootstrap import bootstrap_interval, paired_difference
from lisrd.evaluate.metrics.change import light_change, similarity_at_centre
from lisrd.evaluate.metrics.curves import error_auc
from lisrd.evaluate.metrics.homography import corner_error, estimate_homography, homography_accuracy
from lisrd.evaluate.metrics.matching import (
    correct_matches,
    match_errors,
    median_correct_error,
    mma,
    precision,
    recall,
    repeatability,
    true_partners,
)
from lisrd.evaluate.metrics.pose import RelativePose, epipolar_correct, estimate_pose, pose_error
from lisrd.types import Keypoints

IDENTITY = torch.eye(3, dtype=torch.float64)
#: Image 1 shows everything twice as large.
DOUBLE = torch.diag(torch.tensor([2.0, 2.0, 1.0], dtype=torch.float64))
FOUR0 = torch.tensor([[10.0, 10.0], [50.0, 10.0], [10.0, 50.0], [50.0, 50.0]])
#: Off by 0, 2, 4 and 8 pixels in image 1, so by 0, 1, 2 and 4 in image 0.
FOUR1 = torch.tensor([[20.0, 20.0], [102.0, 20.0], [20.0, 104.0], [100.0, 108.0]])
ALL_FOUR = torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3]])


def test_four_points_by_hand() -> None:
    errors = match_errors(FOUR0, FOUR1, ALL_FOUR, DOUBLE)
    assert errors.tolist() == [[0, 1, 2, 4], [0, 2, 4, 8]]
    assert precision(errors, 3.0) == (3 / 4 + 2 / 4) / 2
    assert mma(errors) == [3 / 8, 5 / 8, 5 / 8, 7 / 8, 7 / 8, 7 / 8, 7 / 8, 1, 1, 1]
    assert correct_matches(errors).tolist() == [True, True, False, False]
    assert median_correct_error(errors) == 0.75  # of 0 and (1 + 2) / 2


def test_recall_counts_only_keypoints_with_a_partner() -> None:
    partners = true_partners(FOUR0, FOUR1, DOUBLE)
    assert partners.tolist() == [0, 1, -1, -1]  # those at 4 and 8 px have none
    assert recall(torch.tensor([[0, 0], [1, 2]]), partners) == 1 / 2
    assert recall(ALL_FOUR, partners) == 1
    assert repeatability(partners, true_partners(FOUR1, FOUR0, torch.linalg.inv(DOUBLE))) == (2 + 3) / 8


def test_nothing_matched_scores_zero() -> None:
    none = torch.zeros((0, 2), dtype=torch.long)
    errors = match_errors(FOUR0, FOUR1, none, DOUBLE)
    assert precision(errors) == 0
    assert mma(errors) == [0] * 10
    assert median_correct_error(errors) is None
    assert recall(none, true_partners(FOUR0, FOUR1, DOUBLE)) == 0
    assert true_partners(FOUR0, torch.zeros((0, 2)), DOUBLE).tolist() == [-1] * 4
    assert repeatability(torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)) == 0


def test_points_on_the_horizon_have_no_partner() -> None:
    H = torch.tensor(
        [[1.0, 0, 0], [0, 1, 0], [-1 / 50, 0, 1]], dtype=torch.float64
    )  # x = 50 goes to infinity
    assert true_partners(torch.tensor([[50.0, 0.0]]), FOUR1, H).tolist() == [-1]


homographies = st.builds(
    lambda angle, scale, dx, dy, p: torch.tensor(
        [
            [scale * math.cos(angle), -scale * math.sin(angle), dx],
            [scale * math.sin(angle), scale * math.cos(angle), dy],
            [p, -p, 1],
        ],
        dtype=torch.float64,
    ),
    st.floats(-3, 3),
    st.floats(0.5, 2),
    st.floats(-50, 50),
    st.floats(-50, 50),
    st.floats(-1e-4, 1e-4),
)


@settings(deadline=None, max_examples=40)
@given(homographies, st.integers(0, 10_000))
def test_swapping_the_images_swaps_the_directions(H: torch.Tensor, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    xy0 = 100 * torch.rand(30, 2, generator=rng, dtype=torch.float64)
    xy1 = warp_points(xy0, H) + 3 * torch.randn(30, 2, generator=rng, dtype=torch.float64)
    matches = torch.stack([torch.arange(30), torch.randperm(30, generator=rng)], 1)
    errors = match_errors(xy0, xy1, matches, H)
    swapped = match_errors(xy1, xy0, matches.flip(1), torch.linalg.inv(H))
    torch.testing.assert_close(errors, swapped.flip(0), rtol=1e-6, atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(homographies)
def test_a_pair_matched_to_itself_scores_one(H: torch.Tensor) -> None:
    xy0 = 100 * torch.rand(25, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    xy1 = warp_points(xy0, H)
    matches = torch.arange(25).repeat(2, 1).T
    assert mma(match_errors(xy0, xy1, matches, H)) == [1] * 10
    assert recall(matches, true_partners(xy0, xy1, H)) == 1
    for estimator in ("ransac", "magsac"):
        found, inliers = estimate_homography(xy0, xy1, estimator)
        assert corner_error(found, H, 100, 100) < 0.1
        assert inliers.all()


def test_golden_precision_recall_and_homography(golden: dict[str, np.ndarray]) -> None:
    expected = json.loads(str(golden["eval_metrics"]))
    xy0 = torch.tensor(golden["eval_k0_rowcol"][:, ::-1].copy())
    xy1 = torch.tensor(golden["eval_k1_rowcol"][:, ::-1].copy())
    H, nearest = torch.tensor(golden["eval_H"]), torch.tensor(golden["eval_nearest0"])
    matched = (nearest >= 0).nonzero().squeeze(1)
    matches = torch.stack([matched, nearest[matched]], 1)
    assert mma(match_errors(xy0, xy1, matches, H)) == pytest.approx(list(expected["precision"].values()))
    for threshold, value in expected["recall"].items():
        partners = true_partners(xy0, xy1, H, float(threshold))
        assert recall(matches, partners) == pytest.approx(value)
    found, _ = estimate_homography(xy0[matches[:, 0]], xy1[matches[:, 1]], "ransac")
    width, height = (int(v) + 1 for v in xy0.amax(0))  # the image is not stored: the box of its keypoints
    assert homography_accuracy(corner_error(found, H, width, height)) == expected["H_correct_3px"]


def test_corner_error_of_a_shift_is_its_length() -> None:
    shift = torch.tensor([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]], dtype=torch.float64)
    assert corner_error(shift, IDENTITY, 640, 480) == pytest.approx(5)
    assert corner_error(shift @ DOUBLE, DOUBLE, 640, 480) == pytest.approx(2.5)  # in pixels of image 0
    assert corner_error(None, IDENTITY, 640, 480) == math.inf
    assert homography_accuracy(3.0) == 1
    assert homography_accuracy(math.inf) == 0


@pytest.mark.parametrize("estimator", ["ransac", "magsac"])
@pytest.mark.parametrize(
    "points",
    [FOUR0[:3], torch.zeros((20, 2)), torch.stack([torch.arange(20.0), 2 * torch.arange(20.0)], 1)],
    ids=["three", "one place", "one line"],
)
def test_degenerate_matches_give_no_accurate_homography(points: torch.Tensor, estimator: str) -> None:
    found, inliers = estimate_homography(points, points, estimator)
    assert len(inliers) == len(points)
    assert found is None or corner_error(found, IDENTITY, 640, 480) > 3


def test_the_same_matches_give_the_same_homography() -> None:
    xy0 = 300 * torch.rand(60, 2, generator=torch.Generator().manual_seed(2))
    xy1 = torch.where(torch.arange(60)[:, None] < 25, xy0 + 7, xy0.flip(0))
    first, _ = estimate_homography(xy0, xy1, "ransac")
    cv2.setRNGSeed(1234)
    second, _ = estimate_homography(xy0, xy1, "ransac")
    assert torch.equal(first, second)


@pytest.fixture
def two_views() -> tuple[torch.Tensor, torch.Tensor, RelativePose]:
    """Fifty points of space seen by two cameras, the second turned by 15 degrees and moved sideways."""
    rng = np.random.default_rng(3)
    space = rng.uniform([-2, -2, 4], [2, 2, 9], (50, 3))
    R, t = cv2.Rodrigues(np.array([0, math.radians(15), 0]))[0], np.array([1.0, 0.2, 0.1])
    K = np.array([[500.0, 0, 320], [0, 480.0, 240], [0, 0, 1]])
    views = [(K @ p.T).T for p in (space, space @ R.T + t)]
    xy0, xy1 = (torch.from_numpy(v[:, :2] / v[:, 2:]) for v in views)
    T = torch.eye(4, dtype=torch.float64)
    T[:3, :3], T[:3, 3] = torch.from_numpy(R), torch.from_numpy(t)
    return xy0, xy1, RelativePose(torch.from_numpy(K), torch.from_numpy(K), T)


def test_pose_of_exact_matches(two_views: tuple[torch.Tensor, torch.Tensor, RelativePose]) -> None:
    xy0, xy1, truth = two_views
    found = estimate_pose(xy0, xy1, truth)
    assert found is not None
    assert pose_error(found[0], found[1], truth.T_0to1) < 0.1
    assert found[2].sum() >= 45
    assert epipolar_correct(xy0, xy1, truth).all()
    assert not epipolar_correct(xy0, xy1.flip(0) + 40, truth)[:10].all()
    assert estimate_pose(xy0[:4], xy1[:4], truth) is None


def test_poses_are_judged_in_pixels_of_the_images_that_were_matched(
    two_views: tuple[torch.Tensor, torch.Tensor, RelativePose],
) -> None:
    """Originals of any size that were shrunk to the same images, one by more than the other, score the same."""
    xy0, xy1, truth = two_views
    noise = torch.randn((2, *xy0.shape), generator=torch.Generator().manual_seed(0))
    points = [
        Keypoints.from_xy((xy + shift).float().unsqueeze(0))
        for xy, shift in zip((xy0, xy1), noise, strict=True)
    ]
    index = torch.arange(len(xy0))
    scores = []
    for sizes in ((1.0, 1.0), (4.0, 2.0)):
        shrunk = [scale_transform(1 / size, 1 / size) for size in sizes]
        images = [DetectedImage(p, (640, 480), H, 0.0, "") for p, H in zip(points, shrunk, strict=True)]
        K0, K1 = (torch.linalg.inv(H) @ K for H, K in zip(shrunk, (truth.K0, truth.K1), strict=True))
        common = CommonPair(*images, index, index, None, RelativePose(K0, K1, truth.T_0to1))
        scores.append(score_matches(common, index.unsqueeze(1).expand(-1, 2)))
    assert scores[0]["num_inliers"] == scores[1]["num_inliers"] < 45
    assert scores[0]["pose_error"] == pytest.approx(scores[1]["pose_error"], abs=1e-3)


def test_pose_error_is_the_larger_angle() -> None:
    T = torch.eye(4, dtype=torch.float64)
    T[:3, 3] = torch.tensor([1.0, 0, 0])
    turned = cv2.Rodrigues(np.array([0, 0, math.radians(10)]))[0]
    assert pose_error(turned, np.array([1.0, 0, 0]), T) == pytest.approx(10, abs=1e-4)
    assert pose_error(turned, np.array([1.0, 1, 0]), T) == pytest.approx(45)
    assert pose_error(np.eye(3), np.array([-1.0, 0, 0]), T) == pytest.approx(0)  # the sign is not observable


def test_area_under_the_error_curve() -> None:
    assert error_auc(np.array([0.0, 0.0]), 5.0) == 1
    assert error_auc(np.array([math.inf, 6.0]), 5.0) == 0
    # From (0, 0) to (2, 1/2), then level until 4.
    assert error_auc(np.array([2.0, math.inf]), 4.0) == pytest.approx((0.5 * 2 * 0.5 + 2 * 0.5) / 4)
    # From (0, 0) over (1, 1/2) to (3, 1), then level until 4; stacked sets give one area each.
    both = np.array([[3.0, 1.0], [math.inf, 2.0]])
    assert error_auc(both, 4.0) == pytest.approx([(0.25 + 1.5 + 1) / 4, 1.5 / 4])


def test_bootstrap_interval_holds_the_mean_and_repeats() -> None:
    values = np.random.default_rng(0).normal(5, 1, 200)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(200), rel=0.2)
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval([2.0]) == (2, 2)
    with pytest.raises(ValueError, match="no pairs"):
        bootstrap_interval([])


def test_resamples_without_a_value_do_not_count() -> None:
    low, high = bootstrap_interval([2.0, 4.0, math.nan, math.nan], mean_of_known)
    assert 2 <= low < high <= 4


def test_paired_difference_sees_what_two_intervals_hide() -> None:
    a = np.random.default_rng(0).uniform(0, 1, 50)
    mean, (low, high), better = paired_difference(a, a + 0.01)
    assert mean == pytest.approx(0.01)
    assert low == pytest.approx(0.01)
    assert high == pytest.approx(0.01)
    assert better == 1


@pytest.mark.parametrize("degrees", [-170, -90, -30, 0, 45, 90, 179])
def test_rotation_and_scale_of_a_similarity(degrees: float) -> None:
    a = math.radians(degrees)
    H = torch.tensor([[math.cos(a), -math.sin(a), 7], [math.sin(a), math.cos(a), -3], [0, 0, 0.5]])
    rotation, scale = similarity_at_centre(H, 640, 480)
    assert rotation == pytest.approx(degrees, abs=1e-4)
    assert scale == pytest.approx(2, rel=1e-5)


def test_light_change_counts_stops(photograph: np.ndarray) -> None:
    halved = (255 * (photograph / 255.0 / 2 ** (1 / 2.2))).astype(np.uint8)
    assert light_change(photograph, photograph, IDENTITY) == 0
    assert light_change(photograph, halved, IDENTITY) == pytest.approx(1, abs=0.25)
    away = torch.tensor([[1.0, 0, 9000], [0, 1, 0], [0, 0, 1]])
    assert light_change(photograph, photograph, away) is None


def test_common_keypoints_are_the_strongest_inside_the_other_image() -> None:
    shift = torch.tensor([[1.0, 0, 50], [0, 1, 0], [0, 0, 1]])  # image 1 shows what lies 50 px further left
    xy0 = torch.tensor([[60.0, 50.0], [10.0, 50.0], [46.0, 50.0], [46.1, 50.0], [20.0, 2.0]])
    xy1 = torch.tensor([[10.0, 50.0], [52.0, 50.0], [53.0, 50.0]])
    index0, index1 = common_keypoints(xy0, xy1, (100, 100), (100, 100), shift, 10)
    assert index0.tolist() == [1, 2]  # 110, 96.1 and y = 2 are too close to the border or beyond it
    assert index1.tolist() == [2]
    assert common_keypoints(xy0, xy1, (100, 100), (100, 100), shift, 1)[0].tolist() == [1]
