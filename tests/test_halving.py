"""Maps of half the size, whose gradient is written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lisrd.describe.halving import halved


def test_by_hand() -> None:
    x = torch.tensor([[[[1.0, 3.0, 0.0, 0.0], [5.0, 7.0, 0.0, 8.0]]]], requires_grad=True)
    small = halved(x)
    assert small.tolist() == [[[[4.0, 2.0]]]]
    (small * torch.tensor([4.0, 12.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[[1.0, 1.0, 3.0, 3.0], [1.0, 1.0, 3.0, 3.0]]]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_equals_average_pooling_to_the_bit(dtype: torch.dtype, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 12, 6, 10).to(dtype, memory_format=layout)
    seen = torch.randn(2, 12, 3, 5).to(dtype, memory_format=layout)
    ours, pooled = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = halved(ours), F.avg_pool2d(pooled, 2)
    assert torch.equal(a, b)
    a.backward(seen), b.backward(seen)
    assert ours.grad is not None
    assert pooled.grad is not None
    assert torch.equal(ours.grad, pooled.grad)
    assert ours.grad.is_contiguous(memory_format=layout)
    assert torch.equal(halved(x), a.detach())  # without a gradient
