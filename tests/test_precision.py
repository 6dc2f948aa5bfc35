"""The comparison of arithmetics counts matches rightly and moves weights as far as it says."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the benchmarks are no part of the package

from benchmarks.precision import Arithmetic, Score, _cut_to_tf32, _moved, equal_share, report


def test_equal_share_by_hand() -> None:
    reference = torch.tensor([[0, 0], [1, 1], [2, 2]])
    assert equal_share(reference.flip(0), reference) == 1
    assert equal_share(torch.tensor([[0, 0], [1, 2]]), reference) == 1 / 4
    assert equal_share(reference[:0], reference[:0]) == 1
    assert equal_share(reference[:0], reference) == 0


def test_weights_move_by_half_a_step_of_float16() -> None:
    before = torch.nn.Linear(50, 50)
    after = torch.nn.Linear(50, 50)
    after.load_state_dict(before.state_dict())
    _moved(after)
    moved = (after.weight / before.weight - 1).abs()
    assert 0.9 * 2**-11 < moved.max() < 1.01 * 2**-11


def test_tf32_keeps_ten_bits() -> None:
    values = torch.tensor([1.0, -3.5, 1 + 2**-10, 1 + 2**-11, -1 - 2**-11])
    assert _cut_to_tf32(values).tolist() == [1, -3.5, 1 + 2**-10, 1, -1]


def test_report_by_hand() -> None:
    chosen = [Arithmetic(name, "", None, None) for name in ("float64", "float32")]  # type: ignore[arg-type]
    scores = [[Score(1.0, 0.5, 0.4), Score(0.9, 0.6, 0.4)], [Score(1.0, 0.7, 0.2), Score(1.0, 0.7, 0.3)]]
    last = report(chosen, scores).splitlines()[-1]
    assert last == "| float32 |  | 95.00 % | 90.00 % | 0.6500 | 0.3500 | +5.000 | +5.000 |"
