"""The Triton kernel in Triton's interpreter, which runs it on the CPU, instruction by instruction."""

from __future__ import annotations

import os

import pytest
import torch
import torch.nn.functional as F

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported

from lisrd.match.gpu import nearest_on_gpu
from lisrd.match.nearest import mutual

pytest.importorskip("triton", reason="Triton comes with torch for CUDA")


def operands(count0: int, count1: int, dim: int = 24) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(count0)
    d0, d1 = (F.normalize(torch.randn(4, n, dim, generator=g), dim=-1) for n in (count0, count1))
    thin0, thin1 = 5 * torch.randn(4, count0, 9, generator=g), torch.rand(4, count1, 9, generator=g)
    return [d0, d1, thin0, thin1, torch.tensor([-3.0, 0.0, 1.0, 2.0])]


def weighted(d0, d1, thin0, thin1, bias) -> torch.Tensor:
    logits = thin0.double() @ thin1.double().mT + bias[:, None, None]
    weights = torch.softmax(logits * torch.tensor(2.0).log(), dim=0)
    return (d0.double() @ d1.double().mT * weights).sum(0)


@pytest.mark.parametrize(("count0", "count1"), [(70, 100), (64, 32), (1, 40), (33, 1)])
def test_best_of_rows_and_columns(count0: int, count1: int) -> None:
    parts = operands(count0, count1)
    found, expected = nearest_on_gpu(*parts), weighted(*parts)
    assert found.index1.tolist() == expected.argmax(1).tolist()
    assert found.index0.tolist() == expected.argmax(0).tolist()
    torch.testing.assert_close(found.best1[:, 0].double(), expected.amax(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.best0[:, 0].double(), expected.amax(0), atol=1e-5, rtol=0)


def test_the_first_of_equals_wins() -> None:
    """Every keypoint stands three times, in different blocks and strips.

    Of sixteenths, whose products are summed exactly: numpy's order depends on where in a tile a row is.
    """
    d0, d1, thin0, thin1, bias = ((16 * part).round() / 16 for part in operands(40, 40))
    found = nearest_on_gpu(*(part.repeat(1, 3, 1) for part in (d0, d1, thin0, thin1)), bias)
    assert max(found.index1.max(), found.index0.max()) < 40
    assert mutual(found).tolist() == mutual(nearest_on_gpu(d0, d1, thin0, thin1, bias)).tolist()


def test_no_keypoints() -> None:
    assert mutual(nearest_on_gpu(*operands(0, 5))).shape == (0, 2)
