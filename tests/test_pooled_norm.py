"""BatchNorm with statistics shared by groups of channels, against PyTorch's on the channels side by side."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

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
    normed, mean, variance = PooledNorm.apply(x, torch.tensor([1.0, 2.0]), torch.tensor([0.0, 1.0]), 0.0)
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


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    x = maps(2, channels=2).requires_grad_()
    weight, bias = torch.rand(2, 2, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(lambda *args: PooledNorm.apply(*args, 1e-5)[0], (x, weight, bias))


def test_low_precision_maps_keep_float32_statistics() -> None:
    x = (1000 + torch.arange(64.0).view(1, 4, 4, 4)).bfloat16()
    norm = TurnBatchNorm(1, 4)
    assert norm(x).dtype == torch.bfloat16
    assert norm.norm.running_mean is not None
    torch.testing.assert_close(norm.norm.running_mean, 0.1 * x.float().mean().view(1))
