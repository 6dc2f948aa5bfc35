"""The alignment of patches, by NumPy and compiled: known shifts and shapes, then that both find the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float

from lisrd import compiled
from lisrd.verify import lucas_kanade
from lisrd.verify.lucas_kanade import Alignment, align, align_compiled, align_in_numpy, refining_pass
from lisrd.verify.patch_pairs import PatchPairs
from lisrd.verify.patches import PreparedImage, square_grid

Aligner = Callable[[PatchPairs, bool, int], Alignment]

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs the extra fast")
ALIGNERS = [align_in_numpy, pytest.param(align_compiled, marks=needs_numba)]


def waves(x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, "H W"]:
    """A smooth pattern with structure along both axes."""
    return np.sin(x / 2.1) + np.cos(y / 1.7) + np.sin((x + 2 * y) / 3.3)


def prepared(values: np.ndarray) -> PreparedImage:
    """These values as they are at every level, so that their derivatives are known."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    return PreparedImage(values, dict.fromkeys(range(13), values))


def pairs_of(
    change: Float[np.ndarray, "2 2"], shift: Float[np.ndarray, " 2"], side: int = 15, count: int = 20
) -> PatchPairs:
    """Image 1 shows at change @ v + shift around each point what image 0 shows at v: a lone point for each v."""
    x, y = np.meshgrid(np.arange(64.0), np.arange(48.0))
    inverse = np.linalg.inv(change)
    there = np.stack([x - 31, y - 23], axis=-1) @ inverse.T
    back = inverse @ shift
    image1 = waves(there[..., 0] + 31 - back[0], there[..., 1] + 23 - back[1])
    points = np.tile([31.0, 23.0], (count, 1))
    frames = np.tile(np.eye(2), (count, 1, 1))
    return PatchPairs(prepared(waves(x, y)), prepared(image1), points, points, frames, frames, side)


@pytest.mark.parametrize("aligner", ALIGNERS)
def test_a_known_shift(aligner: Aligner) -> None:
    shift = np.array([0.6, -0.4])
    found = aligner(pairs_of(np.eye(2), shift), False, 8)
    assert found.converged.all()
    np.testing.assert_allclose(found.warps[:, :, 2], np.tile(shift, (20, 1)), atol=0.02)
    np.testing.assert_array_equal(found.warps[:, :, :2], np.tile(np.eye(2), (20, 1, 1)))
    assert found.correlation.min() > 0.99


@pytest.mark.parametrize("aligner", ALIGNERS)
def test_a_known_shape(aligner: Aligner) -> None:
    change = np.array([[1.08, 0.07], [-0.05, 0.94]])
    pairs = pairs_of(change, np.array([0.3, 0.2]), side=21)
    found = aligner(pairs, True, 15)
    assert found.converged.all()
    np.testing.assert_allclose(found.warps[0, :, :2], change, atol=0.02)
    np.testing.assert_allclose(found.warps[0, :, 2], [0.3, 0.2], atol=0.03)
    shift_alone = aligner(pairs, False, 15)
    assert found.correlation.min() > shift_alone.correlation.max() + 0.005


@pytest.mark.parametrize("aligner", ALIGNERS)
def test_gain_and_offset_of_the_light_change_nothing(aligner: Aligner) -> None:
    plain = pairs_of(np.eye(2), np.array([0.6, -0.4]))
    lit = replace(plain, image1=prepared(3 * plain.image1.level(0) - 7))
    a, b = aligner(plain, False, 8), aligner(lit, False, 8)
    np.testing.assert_allclose(a.warps, b.warps, atol=1e-4)


