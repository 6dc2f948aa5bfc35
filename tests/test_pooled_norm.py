"""BatchNorm with statistics shared by groups of channels, against PyTorch's on the channels side by side."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lisrd import compiled
from lisrd.describe import pooled_norm
from lisrd.describe.norm_passes import CompiledPasses, TorchPasses, choose_passes, norm_pass
from lisrd.describe.pooled_norm import PooledNorm
from lisrd.describe.turns import TurnBatchNorm


def side_by_side(x: Tensor, turns: int) -> Tensor:
    """A map of turns x C channels as one of C channels that is `turns` times as high."""
    return torch.cat(x.chunk(turns, dim=1), dim=2)


def drawn(norm: TurnBatchNorm) -> TurnBatchNorm:
    with torch.no_grad():
        norm.norm.weight.uniform_(0.5, 2)
        norm.norm.bias.normal_()
    return norm.double()


def maps(turns: int, channels: int = 3) -> Tensor:
    """Channels of different means and deviations, so that pooling over the wrong ones shows."""
    count = turns * channels
    x = torch.randn(2, count, 5, 4, dtype=torch.float64) * torch.linspace(0.5, 3, count)[:, None, None]
    return (x + torch.arange(count)[:, None, None]).contiguous(memory_format=torch.channels_last)


def test_by_hand() -> None:
    x = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(1, 4, 1, 1)  # two features in two turns: (1, 5) and (3, 7)
    normed, mean, variance = PooledNorm.apply(
        x, torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]), 0.0, None, False
    )
    assert mean.tolist() == [3.0, 5.0]
    assert variance.tolist() == [4.0, 4.0]
    torch.testing.assert_close(normed.flatten(), torch.tensor([-1.0, -1.0, 1.0, 3.0]))


@pytest.mark.parametrize("turns", [1, 4])
def test_equals_batch_norm_of_the_turns_side_by_side(turns: int) -> None:
    torch.manual_seed(0)
    pooled, x = drawn(TurnBatchNorm(3, turns)), maps(turns)
    plain = nn.BatchNorm2d(3).double()
    plain.load_state_dict(pooled.norm.state_dict())
    weight = torch.randn_like(x)
    for _ in range(2):  # the second step moves running statistics that are no longer 0 and 1
        pooled(x), plain(side_by_side(x, turns))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    got, wanted = pooled(a), plain(side_by_side(b, turns))
    torch.testing.assert_close(side_by_side(got, turns), wanted)
    (got * weight).sum().backward()
    (wanted * side_by_side(weight, turns)).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, check_stride=False)
    torch.testing.assert_close(pooled.norm.weight.grad, plain.weight.grad)
    torch.testing.assert_close(pooled.norm.bias.grad, plain.bias.grad)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(pooled.norm.state_dict()[name], value)
    torch.testing.assert_close(
        side_by_side(pooled.eval()(x), turns), plain.eval()(side_by_side(x, turns)), check_stride=False
    )


@pytest.mark.parametrize("has_skip", [False, True])
@pytest.mark.parametrize("rectify", [False, True])
def test_gradients_by_finite_differences(has_skip: bool, rectify: bool) -> None:
    torch.manual_seed(0)
    x = maps(2, channels=2).requires_grad_()
    weight, bias = torch.rand(2, 2, dtype=torch.float64).requires_grad_().unbind()
    skip = torch.randn_like(x).requires_grad_() if has_skip else None
    assert torch.autograd.gradcheck(
        lambda x, w, b, s: PooledNorm.apply(x, w, b, 1e-5, s, rectify)[0], (x, weight, bias, skip)
    )


def test_low_precision_maps_keep_float32_statistics() -> None:
    x = (1000 + torch.arange(64.0).view(1, 4, 4, 4)).bfloat16()
    norm = TurnBatchNorm(1, 4)
    assert norm(x).dtype == torch.bfloat16
    assert norm.norm.running_mean is not None
    torch.testing.assert_close(norm.norm.running_mean, 0.1 * x.float().mean().view(1))


#: A channel of two nearly equal pixels has no variance of its own, and float32 no digits for what is divided by it.
EPS = 0.1

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="needs the extra fast")


def in_all_ways(
    passes: type,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    rectify: bool,
    gradient: Tensor,
) -> list[Tensor]:
    """Map, mean, variance, then the gradients of map, weight, bias and skip; float64."""
    inputs = [None if each is None else each.clone().requires_grad_() for each in (x, weight, bias, skip)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooled_norm, "choose_passes", lambda *maps: passes())
        out, mean, variance = PooledNorm.apply(*inputs[:3], EPS, inputs[3], rectify)
        out.backward(gradient)
    return [out, mean, variance, *(each.grad for each in inputs if each is not None)]


@needs_numba
@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 9), st.integers(1, 9)),
    groups=st.integers(1, 8),
    low=st.booleans(),
    has_skip=st.booleans(),
    rectify=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_compiled_passes_are_those_of_torch_in_float64(
    shape: tuple[int, int, int, int],
    groups: int,
    low: bool,
    has_skip: bool,
    rectify: bool,
    threads: int,
    seed: int,
) -> None:
    g = torch.Generator().manual_seed(seed)
    batch, channels, height, width = shape
    dtype = torch.bfloat16 if low else torch.float32

    def drawn_map(offset: float = 0.0) -> Tensor:
        values = offset + torch.randn((batch, groups * channels, height, width), generator=g)
        return values.to(dtype).contiguous(memory_format=torch.channels_last)

    x, gradient, skip = drawn_map(3.0), drawn_map(), drawn_map() if has_skip else None
    weight, bias = torch.rand(channels, generator=g) + 0.5, torch.randn(channels, generator=g)
    given_maps = x, weight, bias, skip
    if rectify:  # where the sum is 0 but for rounding, either side is right
        exact = in_all_ways(TorchPasses, *map(as_double, given_maps), False, gradient.double())[0]  # type: ignore[arg-type]
        gradient = gradient * (exact.abs() > 0.05).to(dtype)
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    wanted = in_all_ways(TorchPasses, *map(as_double, given_maps), rectify, gradient.double())  # type: ignore[arg-type]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = in_all_ways(CompiledPasses, *given_maps, rectify, gradient)
    finally:
        torch.set_num_threads(before)
    for index, (ours, reference) in enumerate(zip(got, wanted, strict=True)):
        is_map = index in (0, 3, 6)
        assert ours.dtype == (dtype if is_map else torch.float32)
        # One rounding to bfloat16 of what is written; statistics and sums are float32's.
        near = {"rtol": 2**-8, "atol": 1e-4} if is_map and low else {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(ours.double(), reference, **near, check_stride=False)


def as_double(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.double()


@needs_numba
def test_compiled_rounding_is_torchs() -> None:
    """To the nearest, of two to the even one; NaN and infinity stay."""
    bits = np.arange(0, 2**32, 65_521, dtype=np.uint32)  # odd, so that low halves of all kinds occur
    ties = (np.arange(0x3F80, 0x4080, dtype=np.uint32) << 16) + 0x8000
    values = torch.from_numpy(np.concatenate([bits, ties]).view(np.float32).copy())
    values = torch.cat([values[values.isfinite()], torch.tensor([float("inf"), -float("inf"), float("nan")])])
    rounded = values.bfloat16()
    one, zero = torch.ones(1), torch.zeros(1)
    for sign in (1.0, -1.0):  # 0 x + value: every value comes as a shift, and none of the map's own
        x = torch.zeros((1, len(values), 1, 1), dtype=torch.bfloat16).contiguous(
            memory_format=torch.channels_last
        )
        out = CompiledPasses().affine(x, one.expand(len(values)), sign * values, None, rectify=False)
        np.testing.assert_array_equal(out.flatten().float().numpy(), (sign * rounded).float().numpy())
    x = torch.full((1, 1, 1, 1), float("nan"), dtype=torch.bfloat16)
    assert CompiledPasses().affine(x, one, zero, None, rectify=True).isnan().all()


@needs_numba
def test_variance_of_large_numbers() -> None:
    torch.manual_seed(0)
    x = (3e4 + torch.randn(4, 8, 60, 50)).contiguous(memory_format=torch.channels_last)
    mean, variance = CompiledPasses().statistics(x)
    reference = x.double()
    torch.testing.assert_close(mean.double(), reference.mean((0, 2, 3)), rtol=1e-7, atol=0)
    torch.testing.assert_close(variance.double(), reference.var((0, 2, 3), correction=0), rtol=1e-5, atol=0)


@needs_numba
def test_a_gradient_in_another_memory_format() -> None:
    """Of a map of several blocks of rows."""
    torch.manual_seed(0)
    x = (5 + torch.randn(2, 12, 60, 50)).contiguous(memory_format=torch.channels_last)
    weight, bias, gradient = torch.rand(3), torch.rand(3), torch.randn(x.shape)
    assert not gradient.is_contiguous(memory_format=torch.channels_last)
    a, b = x.clone().requires_grad_(), x.double().requires_grad_()
    PooledNorm.apply(a, weight, bias, 1e-5, None, True)[0].backward(gradient)
    PooledNorm.apply(b, weight.double(), bias.double(), 1e-5, None, True)[0].backward(gradient.double())
    torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-4, atol=1e-5, check_stride=False)


@needs_numba
def test_the_compiled_passes_are_chosen_for_what_they_take() -> None:
    x = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    low = x.bfloat16()
    assert isinstance(choose_passes(x, None), CompiledPasses)
    assert isinstance(choose_passes(low, low), CompiledPasses)
    assert norm_pass("cpu")[0] == "numba"
    assert norm_pass("cuda")[0] == "torch"
    for maps_ in (
        (x.double(), None),
        (x.half(), None),
        (x.contiguous(), None),
        (x, low),
        (x.to("meta"), None),
    ):
        assert type(choose_passes(*maps_)) is TorchPasses


def test_torch_does_it_where_numba_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "is_installed", lambda module: False)
    compiled.obstacle_to.cache_clear()
    x = torch.zeros(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    chosen, named = choose_passes(x), norm_pass("cpu")
    compiled.obstacle_to.cache_clear()
    assert type(chosen) is TorchPasses
    assert named[0] == "torch"
    assert "pip install 'lisrd[fast]'" in named[1]


@pytest.mark.parametrize("training", [True, False])
def test_the_sum_and_the_relu_are_part_of_the_norm(training: bool) -> None:
    torch.manual_seed(0)
    norm, x = drawn(TurnBatchNorm(3, 4)).train(training), maps(4)
    skip = torch.randn_like(x)
    torch.testing.assert_close(norm(x, skip), norm(x) + skip)
    torch.testing.assert_close(norm(x, rectify=True), F.relu(norm(x)))
    torch.testing.assert_close(norm(x, skip, rectify=True), F.relu(norm(x) + skip))
