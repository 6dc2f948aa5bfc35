"""Refinement against known warps: both views are rendered from one larger photograph and reduced after the warp,
so that neither side carries a resampling error of its own."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from lisrd.coordinates import scale_transform
from lisrd.errors import InputError
from lisrd.verify.geometry import project
from lisrd.verify.local_affine import (
    Frames,
    affine_of_frames,
    affine_of_homography,
    affine_of_neighbours,
)
from lisrd.verify.pair_geometry import estimate_refined
from lisrd.verify.patches import PreparedImage
from lisrd.verify.refine import UNREFINED, Refined, refine

SIZE = 224  # of the views
FINER = 4  # views are rendered with so many times more pixels per side, then reduced by area
H_MILD = np.array([[0.92, -0.2, 30.0], [0.18, 0.95, -6.0], [2e-4, -1e-4, 1.0]])
LIGHT = np.array([0.55, 40.0])  # gain and offset in grey values


@dataclass(frozen=True)
class Pair:
    image0: np.ndarray
    image1: np.ndarray
    H: np.ndarray
    points0: np.ndarray
    truth1: np.ndarray

    def off(self, seed: int = 0, pixels: float = 0.7) -> np.ndarray:
        return self.truth1 + np.random.default_rng(seed).normal(0, pixels, self.truth1.shape)

    def error(self, found: Refined) -> np.ndarray:
        return np.linalg.norm(found.points1 - self.truth1, axis=1)


def view(photograph: np.ndarray, H: np.ndarray) -> np.ndarray:
    """The photograph, reduced to SIZE and warped by H, without resampling below the view's own pixels."""
    reduce = scale_transform(SIZE / photograph.shape[1], SIZE / photograph.shape[0]).numpy()
    refine_grid = scale_transform(FINER, FINER).numpy()
    fine = cv2.warpPerspective(
        photograph, refine_grid @ H @ reduce, (SIZE * FINER, SIZE * FINER), borderMode=cv2.BORDER_REFLECT
    )
    return cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def make_pair(photograph: np.ndarray, H: np.ndarray, light: bool = False, noise: float = 0.0) -> Pair:
    image0, image1 = view(photograph, np.eye(3)), view(photograph, H)
    values = image1 * LIGHT[0] + LIGHT[1] if light else image1.astype(np.float64)
    image1 = np.clip(values + np.random.default_rng(0).normal(0, noise, values.shape), 0, 255).astype(
        np.uint8
    )
    grey = cv2.cvtColor(image0, cv2.COLOR_RGB2GRAY)
    points0 = cv2.goodFeaturesToTrack(grey, 150, 0.02, 5)[:, 0].astype(np.float64)
    truth1 = project(points0, H)
    inside = ((truth1 > 20) & (truth1 < SIZE - 21) & (points0 > 20) & (points0 < SIZE - 21)).all(1)
    return Pair(image0, image1, H, points0[inside], truth1[inside])


@pytest.fixture
def pair(photograph: np.ndarray) -> Pair:
    return make_pair(photograph, H_MILD)


def test_known_model_brings_matches_within_a_tenth_of_a_pixel(pair: Pair) -> None:
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(), model_H=pair.H)
    assert found.refined.mean() > 0.8
    assert np.median(pair.error(found)[found.refined]) < 0.1


@pytest.mark.parametrize(("light", "noise"), [(True, 0.0), (True, 4.0)])
def test_light_and_noise(photograph: np.ndarray, light: bool, noise: float) -> None:
    pair = make_pair(photograph, H_MILD, light, noise)
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(), model_H=pair.H)
    assert found.refined.mean() > 0.8
    assert np.median(pair.error(found)[found.refined]) < 0.2


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.5), (0.25, -0.4)])
def test_no_bias_of_half_pixels(photograph: np.ndarray, shift: tuple[float, float]) -> None:
    H = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    pair = make_pair(photograph, H)
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(pixels=0.3), model_H=H)
    bias = np.median((found.points1 - pair.truth1)[found.refined], axis=0)
    np.testing.assert_allclose(bias, 0, atol=0.02)


def test_no_bias_when_one_image_is_twice_as_large(photograph: np.ndarray) -> None:
    H = scale_transform(2.0, 2.0).numpy()
    image0, image1 = view(photograph, np.eye(3)), view(photograph, H)
    x, y = np.meshgrid(np.arange(20, 90, 7.0), np.arange(20, 90, 7.0))
    points0 = np.stack([x.ravel(), y.ravel()], axis=1)
    start = project(points0, H) + np.random.default_rng(0).normal(0, 0.5, points0.shape)
    found = refine(image0, image1, points0, start, model_H=H)
    assert found.refined.sum() > 30
    error = (found.points1 - project(points0, H))[found.refined]
    np.testing.assert_allclose(np.median(error, axis=0), 0, atol=0.05)


def test_neighbours_stand_in_for_the_model(pair: Pair) -> None:
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(pixels=0.5))
    assert found.refined.mean() > 0.7
    assert np.median(pair.error(found)[found.refined]) < 0.15


def test_frames_stand_in_for_the_model(pair: Pair) -> None:
    rng = np.random.default_rng(0)
    local = affine_of_homography(pair.H, pair.points0)
    count = len(pair.points0)
    frames0 = Frames(np.full(count, 8.0), rng.uniform(-3, 3, count))
    turn = np.arctan2(local[:, 1, 0] - local[:, 0, 1], local[:, 0, 0] + local[:, 1, 1])
    scale = np.sqrt(np.linalg.det(local)) * np.exp(rng.normal(0, 0.1, count))
    frames1 = Frames(frames0.scales * scale, frames0.oris + turn + rng.normal(0, 0.1, count))
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(pixels=0.5), frames0, frames1)
    assert found.refined.mean() > 0.6
    assert np.median(pair.error(found)[found.refined]) < 0.15