@pytest.mark.parametrize("aligner", ALIGNERS)
def test_the_covariance_is_the_noise_over_the_structure(aligner: Aligner) -> None:
    """By hand: of two waves nothing is left at their place; with noise, its variance over the slopes' mean square."""
    x, y = np.meshgrid(np.arange(64.0), np.arange(48.0))
    rng = np.random.default_rng(0)
    clean = np.sin(x / 2) + np.sin(y / 2)
    points, frames = np.array([[31.0, 23.0]]), np.eye(2)[None]
    noisy = clean + rng.normal(0, 0.1, clean.shape)
    exact = PatchPairs(prepared(clean), prepared(clean), points, points, frames, frames, 15)
    found = aligner(exact, False, 5)
    np.testing.assert_allclose(found.warps[0, :, 2], 0, atol=1e-6)
    np.testing.assert_allclose(found.covariance, 0, atol=1e-6)
    assert found.correlation[0] == pytest.approx(1)
    found = aligner(replace(exact, image1=prepared(noisy)), False, 5)
    # Slopes of sin(x / 2) have the mean square 1/8; two waves have the variance 1, which normalising leaves.
    expected = 0.1**2 / (1 / 8)
    assert 0.5 * expected < found.covariance[0, 0, 0] < 2 * expected
    assert 0.5 * expected < found.covariance[0, 1, 1] < 2 * expected


@needs_numba
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), affine=st.booleans(), side=st.sampled_from([15, 21]))
def test_compiled_or_not_the_same_is_found(seed: int, affine: bool, side: int) -> None:
    """At places inside and across the border, in frames of several levels, of patches alike and of others."""
    rng = np.random.default_rng(seed)
    grey = cv2.GaussianBlur(rng.uniform(0, 255, (60, 80)).astype(np.float32), (0, 0), 1.5)
    grey = np.repeat(((grey - grey.min()) * 255 / np.ptp(grey))[..., None], 3, axis=2).astype(np.uint8)
    images = PreparedImage.of(grey), PreparedImage.of(np.roll(grey, 1, axis=1))
    count = 40
    points0 = rng.uniform([-3, -3], [83, 63], (count, 2))
    points1 = points0 + np.array([1, 0]) + rng.normal(0, 0.4, (count, 2))
    points1[::7] += 20  # of other content
    frames0 = np.eye(2) * rng.choice([1.0, 1.6, 2.0], count)[:, None, None]
    frames1 = frames0 + rng.normal(0, 0.05, (count, 2, 2))
    pairs = PatchPairs(*images, points0, points1, frames0, frames1, side)
    a, b = align_in_numpy(pairs, affine, 5), align_compiled(pairs, affine, 5)
    assert (a.converged != b.converged).mean() <= 0.1
    # Where the search does not end it may run anywhere: the last digit decides.
    calm = a.converged & b.converged & (a.correlation > 0.5) & (b.correlation > 0.5)
    assert calm.mean() > 0.4
    for name, close, farthest in (
        ("warps", 1e-3, 0.03),
        ("correlation", 1e-4, 0.01),
        ("covariance", 1e-4, 0.05),
    ):
        difference = np.abs(getattr(a, name)[calm] - getattr(b, name)[calm])
        assert np.quantile(difference, 0.9) < close, name
        assert difference.max() < farthest, name  # one of the two may take a last step more


@pytest.mark.parametrize("aligner", ALIGNERS)
def test_the_border_is_repeated(aligner: Aligner) -> None:
    """A patch half outside is that of an image with the border pixels drawn out."""
    pairs = pairs_of(np.eye(2), np.array([0.6, -0.4]), count=4)
    corners = np.array([[0.0, 0.0], [63.0, 0.0], [0.0, 47.0], [63.0, 47.0]])
    at_border = replace(pairs, points0=corners, points1=corners + 0.3)
    wide = [prepared(np.pad(image.level(0), 30, mode="edge")) for image in (pairs.image0, pairs.image1)]
    within = replace(at_border, image0=wide[0], image1=wide[1], points0=corners + 30, points1=corners + 30.3)
    a, b = aligner(at_border, True, 4), aligner(within, True, 4)
    np.testing.assert_allclose(a.warps, b.warps, atol=1e-3)
    np.testing.assert_allclose(a.correlation, b.correlation, atol=1e-4)


