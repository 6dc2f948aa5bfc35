"""BatchNorm with statistics shared by groups of channels, a shortcut and ReLU, against PyTorch's one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lisrd.describe import rectified_norm
from lisrd.describe.rectified_norm import RectifiedNorm, TorchPasses
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
    weight, bias = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0])
    out, mean, variance = RectifiedNorm.apply(x, weight, bias, None, 0.0)
    assert mean.tolist() == [3.0, 5.0]
    assert variance.tolist() == [4.0, 4.0]
    torch.testing.assert_close(out.flatten(), torch.tensor([0.0, 0.0, 1.0, 3.0]))  # of -1, -1, 1, 3
    shortcut = torch.tensor([0.5, 2.0, 0.0, -4.0]).view(1, 4, 1, 1)
    added, _, _ = RectifiedNorm.apply(x, weight, bias, shortcut, 0.0)
    torch.testing.assert_close(added.flatten(), torch.tensor([0.0, 1.0, 1.0, 0.0]))


@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize("turns", [1, 4])
def test_equals_batch_norm_of_the_turns_side_by_side(turns: int, with_shortcut: bool) -> None:
    torch.manual_seed(0)
    pooled, x = drawn(TurnBatchNorm(3, turns)), maps(turns)
    plain = nn.BatchNorm2d(3).double()
    plain.load_state_dict(pooled.norm.state_dict())
    weight, shortcut = torch.randn_like(x), torch.randn_like(x) if with_shortcut else torch.zeros_like(x)
    for _ in range(2):  # the second step moves running statistics that are no longer 0 and 1
        pooled(x), plain(side_by_side(x, turns))
    (a, c), (b, d) = ([t.clone().requires_grad_() for t in (x, shortcut)] for _ in range(2))
    got = pooled(a, c if with_shortcut else None)
    wanted = (plain(side_by_side(b, turns)) + side_by_side(d, turns)).relu()
    torch.testing.assert_close(side_by_side(got, turns), wanted)
    (got * weight).sum().backward()
    (wanted * side_by_side(weight, turns)).sum().backward()
    torch.testing.assert_close(a.grad, b.grad, check_stride=False)
    if with_shortcut:
        torch.testing.assert_close(c.grad, d.grad, check_stride=False)
    torch.testing.assert_close(pooled.norm.weight.grad, plain.weight.grad)
    torch.testing.assert_close(pooled.norm.bias.grad, plain.bias.grad)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(pooled.norm.state_dict()[name], value)
    torch.testing.assert_close(
        side_by_side(pooled.eval()(x), turns),
        plain.eval()(side_by_side(x, turns)).relu(),
        check_stride=False,
    )


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    x = maps(2, channels=2).requires_grad_()
    shortcut = torch.randn_like(x).requires_grad_()
    weight, bias = torch.rand(2, 2, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(
        lambda *args: RectifiedNorm.apply(*args, 1e-5)[0], (x, weight, bias, shortcut)
    )


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_passes_equal_those_of_torch(
    dtype: torch.dtype, with_shortcut: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    from lisrd.describe.rectified_norm_compiled import CompiledPasses

    g = torch.Generator().manual_seed(0)

    def drawn_maps() -> Tensor:
        like = torch.randn((2, 12, 19, 7), generator=g)
        return like.contiguous(memory_format=torch.channels_last).to(dtype)

    x, gradient, added = 3 * drawn_maps() + 5, drawn_maps(), drawn_maps()
    weight, bias = torch.rand(3, generator=g) + 0.5, torch.randn(3, generator=g)

    def run(passes: rectified_norm.Passes, dtype: torch.dtype) -> list[Tensor]:
        monkeypatch.setattr(rectified_norm, "_passes_for", lambda x: passes)
        x_, added_ = (t.to(dtype).requires_grad_() for t in (x.clone(), added.clone()))
        weight_, bias_ = weight.clone().requires_grad_(), bias.clone().requires_grad_()
        shortcut = added_ if with_shortcut else None
        out, mean, variance = RectifiedNorm.apply(x_, weight_, bias_, shortcut, 1e-5)
        out.backward(gradient.to(dtype))
        every = [out.detach(), x_.grad, added_.grad, mean, variance, weight_.grad, bias_.grad]
        return [t for t in every if t is not None]

    assert CompiledPasses.takes(x)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    got, wanted = run(CompiledPasses(), dtype), run(TorchPasses(), torch.float32)
    assert len(got) == 6 + with_shortcut
    # Rounded to bfloat16, what is nearly zero may be rectified or not.
    out = wanted[0]
    sure = (out > 0.05) | (out == 0) & (got[0] == 0)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    assert sure.double().mean() > 0.9
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == (dtype if a.ndim == 4 else torch.float32)
        a, b = (a[sure], b[sure]) if a.ndim == 4 else (a, b)
        torch.testing.assert_close(a.float(), b, rtol=tolerance, atol=tolerance)


def test_maps_that_are_not_channels_last_are_left_to_torch() -> None:
    pytest.importorskip("numba")
    from lisrd.describe.rectified_norm_compiled import CompiledPasses

    assert not CompiledPasses.takes(torch.zeros(2, 4, 3, 3))
    assert not CompiledPasses.takes(torch.zeros(2, 4, 3, 3, dtype=torch.float64))
    norm = TurnBatchNorm(1, 4)
    assert norm(torch.randn(2, 4, 3, 3)).shape == (2, 4, 3, 3)


def test_low_precision_maps_keep_float32_statistics() -> None:
    x = (1000 + torch.arange(64.0).view(1, 4, 4, 4)).bfloat16()
    norm = TurnBatchNorm(1, 4)
    assert norm(x).dtype == torch.bfloat16
    assert norm.norm.running_mean is not None
    torch.testing.assert_close(norm.norm.running_mean, 0.1 * x.float().mean().view(1))
