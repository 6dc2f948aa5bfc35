"""Normalised light: what it takes out, what it keeps, and its symmetry."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.describe.light import DARK, LIMIT, normalised_light


def texture(seed: int = 0, height: int = 64, width: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 + 0.6 * torch.rand((1, 3, height, width), generator=generator)


def test_a_plain_surface_is_zero() -> None:
    assert (
        normalised_light(torch.full((1, 3, 64, 64), 0.3)).abs().max() < 0.02
    )  # float32 under the square root


def test_the_mean_and_the_deviation_by_hand() -> None:
    """Half bright, half dark in every cell: each lies one deviation from the mean, but for what is added to it."""
    image = torch.full((1, 3, 64, 64), 1.0 - DARK)
    image[..., ::2] = 0.25 - DARK
    deviation = torch.tensor(4.0).log() / 2
    expected = deviation / (deviation + 0.1)
    found = normalised_light(image)
    torch.testing.assert_close(found[..., 1::2], expected.expand(1, 1, 64, 32))
    torch.testing.assert_close(found[..., ::2], -expected.expand(1, 1, 64, 32))


@settings(max_examples=25, deadline=None)
@given(st.floats(0.3, 1.2), st.integers(0, 100))
def test_exposure_is_taken_out(gain: float, seed: int) -> None:
    image = texture(seed)
    torch.testing.assert_close(
        normalised_light((image + DARK) * gain - DARK), normalised_light(image), atol=2e-3, rtol=0
    )


def test_a_shadow_leaves_its_edge_alone() -> None:
    image = texture()
    shaded = image.clone()
    shaded[..., 48:] = (image[..., 48:] + DARK) * 0.4 - DARK
    change = (normalised_light(shaded) - normalised_light(image)).abs()
    assert change[..., :24].max() < 1e-3
    assert change[..., 72:].max() < 5e-3
    assert change[..., 44:52].mean() > 0.1


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_it_turns_with_the_image(turn: int) -> None:
    image = texture(3)
    turned = normalised_light(image.rot90(turn, (2, 3)))
    torch.testing.assert_close(turned, normalised_light(image).rot90(turn, (2, 3)), atol=1e-4, rtol=0)


def test_black_and_white_stay_finite() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[..., 20, 20] = 1.0
    found = normalised_light(image)
    assert found.isfinite().all()
    assert found.max() == LIMIT