@pytest.mark.parametrize("aligner", ALIGNERS)
@pytest.mark.parametrize("shape", [(40, 50), (1, 50), (50, 1)])
def test_nothing_behind_the_image_is_read(aligner: Aligner, shape: tuple[int, int]) -> None:
    """Its last pixel is followed by what is not a number, which a weight of 0 would not take out."""
    height, width = shape
    memory = np.full(height * width + 2 * width, np.nan, dtype=np.float32)
    memory[: height * width] = np.random.default_rng(0).uniform(0, 1, height * width)
    image = prepared(memory[: height * width].reshape(shape))
    assert np.shares_memory(image.level(0), memory)
    points, frames = np.array([[width - 1.0, height - 1.0]]), np.eye(2)[None]
    found = aligner(PatchPairs(image, image, points, points, frames, frames, 15), False, 5)
    assert np.isfinite(found.warps).all()
    assert np.isfinite(found.correlation).all()


@pytest.mark.parametrize("aligner", ALIGNERS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_images_of_one_pixel_and_of_one_row(aligner: Aligner, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images = [prepared(rng.uniform(0, 1, shape)) for _ in range(2)]
    points, frames = np.array([[0.0, 0.0], [20.0, 20.0]]), np.tile(np.eye(2), (2, 1, 1))
    found = aligner(PatchPairs(images[0], images[1], points, points, frames, frames, 15), False, 5)
    assert np.isfinite(found.warps).all()
    assert np.isfinite(found.correlation).all()


@pytest.mark.parametrize("aligner", ALIGNERS)
def test_flat_patches_stay_where_they_are(aligner: Aligner) -> None:
    flat, points, frames = prepared(np.full((40, 40), 3.0)), np.full((1, 2), 20.0), np.eye(2)[None]
    found = aligner(PatchPairs(flat, flat, points, points, frames, frames, 15), True, 5)
    np.testing.assert_allclose(found.warps, np.eye(2, 3)[None], atol=1e-6)
    assert found.correlation[0] == pytest.approx(0, abs=1e-4)


@needs_numba
def test_threads_change_nothing() -> None:
    rng = np.random.default_rng(0)
    pairs = pairs_of(np.array([[1.08, 0.07], [-0.05, 0.94]]), np.array([0.3, 0.2]), count=41)
    pairs = replace(pairs, points1=pairs.points1 + rng.normal(0, 0.3, (41, 2)))
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(align_compiled(pairs, True, 5))
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(found[0].warps, found[1].warps)
    np.testing.assert_array_equal(found[0].covariance, found[1].covariance)


@pytest.mark.parametrize("aligner", ALIGNERS)
def test_no_matches(aligner: Aligner) -> None:
    nothing = pairs_of(np.eye(2), np.zeros(2), count=0)
    assert aligner(nothing, False, 5).warps.shape == (0, 2, 3)


@needs_numba
def test_the_compiled_loops_are_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lucas_kanade, "align_in_numpy", None)
    assert refining_pass()[0] == "numba"
    assert align(pairs_of(np.eye(2), np.zeros(2))).converged.all()


def test_numpy_does_it_where_numba_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_installed", lambda module: False)
    monkeypatch.setattr(lucas_kanade, "align_compiled", None)
    compiled.obstacle_to.cache_clear()
    named, found = refining_pass(), align(pairs_of(np.eye(2), np.zeros(2)))
    compiled.obstacle_to.cache_clear()
    assert named[0] == "numpy"
    assert "pip install 'lisrd[fast]'" in named[1]
    assert found.converged.all()


def test_whether_patches_lie_within_their_images() -> None:
    """Corners are 7 pixels from the point, 14 in a frame of twice the spacing."""
    image, frame = prepared(np.zeros((48, 64))), np.eye(2)
    points0 = np.array([[7.0, 7], [6.9, 7], [56, 40], [56, 40.1], [20, 20], [20, 20]])
    points1 = np.array([[30.0, 24]] * 4 + [[14, 14], [13.9, 14]])
    frames0, frames1 = np.tile(frame, (6, 1, 1)), np.tile(2 * frame, (6, 1, 1))
    pairs = PatchPairs(image, image, points0, points1, frames0, frames1, 15)
    assert pairs.inside(points1).tolist() == [True, False, True, False, True, False]
    assert len(square_grid(15)) == 15**2
