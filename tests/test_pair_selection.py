"""The weighted similarity straight from meta factors, against softmax and sum one after the other."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from lisrd.match.selection import weighted_similarity
from lisrd.train import pair_selection
from lisrd.train.pair_selection import selected_similarity, weights_of_factors


def drawn(
    count: int = 3, kinds: int = 4, keypoints: int = 6, factors: int = 5
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    thin = (torch.randn((count, kinds, keypoints, factors), generator=g).double() for _ in range(2))
    return *thin, torch.randn((count, kinds, keypoints, keypoints), generator=g).double()


def test_by_hand() -> None:
    """Logits 0 and log 3: a quarter of the first similarity and three of the second."""
    factors0 = torch.tensor([1.0, 3.0]).log().view(1, 2, 1, 1)
    similarity = torch.tensor([0.8, 0.4]).view(1, 2, 1, 1)
    weighted, own = selected_similarity(factors0, torch.ones(1, 2, 1, 1), similarity)
    assert weighted.item() == pytest.approx(0.25 * 0.8 + 0.75 * 0.4)
    assert own.flatten().tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("together", [False, True], ids=["pair by pair", "at once"])
def test_equals_the_formula_with_its_gradients(together: bool) -> None:
    thin0, thin1, similarity = drawn()
    by_weighted, by_own = torch.randn_like(similarity[:, 0]), torch.randn_like(thin0[..., 0])
    a, b = ([t.clone().requires_grad_() for t in (thin0, thin1)] for _ in range(2))
    with patch.object(pair_selection, "made_together", return_value=together):
        got = selected_similarity(*a, similarity)
        torch.autograd.backward(got, [by_weighted, by_own])
    weights = weights_of_factors(*b)
    wanted = weighted_similarity(similarity, weights), weights.diagonal(dim1=2, dim2=3)
    torch.autograd.backward(wanted, [by_weighted, by_own])
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close([t.grad for t in a], [t.grad for t in b])


def test_gradients_by_finite_differences() -> None:
    thin0, thin1, similarity = drawn(count=2, kinds=3, keypoints=4, factors=2)
    inputs = thin0.requires_grad_(), thin1.requires_grad_()
    assert torch.autograd.gradcheck(lambda *factors: selected_similarity(*factors, similarity), inputs)


def test_autocast_rounds_nothing() -> None:
    thin0, thin1, similarity = (t.float() for t in drawn())
    exact = selected_similarity(thin0, thin1, similarity)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(selected_similarity(thin0, thin1, similarity), exact)
