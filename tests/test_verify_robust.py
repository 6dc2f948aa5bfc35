"""Robust estimation: hand-checkable models first, then laws, then degenerate matches."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.errors import InputError
from lisrd.verify import estimate
from lisrd.verify.geometry import project
from lisrd.verify.polish import polish_homography

METHODS = ("magsac", "usac", "ransac", "poselib")
H_TRUE = np.array([[0.9, 0.12, 20.0], [-0.1, 1.1, 5.0], [1e-4, -5e-5, 1.0]])
K0 = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])
K1 = np.array([[600.0, 0, 310], [0, 600, 250], [0, 0, 1]])


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    if request.param == "poselib":
        pytest.importorskip("poselib")
    return request.param


def planar_matches(seed: int = 0, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """100 matches of H_TRUE and 60 that pair random places."""
    rng = np.random.default_rng(seed)
    points0 = rng.uniform(0, 600, (160, 2))
    points1 = project(points0, H_TRUE) + rng.normal(0, noise, (160, 2))
    points1[100:] = rng.uniform(0, 600, (60, 2))
    return points0, points1, np.arange(160) < 100


def scene(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """World points, their pixels in two cameras (40 of 140 wrong in camera 1), and camera 1's [R | t]."""
    rng = np.random.default_rng(seed)
    world = rng.uniform(-2, 2, (140, 3)) + np.array([0, 0, 6])
    pose = np.hstack([cv2.Rodrigues(np.array([0.05, 0.2, -0.1]))[0], [[1.0], [0.2], [0.1]]])
    pixels0 = world @ K0.T
    pixels1 = (world @ pose[:, :3].T + pose[:, 3]) @ K1.T
    points0, points1 = pixels0[:, :2] / pixels0[:, 2:], pixels1[:, :2] / pixels1[:, 2:]
    points1[100:] = rng.uniform(0, 600, (40, 2))
    return world, points0, points1, pose


def corner_error(H: np.ndarray, truth: np.ndarray, size: float = 600) -> float:
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], dtype=float)
    return float(np.linalg.norm(project(corners, H) - project(corners, truth), axis=1).mean())


def test_four_corners_of_a_shift(method: str) -> None:
    square = np.array([[0, 0], [100, 0], [100, 80], [0, 80]], dtype=float)
    geometry = estimate(square, square + np.array([7, -3]), method=method)
    assert geometry.model is not None
    np.testing.assert_allclose(geometry.model, [[1, 0, 7], [0, 1, -3], [0, 0, 1]], atol=1e-4)
    assert geometry.inliers.tolist() == [True] * 4
    assert (geometry.kind, geometry.method, geometry.reason) == ("homography", method, "")


def test_homography_under_outliers(method: str) -> None:
    points0, points1, correct = planar_matches()
    geometry = estimate(points0, points1, method=method)
    assert geometry.model is not None
    assert corner_error(geometry.model, H_TRUE) < 0.5
    assert (geometry.inliers & correct).sum() >= 98
    assert (geometry.inliers & ~correct).sum() <= 2


def test_fundamental_and_essential(method: str) -> None:
    _, points0, points1, pose = scene()
    t = pose[:, 3]
    truth = np.cross(np.eye(3), t).T @ pose[:, :3]
    truth /= np.linalg.norm(truth)
    F = estimate(points0, points1, "fundamental", method, threshold=1.0)
    E = estimate(points0, points1, "essential", method, 1.0, intrinsics0=K0, intrinsics1=K1)
    assert F.model is not None
    assert E.model is not None
    assert F.inliers[:100].all()
    assert E.inliers[:100].all()
    as_essential = K1.T @ F.model @ K0
    as_essential /= np.linalg.norm(as_essential)
    for found, tolerance in ((E.model, 1e-3), (as_essential, 1e-2)):
        assert min(abs(found - truth).max(), abs(found + truth).max()) < tolerance


