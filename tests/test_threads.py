"""Loops over rows on several threads."""

from __future__ import annotations

import multiprocessing
import time
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lisrd.threads import run_together, shares


@given(st.integers(0, 1000), st.integers(1, 9))
def test_shares_cover_all_rows_once_and_are_nearly_equal(count: int, threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        parts = shares(count)
    assert [row for begin, end in parts for row in range(begin, end)] == list(range(count))
    lengths = [end - begin for begin, end in parts]
    assert len(parts) == threads
    assert max(lengths) - min(lengths) <= 1


def test_results_are_in_order_whoever_is_first() -> None:
    def task(number: int) -> int:
        time.sleep(0.02 * (3 - number))
        return number

    assert run_together([partial(task, number) for number in range(3)]) == [0, 1, 2]


def test_an_error_of_a_task_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        run_together([partial(divmod, 1, 1), partial(divmod, 1, 0)])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    _both()
    child = multiprocessing.get_context("fork").Process(target=_both)
    child.start()
    child.join(20)
    assert child.exitcode == 0


def _both() -> None:
    assert run_together([partial(pow, 2, 3), partial(pow, 3, 2)]) == [8, 9]
