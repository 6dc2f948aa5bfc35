"""Fine maps averaged over a cross before they are read."""

from __future__ import annotations

import pytest
import torch

from lisrd.coordinates import sample_map
from lisrd.describe.smoothing import smoothed


def test_by_hand() -> None:
    """Two pixels of the image are one of the map at stride 2, half a one at stride 4, and nothing at stride 8."""
    point = torch.zeros(1, 1, 3, 3)
    point[0, 0, 1, 1] = 10
    two, four, eight = smoothed([point] * 3, 2.0)
    assert two[0, 0].tolist() == [[0, 2, 0], [2, pytest.approx(2), 2], [0, 2, 0]]
    assert four[0, 0].tolist() == [[0, 1, 0], [1, pytest.approx(6), 1], [0, 1, 0]]
    assert eight is point


def test_is_the_mean_of_five_samples() -> None:
    g = torch.Generator().manual_seed(0)
    maps = [torch.rand((2, 3, side, 2 * side), generator=g) for side in (32, 16)]
    cross = 2.0 * torch.tensor([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    for level, one in zip(maps, smoothed(maps, 2.0), strict=True):
        stride = 128 // level.shape[-1]
        pixels = torch.randint(2, 14, (2, 50, 2), generator=g)
        centres = (pixels + 0.5) * stride - 0.5
        wanted = torch.stack([sample_map(level, centres + offset, 128, 64) for offset in cross]).mean(0)
        torch.testing.assert_close(sample_map(one, centres, 128, 64), wanted)


def test_a_plain_surface_stays_plain_up_to_the_border() -> None:
    plain = torch.full((1, 2, 4, 5), 3.0).contiguous(memory_format=torch.channels_last)
    for one in smoothed([plain, plain], 2.0):
        torch.testing.assert_close(one, plain)


def test_none_is_none() -> None:
    maps = [torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2, 2)]
    assert all(one is level for one, level in zip(smoothed(maps, 0.0), maps, strict=True))