def test_absolute_pose(method: str) -> None:
    world, _, points1, pose = scene()
    geometry = estimate(world, points1, "absolute_pose", method, intrinsics1=K1)
    assert geometry.model is not None
    np.testing.assert_allclose(geometry.model, pose, atol=1e-3)
    assert geometry.inliers[:100].all()


def test_tensors_and_prosac_scores(method: str) -> None:
    points0, points1, correct = planar_matches()
    scores = np.random.default_rng(1).uniform(0, 0.5, 160) + 0.4 * correct
    geometry = estimate(
        torch.from_numpy(points0).float(), torch.from_numpy(points1).float(), method=method, scores=scores
    )
    assert geometry.model is not None
    assert corner_error(geometry.model, H_TRUE) < 0.5
    assert geometry.inliers[correct].mean() > 0.97  # in the caller's order, not in the order of the scores


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_permuting_scored_matches_permutes_the_inliers(seed: int) -> None:
    points0, points1, _ = planar_matches()
    scores = np.linspace(1, 0, len(points0))
    order = np.random.default_rng(seed).permutation(len(points0))
    whole = estimate(points0, points1, scores=scores)
    permuted = estimate(points0[order], points1[order], scores=scores[order])
    np.testing.assert_array_equal(permuted.inliers, whole.inliers[order])
    np.testing.assert_array_equal(permuted.model, whole.model)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_swapping_the_images_inverts_the_homography(seed: int) -> None:
    points0, points1, _ = planar_matches(seed)
    forward, backward = estimate(points0, points1).model, estimate(points1, points0).model
    assert forward is not None
    assert backward is not None
    assert corner_error(backward @ forward, np.eye(3)) < 0.5


