"""Refinement against known warps of one larger photograph (benchmarks.known_warps)."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.known_warps import Change, KnownPair, known_pair, view

from lisrd.coordinates import scale_transform
from lisrd.errors import InputError
from lisrd.verify.geometry import project
from lisrd.verify.local_affine import (
    Frames,
    affine_of_frames,
    affine_of_homography,
    affine_of_neighbours,
)
from lisrd.verify.patches import PreparedImage
from lisrd.verify.refine import UNREFINED, Refined, refine

DARKER = Change(gain=0.55, offset=40.0)


def error(pair: KnownPair, found: Refined) -> np.ndarray:
    return np.linalg.norm(found.points1 - pair.truth1, axis=1)


@pytest.fixture
def pair(photograph: np.ndarray) -> KnownPair:
    return known_pair(photograph)


def test_known_model_brings_matches_within_a_tenth_of_a_pixel(pair: KnownPair) -> None:
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(), model_H=pair.H)
    assert found.refined.mean() > 0.8
    assert np.median(error(pair, found)[found.refined]) < 0.1


@pytest.mark.parametrize(
    "change", [DARKER, Change(gain=0.55, offset=40.0, noise=4.0), Change(gain=0.55, blur=0.8, noise=2.0)]
)
def test_light_blur_and_noise(photograph: np.ndarray, change: Change) -> None:
    pair = known_pair(photograph, change=change)
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(), model_H=pair.H)
    assert found.refined.mean() > 0.8
    assert np.median(error(pair, found)[found.refined]) < 0.2


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.5), (0.25, -0.4)])
def test_no_bias_of_half_pixels(photograph: np.ndarray, shift: tuple[float, float]) -> None:
    H = np.array([[1, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1.0]])
    pair = known_pair(photograph, H)
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


def test_neighbours_stand_in_for_the_model(pair: KnownPair) -> None:
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(pixels=0.5))
    assert found.refined.mean() > 0.7
    assert np.median(error(pair, found)[found.refined]) < 0.15


def test_frames_stand_in_for_the_model(pair: KnownPair) -> None:
    rng = np.random.default_rng(0)
    local = affine_of_homography(pair.H, pair.points0)
    count = len(pair.points0)
    frames0 = Frames(np.full(count, 8.0), rng.uniform(-3, 3, count))
    turn = np.arctan2(local[:, 1, 0] - local[:, 0, 1], local[:, 0, 0] + local[:, 1, 1])
    scale = np.sqrt(np.linalg.det(local)) * np.exp(rng.normal(0, 0.1, count))
    frames1 = Frames(frames0.scales * scale, frames0.oris + turn + rng.normal(0, 0.1, count))
    found = refine(pair.image0, pair.image1, pair.points0, pair.off(pixels=0.5), frames0, frames1)
    assert found.refined.mean() > 0.6
    assert np.median(error(pair, found)[found.refined]) < 0.15


def test_uncertainty_tells_sharp_from_noisy(photograph: np.ndarray) -> None:
    clean, noisy = known_pair(photograph), known_pair(photograph, change=Change(noise=15))
    sigmas = []
    for pair in (clean, noisy):
        found = refine(pair.image0, pair.image1, pair.points0, pair.off(), model_H=pair.H)
        sigmas.append(np.median(found.uncertainty[found.refined]))
        spread = np.median(error(pair, found)[found.refined]) / 1.18  # the median of a Rayleigh distribution
        assert 0.3 < sigmas[-1] / spread < 3
    assert sigmas[1] > 1.5 * sigmas[0]


def test_what_cannot_be_refined_keeps_its_place(pair: KnownPair) -> None:
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


def test_the_callers_points_are_not_changed(pair: KnownPair) -> None:
    start = pair.off()
    before = start.copy()
    refine(pair.image0, pair.image1, pair.points0, start, model_H=pair.H)
    np.testing.assert_array_equal(start, before)


def test_permuting_the_matches_permutes_the_answer(pair: KnownPair) -> None:
    start, order = pair.off(), np.random.default_rng(1).permutation(len(pair.points0))
    whole = refine(pair.image0, pair.image1, pair.points0, start, model_H=pair.H)
    permuted = refine(pair.image0, pair.image1, pair.points0[order], start[order], model_H=pair.H)
    np.testing.assert_array_equal(permuted.refined, whole.refined[order])
    np.testing.assert_allclose(permuted.points1, whole.points1[order], atol=1e-4)


def test_off_and_no_matches_change_nothing(pair: KnownPair) -> None:
    start = pair.off()
    off = refine(pair.image0, pair.image1, pair.points0, start, model_H=pair.H, mode="off")
    np.testing.assert_array_equal(off.points1, start)
    assert not off.refined.any()
    empty = refine(pair.image0, pair.image1, np.zeros((0, 2)), np.zeros((0, 2)))
    assert empty.points1.shape == (0, 2)
    one = refine(pair.image0, pair.image1, pair.points0[:1], start[:1])  # no neighbours to tell the shape
    assert not one.refined.any()


def test_prepared_images_give_the_same(pair: KnownPair) -> None:
    prepared = PreparedImage.of(pair.image0), PreparedImage.of(pair.image1)
    plain = refine(pair.image0, pair.image1, pair.points0, pair.off(), model_H=pair.H)
    again = refine(*prepared, pair.points0, pair.off(), model_H=pair.H)
    np.testing.assert_array_equal(plain.points1, again.points1)


def test_wrong_usage_says_what_to_do(pair: KnownPair) -> None:
    with pytest.raises(InputError, match="one row per match"):
        refine(pair.image0, pair.image1, pair.points0, pair.points0[:3])
    with pytest.raises(InputError, match="'maybe' is unknown"):
        refine(pair.image0, pair.image1, pair.points0, pair.points0, mode="maybe")  # type: ignore[arg-type]


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


def test_a_match_is_refined_alike_alone_and_among_others(pair: KnownPair) -> None:
    """Rows leave the search when they are settled or lost; the others must keep theirs."""
    off = pair.off()
    off[::7] += 40.0  # lost
    together = refine(pair.image0, pair.image1, pair.points0, off, model_H=pair.H)
    some = np.arange(len(off)) % 5 == 1
    alone = refine(pair.image0, pair.image1, pair.points0[some], off[some], model_H=pair.H)
    assert not together.refined[::7].all()
    assert np.array_equal(alone.refined, together.refined[some])
    np.testing.assert_allclose(alone.points1, together.points1[some], atol=1e-4)


def test_images_too_long_to_sample_are_refused() -> None:
    """OpenCV counts the pixels of a side in 16 bits; one more than it can count is refused before anything is made."""
    with pytest.raises(InputError, match=r"32767 x 2 pixels is too long.*at most 32766"):
        PreparedImage.of(np.zeros((2, 32_767, 3), np.uint8))
    assert PreparedImage.of(np.zeros((2, 32_766, 3), np.uint8)).log_grey.shape == (2, 32_766)
