"""Loops over rows on several threads."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lisrd import threads
from lisrd.threads import run_together, shares


@pytest.fixture(params=["OpenMP", "OpenMP with one thread", "pool"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way in which tasks can be run."""
    if request.param == "OpenMP" and threads._openmp() is None:
        pytest.skip("torch has no GNU OpenMP here")
    if request.param == "OpenMP with one thread":
        monkeypatch.setattr(threads, "_openmp", lambda: lambda body, *_: body(None))
    if request.param == "pool":
        monkeypatch.setattr(threads, "_openmp", lambda: None)


@given(st.integers(0, 1000), st.integers(1, 9))
def test_shares_cover_all_rows_once_and_are_nearly_equal(count: int, threads: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: threads)
        parts = shares(count)
    assert [row for begin, end in parts for row in range(begin, end)] == list(range(count))
    lengths = [end - begin for begin, end in parts]
    assert len(parts) == threads
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.usefixtures("way")
def test_results_are_in_order_whoever_is_first() -> None:
    def task(number: int) -> int:
        time.sleep(0.02 * (3 - number))
        return number

    assert run_together([partial(task, number) for number in range(3)]) == [0, 1, 2]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("position", [0, 2])
def test_an_error_of_a_task_is_the_callers_and_the_others_are_done(position: int) -> None:
    done: list[int] = []
    tasks = [partial(done.append, number) for number in range(3)]
    tasks[position] = partial(divmod, 1, 0)  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        run_together(tasks)
    assert sorted(done) == [number for number in range(3) if number != position]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("count", [1, 2, 7])
def test_from_any_thread(count: int) -> None:
    wanted = [2**number for number in range(count)]
    assert run_together([partial(pow, 2, number) for number in range(count)]) == wanted
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(run_together, [partial(pow, 2, n) for n in range(count)]) for _ in range(8)]
        assert [run.result() for run in runs] == [wanted] * 8


@pytest.mark.skipif(threads._openmp() is None, reason="torch has no GNU OpenMP here")
def test_the_threads_are_those_of_torch() -> None:
    """Where OpenMP has its threads already, no other one is started."""
    code = (
        "import os, torch; torch.set_num_threads(2); torch.randn(500, 500) @ torch.randn(500, 500)\n"
        "from lisrd.threads import run_together\n"
        "count = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = count(); run_together([lambda: None] * 2); print(before, count())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = shown.split()
    assert before == after


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    _both()
    child = multiprocessing.get_context("fork").Process(target=_both)
    child.start()
    child.join(20)
    assert child.exitcode == 0


def _both() -> None:
    assert run_together([partial(pow, 2, 3), partial(pow, 3, 2)]) == [8, 9]