def test_same_seed_same_answer(method: str) -> None:
    points0, points1, _ = planar_matches()
    first, second = (estimate(points0, points1, method=method, seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.model, second.model)
    np.testing.assert_array_equal(first.inliers, second.inliers)


GRID = np.stack(np.meshgrid(np.arange(6.0), np.arange(5.0)), axis=-1).reshape(-1, 2) * 80
LINE = np.stack([np.linspace(0, 500, 30), 2 * np.linspace(0, 500, 30)], axis=1)


@pytest.mark.parametrize(
    ("points0", "points1", "reason"),
    [
        (np.zeros((0, 2)), np.zeros((0, 2)), "too few matches: 0"),
        (LINE[:3], LINE[:3], "too few matches: 3"),
        (LINE, LINE + 5, "on a line"),
        (np.full((30, 2), 7.0), LINE, "one point"),
        (GRID, np.repeat(LINE[:2], 15, axis=0), "too few distinct points: 2"),
        (np.full((30, 2), np.nan), LINE, "too few matches: 0 (30 more are not finite)"),
    ],
)
@pytest.mark.parametrize("kind", ["homography", "fundamental", "essential"])
def test_degenerate_matches_are_an_ordinary_answer(
    points0: np.ndarray, points1: np.ndarray, reason: str, kind: str, method: str
) -> None:
    geometry = estimate(points0, points1, kind, method, intrinsics0=K0, intrinsics1=K1)
    assert not geometry
    assert geometry.model is None
    assert reason in geometry.reason
    assert geometry.inliers.shape == (len(points0),)
    assert not geometry.inliers.any()


@pytest.mark.parametrize("method", ["usac", "magsac"])
def test_half_of_few_matches_nearly_coincide(method: str) -> None:
    """Of about one in ten of these OpenCV's USAC finds no model for a sample, and says so by an assertion."""
    for seed in range(60):
        dice = np.random.default_rng(seed)
        count = dice.integers(8, 11)
        points0, points1 = dice.uniform(0, 500, (2, count, 2))
        for points in (points0, points1):
            points[: count // 2] = points[0] + dice.normal(0, 1e-3, (count // 2, 2))
        geometry = estimate(points0, points1, "fundamental", method)
        assert geometry.model is not None or geometry.reason


def test_no_memory_is_not_a_lack_of_consensus(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        error = cv2.error("Insufficient memory")
        error.code = cv2.Error.StsNoMem
        raise error

    monkeypatch.setattr(cv2, "findHomography", fail)
    points0, points1, _ = planar_matches()
    with pytest.raises(cv2.error, match="memory"):
        estimate(points0, points1)


def test_inliers_on_a_line_among_outliers(method: str) -> None:
    rng = np.random.default_rng(0)
    points0 = np.concatenate([np.repeat(LINE, 2, axis=0), rng.uniform(0, 500, (8, 2))])
    points1 = np.concatenate([np.repeat(LINE, 2, axis=0), rng.uniform(0, 500, (8, 2))])
    geometry = estimate(points0, points1, method=method)
    if geometry:  # three points off the line may agree by chance, or two: both fix a homography
        assert geometry.inliers[60:].sum() >= 2
    else:
        assert "line" in geometry.reason


def test_matches_that_are_not_finite_are_never_inliers(method: str) -> None:
    points0, points1, _ = planar_matches()
    points1[:10] = np.nan
    points0[10] = np.inf
    geometry = estimate(points0, points1, method=method)
    assert geometry.model is not None
    assert not geometry.inliers[:11].any()
    assert geometry.inliers[11:100].mean() > 0.97


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points0": np.zeros((5, 3))}, "points0 has the shape"),
        ({"points1": np.zeros((4, 2))}, "one row per match"),
        ({"scores": np.zeros(4)}, "scores have the shape"),
        ({"model": "affine"}, "'affine' is unknown"),
        ({"method": "lmeds"}, "'lmeds' is unknown"),
        ({"threshold": 0.0}, "must be positive"),
        ({"model": "essential"}, "intrinsics0 is missing"),
        ({"model": "essential", "intrinsics0": np.eye(2)}, "invertible 3 x 3"),
    ],
)
def test_wrong_usage_says_what_to_do(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        estimate(**{"points0": np.zeros((5, 2)), "points1": np.zeros((5, 2))} | arguments)


def test_points_beyond_the_horizon_have_no_image() -> None:
    H = np.array([[1.0, 0, 0], [0, 1, 0], [0.01, 0, 1]])  # horizon at x = -100
    points = np.array([[0.0, 0.0], [-200.0, 0.0]])
    assert np.isfinite(project(points, H)[0]).all()
    assert np.isnan(project(points, H)[1]).all()
    assert np.isnan(project(points, -H)[1]).all()  # the factor of a homography means nothing


def test_polish_lets_exact_matches_decide() -> None:
    rng = np.random.default_rng(0)
    points0 = rng.uniform(0, 600, (300, 2))
    points1 = project(points0, H_TRUE)
    points1[:200] += rng.normal(0, 0.1, (200, 2))
    points1[200:] += [1.9, 0.0]  # a third of the matches is off to one side, within the threshold
    start = cv2.findHomography(points0, points1)[0]
    polished = polish_homography(start, points0, points1, scale=0.5)
    assert corner_error(start, H_TRUE) > 0.5
    assert corner_error(polished, H_TRUE) < 0.5 * corner_error(start, H_TRUE)


def test_polish_returns_the_start_where_nothing_is_near() -> None:
    points0, _, _ = planar_matches()
    polished = polish_homography(3 * H_TRUE, points0, project(points0, H_TRUE) + 50, scale=0.5)
    np.testing.assert_allclose(polished, H_TRUE, atol=1e-9)


def test_polish_is_exact_on_exact_matches() -> None:
    points0, _, _ = planar_matches()
    start = H_TRUE + np.array([[1e-3, 0, 0.5], [0, -1e-3, -0.4], [0, 0, 0]])
    polished = polish_homography(start, points0, project(points0, H_TRUE), scale=1.0)
    np.testing.assert_allclose(polished, H_TRUE, atol=1e-8)
