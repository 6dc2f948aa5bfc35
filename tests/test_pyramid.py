"""The pyramid network: exactness of quarter turns, folding, padding, the interface of the field."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lisrd.coordinates import turn_points
from lisrd.describe.describer import NetworkDescriber
from lisrd.describe.meta import tile_grid
from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.ring import RingLinear, sample_around
from lisrd.describe.turns import Lift, TurnBatchNorm, TurnConv
from lisrd.errors import InputError
from lisrd.match import match
from lisrd.types import Keypoints, stack_keypoints

SMALL = PyramidConfig(widths=(2, 4, 4, 4, 4), trunk_width=8, head_width=16, descriptor_dim=16)
EIGHT = replace(SMALL, turns=8, encoder_input="light", first_kernel=6)
RINGS = (1.5, 0.0, 1.0)


@pytest.fixture(
    scope="module",
    params=[
        SMALL,
        EIGHT,
        replace(SMALL, encoder_input="both", ring_radii=RINGS),
        replace(EIGHT, ring_radii=RINGS),
        replace(SMALL, smoothing=2.0, ring_radii=RINGS),
        replace(EIGHT, plain_levels=1),
    ],
    ids=["four turns", "eight turns", "both inputs, rings", "eight turns, rings", "smoothed, rings", "plain"],
)
def network(request: pytest.FixtureRequest) -> PyramidNetwork:
    torch.manual_seed(0)
    network = PyramidNetwork(request.param)
    for norm in (m for m in network.modules() if isinstance(m, TurnBatchNorm)):
        torch.nn.init.uniform_(norm.norm.running_mean, -0.2, 0.2)
        torch.nn.init.uniform_(norm.norm.running_var, 0.5, 1.5)
        torch.nn.init.uniform_(norm.norm.weight, 0.5, 1.5)
    return network.eval().requires_grad_(False)


def random_keypoints(count: int, width: int, height: int, seed: int = 0) -> Keypoints:
    g = torch.Generator().manual_seed(seed)
    return Keypoints.from_xy(
        torch.rand((1, count, 2), generator=g) * torch.tensor([width - 1.0, height - 1.0])
    )


@pytest.mark.parametrize("size", [(64, 96), (60, 90)], ids=["multiples of 32", "evenly padded"])
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_exact(network: PyramidNetwork, size: tuple[int, int], quarters: int) -> None:
    height, width = size
    image = torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(1))
    keypoints = random_keypoints(40, width, height)
    turned_keypoints = Keypoints.from_xy(turn_points(keypoints.xy, width, height, quarters))
    field, turned = network(image), network(image.rot90(quarters, (2, 3)))
    turn = quarters * network.num_turns // 4
    torch.testing.assert_close(turned.at(turned_keypoints), field.at(keypoints, turn), atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.meta(), field.meta(turn).rot90(quarters, (2, 3)), atol=1e-5, rtol=0)
    invariant = [v for v, is_variant in enumerate(network.rotation_variant) if not is_variant]
    upright, read_turned = field.at(keypoints), field.at(keypoints, turn)
    torch.testing.assert_close(upright[:, :, invariant], read_turned[:, :, invariant], atol=1e-6, rtol=0)
    variant = [v for v in range(4) if v not in invariant]
    assert (upright[:, :, variant] - read_turned[:, :, variant]).abs().max() > 0.01


def test_turned_image_gives_the_matches_of_the_image(network: PyramidNetwork) -> None:
    """Through the whole of `match`: the turn changes, no match does."""
    g = torch.Generator().manual_seed(3)
    image0 = torch.rand((1, 3, 64, 96), generator=g)
    image1 = (image0.roll(3, 3) + 0.05 * torch.rand(image0.shape, generator=g)).clamp(0, 1)
    describer = NetworkDescriber("small", deepcopy(network), "test", precision="float32")
    keypoints0, keypoints1 = random_keypoints(60, 96, 64, 1), random_keypoints(60, 96, 64, 2)
    features0 = describer.describe(image0, keypoints0)
    upright = match(features0, describer.describe(image1, keypoints1))
    for turn in (1, 2, 3):
        turned_keypoints = Keypoints.from_xy(turn_points(keypoints1.xy, 96, 64, turn))
        turned = match(features0, describer.describe(image1.rot90(turn, (2, 3)), turned_keypoints))
        assert turned.matches.tolist() == upright.matches.tolist()
        assert (turned.turn + turn) % 4 == upright.turn
        torch.testing.assert_close(turned.invariance_weights, upright.invariance_weights, atol=1e-4, rtol=0)


@pytest.mark.parametrize("fused", [False, True])
def test_folding_changes_nothing(network: PyramidNetwork, fused: bool) -> None:
    image, keypoints = torch.rand(1, 3, 64, 96), random_keypoints(20, 96, 64)
    field, folded = network(image), deepcopy(network).fold(torch.float32, fused)(image)
    for ours, theirs in (
        (folded.at(keypoints), field.at(keypoints)),
        (folded.at(keypoints, 3), field.at(keypoints, 3)),
        *zip(folded.at_all_turns(keypoints), field.at_all_turns(keypoints), strict=True),
        *zip(folded.meta_all_turns(), field.meta_all_turns(), strict=True),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_products_of_bfloat16_round_and_no_more(network: PyramidNetwork) -> None:
    """Every product rounds by up to 2^-9 of its value; what is handed out is float32, of unit length."""
    image, keypoints = torch.rand(1, 3, 64, 96), random_keypoints(20, 96, 64)
    exact = NetworkDescriber("small", deepcopy(network), "test", precision="float32")
    rounded = NetworkDescriber("small", deepcopy(network), "test", precision="bfloat16")
    for name in ("descriptors", "turned_descriptors", "meta_descriptors", "turned_meta_descriptors"):
        one, other = (getattr(d.describe(image, keypoints), name) for d in (exact, rounded))
        assert other.dtype == torch.float32
        assert float((one * other).sum(-1).min()) > 0.999
        torch.testing.assert_close(other.norm(dim=-1), torch.ones_like(other[..., 0]), atol=1e-5, rtol=0)
        assert not torch.equal(one, other)


def test_each_image_of_a_batch_takes_its_own_turn(network: PyramidNetwork) -> None:
    count = network.num_turns
    field = network(torch.rand(count, 3, 64, 64))
    trunk = field.trunk_at(random_keypoints(10, 64, 64).xy.expand(count, -1, -1))
    together = network.describe_trunk(trunk, range(4), torch.arange(count))
    for turn in range(count):
        alone = network.describe_trunk(trunk[turn : turn + 1], range(4), turn)
        torch.testing.assert_close(together[turn : turn + 1], alone, atol=1e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.integers(32, 100), st.integers(32, 100), st.integers(0, 20))
def test_any_size_and_count(width: int, height: int, count: int) -> None:
    torch.manual_seed(0)
    describer = NetworkDescriber("small", PyramidNetwork(SMALL), "test", precision="float32")
    features = describer.describe(torch.rand(1, 3, height, width), random_keypoints(count, width, height))
    assert features.descriptors.shape == (1, count, 4, 16)
    assert features.turned_descriptors is not None
    assert features.turned_descriptors.shape == (1, count, 3, 2, 16)
    norms = torch.cat(
        [features.descriptors.norm(dim=-1).flatten(), features.meta_descriptors.norm(dim=-1).flatten()]
    )
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-5, rtol=0)


def test_padding_and_batching_change_nothing(network: PyramidNetwork) -> None:
    describer = NetworkDescriber("small", deepcopy(network), "test", precision="float32")
    images = torch.rand(2, 3, 64, 80)
    singles = [random_keypoints(n, 80, 64, n) for n in (7, 12)]
    together = describer.describe(images, stack_keypoints(singles))
    for i, keypoints in enumerate(singles):
        alone = describer.describe(images[i : i + 1], keypoints)
        part = together.select(i)
        torch.testing.assert_close(part.descriptors, alone.descriptors, atol=1e-5, rtol=0)
        torch.testing.assert_close(part.meta_descriptors, alone.meta_descriptors, atol=1e-5, rtol=0)


def test_small_images_are_refused_with_the_reason(network: PyramidNetwork) -> None:
    describer = NetworkDescriber("small", deepcopy(network), "test")
    with pytest.raises(InputError, match="image is 40 x 16; needs at least 32 x 32"):
        describer.describe(torch.rand(1, 3, 16, 40), random_keypoints(3, 16, 16))


def test_eight_turns_of_a_kernel_by_hand() -> None:
    """The ring moves on by one place, counter-clockwise; two eighths are a quarter."""
    conv = TurnConv(1, 1, 8)
    conv.weight.data.zero_()
    conv.weight.data[0, 0, 0] = torch.arange(9.0).view(3, 3)
    bank = conv.kernels()  # output turn g sees the kernel at input turn g
    assert bank[1, 1].tolist() == [[1, 2, 5], [0, 4, 8], [3, 6, 7]]
    for g in range(8):
        torch.testing.assert_close(bank[(g + 2) % 8, (g + 2) % 8], bank[g, g].rot90(1))
        assert not bank[g, (g + 1) % 8].any()
    lift = Lift(1, 1, 8, 4)
    lift.weight.data.zero_()
    lift.weight.data[0, 0, 0, 1:3] = 1.0  # the middle of the upper edge turns to the upper left corner
    turned = lift.kernels()[1, 0]
    torch.testing.assert_close(turned, turned.T)
    assert turned[:2, :2].sum() > 0.95 * turned.sum() > 1.9
    ramp = torch.arange(6.0) - 2.5
    lift = Lift(1, 1, 8, 6)
    # Grows to the right, at 45 degrees to the upper right, in a circle.
    lift.weight.data[0, 0] = ramp.expand(6, 6)
    assert not lift.kernels()[0, 0, [0, 0, -1, -1], [0, -1, 0, -1]].any()
    diagonal = 0.5**0.5 * (ramp - ramp[:, None])
    torch.testing.assert_close(lift.kernels()[1, 0, 2:4, 2:4], diagonal[2:4, 2:4])


def test_ring_by_hand() -> None:
    """On a map of its own coordinates: right, right and up, up, ... at 1.5 of its pixels, which are 4 of the image."""
    x, y = torch.meshgrid(torch.arange(12.0), torch.arange(10.0), indexing="xy")
    level = torch.stack([x, y]).unsqueeze(0)
    xy = torch.tensor([[[21.5, 17.5]]])  # the centre of the map's pixel (5, 4)
    points = sample_around(level, xy, 48, 40, radius=1.5).view(9, 2)
    straight = torch.tensor([[5.0, 4.0], [6.5, 4.0], [5.0, 2.5], [3.5, 4.0], [5.0, 5.5]])
    torch.testing.assert_close(points[[0, 1, 3, 5, 7]], straight)
    diagonal = 1.5 * 0.5**0.5
    torch.testing.assert_close(points[2], torch.tensor([5 + diagonal, 4 - diagonal]))
    assert sample_around(level, xy, 48, 40, radius=0.0).tolist() == [[[5.0, 4.0]]]


@pytest.mark.parametrize("turns", [1, 4, 8])
def test_a_ring_is_counted_from_the_direction_of_each_turn(turns: int) -> None:
    """A weight of the point ahead alone: every turn reads its own features at the point that lies ahead of it."""
    linear = RingLinear(1, 1, turns)
    linear.weight.data.zero_()
    linear.weight.data.view(turns, 9)[0, 1] = 1.0  # of its own turn, the first point of the ring
    bank, _ = linear.bank_and_bias()
    for turn in range(turns):
        point, of_turn = divmod(int(bank[turn].argmax()), turns)
        assert (point, of_turn) == (1 + turn * 8 // turns, turn)
    assert bank.sum() == turns


@pytest.mark.parametrize(
    "wrong",
    [
        {"turns": 6},
        {"encoder_input": "gray"},
        {"first_kernel": 5},
        {"smoothing": 2.5},
        {"plain_levels": 6},
        {"ring_radii": (1.5, -1.0)},
        {"ring_radii": (1.5,) * 6},
        {"widths": (4, 4), "encoder_input": "light"},
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|needs three levels"):
        PyramidConfig(**wrong)


def test_plain_network_has_no_turns() -> None:
    plain = PyramidNetwork(PyramidConfig(widths=(4, 4, 4, 4, 4), turns=1, trunk_width=8))
    features = NetworkDescriber("plain", plain, "test").describe(
        torch.rand(1, 3, 64, 64), random_keypoints(5, 64, 64)
    )
    assert features.turned_descriptors is None
    assert features.selection.rotation_variant is None


def test_tile_grid_by_hand() -> None:
    tiles = tile_grid(12, 6, 3, spacing=2.0)
    assert tiles.shape == (9, 2, 2)
    # Tiles of 4 x 2 pixels with two points each, symmetric about the tile's centre.
    assert tiles[0].tolist() == [[0.5, 0.5], [2.5, 0.5]]
    assert tiles[5].tolist() == [[8.5, 2.5], [10.5, 2.5]]