def test_uncertainty_tells_sharp_from_noisy(photograph: np.ndarray) -> None:
    clean, noisy = make_pair(photograph, H_MILD), make_pair(photograph, H_MILD, noise=15)
    sigmas = []
    for pair in (clean, noisy):
        found = refine(pair.image0, pair.image1, pair.points0, pair.off(), model_H=pair.H)
        sigmas.append(np.median(found.uncertainty[found.refined]))
        spread = np.median(pair.error(found)[found.refined]) / 1.18  # the median of a Rayleigh distribution
        assert 0.3 < sigmas[-1] / spread < 3
    assert sigmas[1] > 1.5 * sigmas[0]


def test_what_cannot_be_refined_keeps_its_place(pair: Pair) -> None:
    start = pair.off()
    start[0] = [1.0, 1.0]  # its patch leaves the image
    start[1] = pair.truth1[1] + 60  # other content
    start[2] = np.nan
    blank = np.full_like(pair.image1, 128)
    found = refine(pair.image0, pair.image1, pair.points0, start, model_H=pair.H)
    assert not found.refined[[0, 2]].any()
    np.testing.assert_array_equal(found.points1[~found.refined], start[~found.refined])
    assert (found.uncertainty[~found.refined] == UNREFINED).all()
    nothing = refine(pair.image0, blank, pair.points0, pair.off(), model_H=pair.H)
    assert not nothing.refined.any()


def test_the_callers_points_are_not_changed(pair: Pair) -> None:
    start = pair.off()
    before = start.copy()
    refine(pair.image0, pair.image1, pair.points0, start, model_H=pair.H)
    np.testing.assert_array_equal(start, before)


def test_permuting_the_matches_permutes_the_answer(pair: Pair) -> None:
    start, order = pair.off(), np.random.default_rng(1).permutation(len(pair.points0))
    whole = refine(pair.image0, pair.image1, pair.points0, start, model_H=pair.H)
    permuted = refine(pair.image0, pair.image1, pair.points0[order], start[order], model_H=pair.H)
    np.testing.assert_array_equal(permuted.refined, whole.refined[order])
    np.testing.assert_allclose(permuted.points1, whole.points1[order], atol=1e-4)


def test_off_and_no_matches_change_nothing(pair: Pair) -> None:
    start = pair.off()
    off = refine(pair.image0, pair.image1, pair.points0, start, model_H=pair.H, mode="off")
    np.testing.assert_array_equal(off.points1, start)
    assert not off.refined.any()
    empty = refine(pair.image0, pair.image1, np.zeros((0, 2)), np.zeros((0, 2)))
    assert empty.points1.shape == (0, 2)
    one = refine(pair.image0, pair.image1, pair.points0[:1], start[:1])  # no neighbours to tell the shape
    assert not one.refined.any()


def test_prepared_images_give_the_same(pair: Pair) -> None:
    prepared = PreparedImage.from_image(pair.image0), PreparedImage.from_image(pair.image1)
    plain = refine(pair.image0, pair.image1, pair.points0, pair.off(), model_H=pair.H)
    again = refine(*prepared, pair.points0, pair.off(), model_H=pair.H)
    np.testing.assert_array_equal(plain.points1, again.points1)


def test_wrong_usage_says_what_to_do(pair: Pair) -> None:
    with pytest.raises(InputError, match="one row per match"):
        refine(pair.image0, pair.image1, pair.points0, pair.points0[:3])
    with pytest.raises(InputError, match="'maybe' is unknown"):
        refine(pair.image0, pair.image1, pair.points0, pair.points0, mode="maybe")  # type: ignore[arg-type]


def test_the_whole_stage_is_closer_than_one_estimate(pair: Pair) -> None:
    start = pair.off()
    start[::4] = np.random.default_rng(2).uniform(0, SIZE, start[::4].shape)
    corners = np.array([[0, 0], [SIZE, 0], [SIZE, SIZE], [0, SIZE]], dtype=float)

    def corner_error(mode: str) -> float:
        found = estimate_refined(pair.image0, pair.image1, pair.points0, start, mode=mode)  # type: ignore[arg-type]
        assert found.geometry.model is not None
        return float(
            np.linalg.norm(project(corners, found.geometry.model) - project(corners, pair.H), axis=1).mean()
        )

    assert corner_error("auto") < 0.3 < corner_error("off")


def test_the_stage_without_a_model_returns_the_reason(pair: Pair) -> None:
    found = estimate_refined(pair.image0, pair.image1, pair.points0[:3], pair.truth1[:3])
    assert not found.geometry
    assert "too few" in found.geometry.reason
    assert not found.refined.refined.any()


def test_affine_of_a_similarity_from_all_three_sources() -> None:
    angle, scale = 0.7, 1.5
    A = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    H = np.eye(3)
    H[:2, :2], H[:2, 2] = A, [3, 4]
    points0 = np.random.default_rng(0).uniform(0, 100, (30, 2))
    points1 = project(points0, H)
    points1[::5] += 40  # wrong matches among the neighbours
    right = np.arange(30) % 5 > 0
    frames = Frames(np.full(30, 2.0), np.full(30, 3.0)), Frames(np.full(30, 3.0), np.full(30, 3.7))
    np.testing.assert_allclose(affine_of_homography(H, points0), np.tile(A, (30, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(affine_of_frames(*frames), np.tile(A, (30, 1, 1)), atol=1e-12)
    near = affine_of_neighbours(points0, points1)[right]
    np.testing.assert_allclose(np.median(near, axis=0), A, atol=1e-6)
