"""Compiled loops over rows, on as many threads as torch computes with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import torch

Result = TypeVar("Result")


def shares(count: int) -> list[tuple[int, int]]:
    """[0, count) cut into as many nearly equal intervals as torch has threads."""
    threads = torch.get_num_threads()
    return list(pairwise(count * part // threads for part in range(threads + 1)))


def run_together(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """What each of the tasks returns, in order; they run side by side as far as they let go of the interpreter.

    A task must not call this function itself.
    """
    first, *others = tasks
    futures = [_pool(len(others)).submit(task) for task in others]
    return [first(), *(future.result() for future in futures)]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="lisrd-rows")


if hasattr(os, "register_at_fork"):  # a child has the pool of its parent, and none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)
