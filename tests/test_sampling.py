"""Maps read at keypoints row by row, against `grid_sample`, and what is hand-checkable of it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lisrd.coordinates import normalised_coordinates, sample_map


def channels_last(feature_map: Tensor) -> Tensor:
    return feature_map.contiguous(memory_format=torch.channels_last)


def test_between_four_pixels_by_hand() -> None:
    feature_map = channels_last(torch.tensor([[[[0.0, 1.0], [10.0, 11.0]], [[5.0, 5.0], [5.0, 9.0]]]]))
    keypoints = torch.tensor(
        [[[0.25, 0.0], [0.5, 0.5], [-3.0, 9.0]]]
    )  # the last beyond the lower left corner
    expected = torch.tensor([[[0.25, 5.0], [5.5, 6.0], [10.0, 5.0]]])
    torch.testing.assert_close(sample_map(feature_map, keypoints, 2, 2), expected)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 40), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_rows_equal_grid_sample(height: int, width: int, count: int, seed: int) -> None:
    """Values and gradients, for maps of any size and keypoints beyond the border too."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    xy = (torch.rand(2, count, 2, generator=generator).double() * 1.4 - 0.2) * torch.tensor([32.0, 24.0])
    weight = torch.randn(2, count, 3, generator=generator, dtype=torch.float64)
    rows, plain = channels_last(values).requires_grad_(), values.clone().requires_grad_()
    sampled = sample_map(rows, xy, 32, 24)
    grid = normalised_coordinates(xy, 32, 24).unsqueeze(1)
    expected = F.grid_sample(plain, grid, padding_mode="border", align_corners=False).squeeze(2).mT
    torch.testing.assert_close(sampled, expected)
    (got,) = torch.autograd.grad((sampled * weight).sum(), rows)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), plain)
    torch.testing.assert_close(got, wanted, check_stride=False)


@pytest.mark.parametrize("size", [(4, 5), (64, 80)])  # below and above the number of rows read
def test_gradients_come_in_the_memory_format_and_precision_of_the_map(size: tuple[int, int]) -> None:
    feature_map = channels_last(torch.randn(2, 8, *size).bfloat16()).requires_grad_()
    sampled = sample_map(feature_map, 30 * torch.rand(2, 50, 2), 40, 30)
    assert sampled.dtype == torch.float32
    sampled.sum().backward()
    gradient = feature_map.grad
    assert gradient is not None
    assert gradient.dtype == torch.bfloat16
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_keypoints_of_low_precision_are_read_where_they_are() -> None:
    feature_map = torch.arange(32.0).expand(1, 1, 32, 32)
    keypoints = torch.tensor([[[13.0, 13.0]]], dtype=torch.bfloat16)
    assert sample_map(feature_map, keypoints, 32, 32).item() == 13


def test_keypoints_that_learn_get_their_gradient() -> None:
    feature_map = channels_last(torch.arange(12.0).view(1, 1, 3, 4).expand(1, 2, 3, 4).clone())
    keypoints = torch.tensor([[[1.5, 1.2]]], requires_grad=True)
    sample_map(feature_map, keypoints, 4, 3).sum().backward()
    torch.testing.assert_close(
        keypoints.grad, torch.tensor([[[2.0, 8.0]]])
    )  # 1 along x, 4 along y, two channels
