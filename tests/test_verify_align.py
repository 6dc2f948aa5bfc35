"""Rotation, scale and the blended picture that a homography implies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.errors import InputError
from lisrd.verify.align import align_images, relative_rotation_scale
from lisrd.verify.geometry import project

SIZE = (320, 240)


def similarity(degrees: float, scale: float, shift: tuple[float, float] = (5.0, -7.0)) -> np.ndarray:
    a = math.radians(degrees)
    c, s = scale * math.cos(a), scale * math.sin(a)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]], [0, 0, 1]])


def test_a_quarter_turn() -> None:
    found = relative_rotation_scale(similarity(90, 1), SIZE)
    assert found.angle == pytest.approx(90)  # x goes to y: clockwise on the screen
    assert found.scale == pytest.approx(1)
    assert found.angle_spread == pytest.approx(0, abs=1e-6)
    assert found.scale_spread == pytest.approx(1)
    assert math.isnan(found.angle_error)


@settings(max_examples=50, deadline=None)
@given(degrees=st.floats(-179, 179), scale=st.floats(0.1, 10), factor=st.sampled_from([1.0, -3.0]))
def test_a_similarity_is_read_back_and_its_inverse_undoes_it(
    degrees: float, scale: float, factor: float
) -> None:
    H = similarity(degrees, scale) * factor
    found, back = relative_rotation_scale(H, SIZE), relative_rotation_scale(np.linalg.inv(H), SIZE)
    assert found.angle == pytest.approx(degrees, abs=1e-6)
    assert found.scale == pytest.approx(scale)
    assert back.angle == pytest.approx(-degrees, abs=1e-6)
    assert back.scale * found.scale == pytest.approx(1)


def test_perspective_shows_as_spread() -> None:
    H = similarity(20, 1.2)
    H[2, 0] = 1e-3
    found = relative_rotation_scale(H, SIZE)
    assert found.angle_spread > 1
    assert found.scale_spread > 1.05


def test_standard_errors_are_those_of_repeated_noise() -> None:
    H, rng = similarity(30, 1.0), np.random.default_rng(0)
    points0 = rng.uniform(0, 300, (200, 2))
    angles = []
    for _ in range(200):
        a, b = points0, project(points0, H) + rng.normal(0, 1, (200, 2))
        centred0, centred1 = (p - p.mean(0) for p in (a, b))
        z0, z1 = (p[:, 0] + 1j * p[:, 1] for p in (centred0, centred1))
        angles.append(np.degrees(np.angle((z1 * z0.conj()).sum())))
    found = relative_rotation_scale(H, SIZE, a, b)
    assert found.angle_error == pytest.approx(np.std(angles), rel=0.3)
    assert math.isnan(relative_rotation_scale(H, SIZE, a[:4], b[:4]).angle_error)


def test_a_homography_that_shows_nothing() -> None:
    mirror = np.diag([-1.0, 1.0, 1.0])
    with pytest.raises(InputError, match="mirrors"):
        relative_rotation_scale(mirror, SIZE)


def test_a_shift_lands_on_its_pixel_and_outside_stays() -> None:
    image0, image1 = np.zeros((4, 5, 3), np.uint8), np.full((6, 8, 3), 100, np.uint8)
    image0[1, 2] = 200
    H = np.array([[1.0, 0, 3], [0, 1, 2], [0, 0, 1]])
    blended = align_images(image0, image1, H)
    assert blended.shape == (6, 8, 3)
    assert blended.dtype == np.uint8
    assert (blended[3, 5] == 150).all()
    assert (blended[2, 3] == 50).all()  # the corner of image 0 is black
    assert (blended[:2] == 100).all()
    assert (blended[:, :3] == 100).all()


def test_the_weight_is_that_of_image_0(photograph: np.ndarray) -> None:
    other = photograph[::-1]
    np.testing.assert_array_equal(align_images(photograph, other, np.eye(3), weight=1.0), photograph)
    np.testing.assert_array_equal(align_images(photograph, other, np.eye(3), weight=0.0), other)


def test_beyond_the_horizon_image_0_shows_nothing() -> None:
    """Image 1 looks along the ground: rows below its 8th see no part of the plane of image 0, and no mirrored one."""
    H = np.linalg.inv(np.array([[1.0, 0, 0], [0, 1, 0], [0, -0.1, 0.8]]))
    white, black = np.full((400, 400, 3), 255, np.uint8), np.zeros((16, 16, 3), np.uint8)
    seen = align_images(white, black, H, weight=1.0)[..., 0] > 0
    rows, columns = np.mgrid[:16, :16]
    places = project(np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float), np.linalg.inv(H))
    assert seen.any()
    assert not seen.ravel()[np.isnan(places[:, 0])].any()


def test_a_mirror_shows_image_0_mirrored(photograph: np.ndarray) -> None:
    width = photograph.shape[1]
    mirror = np.array([[-1.0, 0, width - 1], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(
        align_images(photograph, photograph, mirror, weight=1.0), photograph[:, ::-1]
    )


def test_a_smaller_copy_is_smooth() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255  # detail that a quarter of the size cannot show
    small = align_images(stripes, np.zeros((16, 16, 3), np.uint8), np.diag([0.25, 0.25, 1]), weight=1.0)
    assert np.abs(small[2:-2, 2:-2].astype(int) - 127).max() < 12


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.eye(2), np.full((3, 3), np.nan)])
def test_a_matrix_that_is_no_homography(bad: np.ndarray, photograph: np.ndarray) -> None:
    with pytest.raises(InputError, match="invertible 3 x 3"):
        align_images(photograph, photograph, bad)
