"""The agreement of a pair: shares by hand, laws, and what they do to the selection."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lisrd.match import Policy, match, scorer
from lisrd.match.agreement import agreement, agreement_logits, distinct_shares
from lisrd.types import LocalFeatures, Selection

ALL = torch.ones(1, 3, dtype=torch.bool)


def test_shares_by_hand() -> None:
    # Row 0 and column 0 choose each other; rows 1 and 2 both choose column 1, which chooses row 1.
    similarity = torch.tensor([[[0.9, 0.1, 0.0], [0.2, 0.8, 0.3], [0.1, 0.7, 0.2]]])
    assert distinct_shares(similarity, ALL, ALL, 1.0).tolist() == pytest.approx([2 / 3])
    # Without row 1, row 2 and column 1 are a pair; two rows and three columns are left.
    without = torch.tensor([[True, False, True]])
    assert distinct_shares(similarity, without, ALL, 1.0).tolist() == pytest.approx([2 * 2 / 5])


def test_distinct_by_hand() -> None:
    """Distances of row 1 and column 1 to each other and to the second: 0.632, and 0.775 down the column."""
    similarity = torch.tensor([[[0.9, 0.1, 0.0], [0.2, 0.8, 0.3], [0.1, 0.7, 0.2]]])
    assert distinct_shares(similarity, ALL, ALL, 0.82).tolist() == pytest.approx([2 / 3])
    assert distinct_shares(similarity, ALL, ALL, 0.81).tolist() == pytest.approx([1 / 3])
    # The second along the row counts as the second down the column does.
    assert distinct_shares(similarity.transpose(1, 2), ALL, ALL, 0.81).tolist() == pytest.approx([1 / 3])
    # A twin of the nearest is as near: nothing is distinct.
    twins = torch.tensor([[[0.9, 0.9]]])
    assert distinct_shares(twins, ALL[:, :1], ALL[:, :2], 0.95).tolist() == [0.0]
    assert distinct_shares(twins.transpose(1, 2), ALL[:, :2], ALL[:, :1], 0.95).tolist() == [0.0]


def test_weights_are_powers_of_the_shares() -> None:
    """(0.49 + 0.01) / (0.24 + 0.01) = 2, to the third: 8 to 1."""
    weights = agreement_logits(torch.tensor([0.49, 0.24]), 3.0).softmax(0)
    assert weights.tolist() == pytest.approx([8 / 9, 1 / 9], rel=1e-5)


def test_nothing_agrees_with_nothing() -> None:
    empty = torch.ones(1, 0, dtype=torch.bool)
    assert distinct_shares(torch.zeros(1, 0, 3), empty, ALL, 0.95).tolist() == [0.0]
    assert distinct_shares(torch.zeros(1, 3, 3), ~ALL, ALL, 0.95).tolist() == [0.0]


@given(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 12), st.integers(1, 5))
def test_swapped_images_agree_as_well(seed: int, count0: int, count1: int, kinds_of_rows: int) -> None:
    """Descriptors repeat, as those of flat places do: of few kinds of rows and of columns most are twins."""
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(2, count0, count1, generator=generator)
    rows, columns = (torch.randint(kinds_of_rows, (n,), generator=generator) % n for n in (count0, count1))
    similarity = similarity[:, rows][:, :, columns]
    present0, present1 = (torch.rand(2, n, generator=generator) < 0.8 for n in (count0, count1))
    there = distinct_shares(similarity, present0, present1, 0.95)
    back = distinct_shares(similarity.transpose(1, 2), present1, present0, 0.95)
    assert torch.equal(there, back)
    assert bool(((there >= 0) & (there <= 1)).all())


def features(descriptors: Tensor, power: float) -> LocalFeatures:
    """(N, V, D) descriptors on a line, with meta descriptors that say nothing."""
    count, kinds = descriptors.shape[:2]
    xy = torch.stack([torch.linspace(5, 90, count), torch.full((count,), 50.0)], dim=1)
    return LocalFeatures(
        keypoints=xy.unsqueeze(0),
        keypoint_scores=torch.ones(1, count),
        descriptors=torch.nn.functional.normalize(descriptors, dim=-1).unsqueeze(0),
        meta_descriptors=torch.ones(1, kinds, 1, 1, 4) / 2,
        image_size=torch.tensor([[100.0, 100.0]]),
        mask=torch.ones(1, count, dtype=torch.bool),
        selection=Selection(("kept", "lost"), agreement_power=power),
    )


def test_selection_follows_the_invariance_that_explains_the_pair() -> None:
    """The second descriptor of image 1 has nothing to do with that of image 0."""
    generator = torch.Generator().manual_seed(3)
    here = torch.randn(60, 2, 16, generator=generator)
    there = torch.stack([here[:, 0], torch.randn(60, 16, generator=generator)], dim=1)
    weights = {
        power: match(features(here, power), features(there, power)).invariance_weights
        for power in (0.0, 16.0)
    }
    assert weights[0.0].mean(0).tolist() == pytest.approx([0.5, 0.5])
    assert float(weights[16.0][:, 0].min()) > 0.99
    assert len(weights[16.0]) == 60
    assert len(weights[0.0]) < 60


def test_policies_that_leave_no_choice_ask_for_no_agreement(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Tensor:
        raise AssertionError("computed for nothing")

    monkeypatch.setattr(scorer, "agreement", refuse)
    one = features(torch.randn(9, 2, 8, generator=torch.Generator().manual_seed(0)), 16.0)
    for policy in (Policy(selection="mean"), Policy(only=("kept",))):
        assert len(match(one, one, policy)) == 9


def test_zero_descriptors_do_not_count() -> None:
    here = torch.eye(4).unsqueeze(1).repeat(1, 2, 1)
    here[2:, 1] = 0
    one = features(here, 16.0)
    one = replace(one, descriptors=here.unsqueeze(0))
    assert agreement(one, one, [0, 1]).tolist() == pytest.approx([16 * math.log(1.01)] * 2)
