"""One image seen at other sizes and in a mirror: what the looks show, and that descriptors follow."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lisrd.describe import Describer, build_describer
from lisrd.train.looks import Look, describe_looks, looks
from lisrd.train.objective import LossConfig
from lisrd.types import Keypoints


@pytest.fixture(scope="module")
def describer() -> Describer:
    return build_describer("pyramid-small", precision="float32")


def _scene(width: int = 96, height: int = 64) -> tuple[torch.Tensor, Keypoints]:
    g = torch.Generator().manual_seed(0)
    images = torch.nn.functional.avg_pool2d(torch.rand((1, 3, height + 4, width + 4), generator=g), 5, 1)
    xy = 8 + torch.rand((1, 40, 2), generator=g) * torch.tensor([width - 16.0, height - 16.0])
    return images, Keypoints.from_xy(xy)


def test_full_size_comes_first_and_once() -> None:
    assert looks((), mirrored=False) == [Look()]
    assert looks((0.5, 1.0), mirrored=True) == [Look(), Look(0.5), Look(1.0, True), Look(0.5, True)]


def test_each_octave_weighs_four_fifths() -> None:
    assert [Look(size).weight for size in (1.0, 0.5, 2.0, 0.25)] == pytest.approx([1, 0.8, 0.8, 0.64])


def test_half_size_keeps_the_places() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[..., 4:6, 2:4] = 1
    keypoints = Keypoints(
        torch.tensor([[[2.5, 4.5]]]), torch.ones(1, 1), torch.ones(1, 1) > 0, torch.full((1, 1), 6.0)
    )
    small, placed = Look(0.5)(images, keypoints)
    assert small.shape == (1, 3, 4, 4)
    assert small[0, 0].argmax() == 2 * 4 + 1
    torch.testing.assert_close(placed.xy, torch.tensor([[[1.0, 2.0]]]))
    assert placed.scales == torch.tensor([[3.0]])


def test_a_mirror_swaps_left_and_right() -> None:
    images = torch.arange(4.0).expand(1, 3, 1, 4)
    keypoints = Keypoints(
        torch.tensor([[[3.0, 0.0]]]),
        torch.ones(1, 1),
        torch.ones(1, 1) > 0,
        oris=torch.tensor([[math.pi / 2]]),
    )
    mirrored, placed = Look(mirrored=True)(images, keypoints)
    assert mirrored[0, 0, 0].tolist() == [3, 2, 1, 0]
    assert placed.xy.tolist() == [[[0.0, 0.0]]]
    assert placed.oris == torch.tensor([[math.pi / 2]])  # what points down points down


@given(st.sampled_from([0.5, 1.0, 1.5]), st.floats(0, 95), st.floats(0, 63))
def test_a_mirror_twice_is_no_mirror(size: float, x: float, y: float) -> None:
    images, keypoints = torch.rand(1, 3, 64, 96), Keypoints.from_xy(torch.tensor([[[x, y]]]))
    once = Look(size, mirrored=True)(images, keypoints)
    again, placed = Look(mirrored=True)(*once)
    straight, expected = Look(size)(images, keypoints)
    torch.testing.assert_close(again, straight)
    torch.testing.assert_close(placed.xy, expected.xy, atol=1e-4, rtol=1e-5)


def test_a_mirrored_look_describes_the_mirrored_image(describer: Describer) -> None:
    images, keypoints = _scene()
    mirrored = Look(mirrored=True)
    seen = describe_looks(describer, images, keypoints, [mirrored])
    there = describer.describe(*mirrored(images, keypoints), keep_turns=False)
    torch.testing.assert_close(seen.descriptors, there.descriptors)
    back = describe_looks(describer, *mirrored(images, keypoints), [mirrored])
    straight = describer.describe(images, keypoints, keep_turns=False)
    torch.testing.assert_close(back.descriptors, straight.descriptors, atol=1e-5, rtol=1e-4)


def test_looks_stand_side_by_side_as_unit_vectors(describer: Describer) -> None:
    images, keypoints = _scene()
    seen = looks((0.5, 1.5), mirrored=True)
    features = describe_looks(describer, images, keypoints, seen)
    assert features.descriptors.shape == (1, 40, 4, 6 * 128)
    torch.testing.assert_close(features.descriptors.norm(dim=-1), torch.ones(1, 40, 4))
    parts = features.descriptors.unflatten(-1, (6, 128)).norm(dim=-1)
    torch.testing.assert_close(parts[..., 1] / parts[..., 0], torch.full((1, 40, 4), 0.8))
    first = describer.describe(images, keypoints, keep_turns=False).descriptors
    torch.testing.assert_close(features.descriptors[..., :128] / parts[..., :1], first)


@pytest.mark.parametrize("sizes", [(0.0,), (0.5, -1.0)])
def test_a_size_must_be_above_zero(sizes: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="each must be above 0"):
        LossConfig(teacher="pyramid", teacher_weight=1.0, teacher_sizes=sizes)
