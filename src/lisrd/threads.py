"""Compiled loops over rows, on as many threads as torch computes with: where that can be had, on the very same ones.

A thread of OpenMP waits for its next work without letting go of its core, for milliseconds. A thread of ours would
have to share the core with it, and of two cores the second would bring next to nothing. So torch's own OpenMP is
asked to run our loops, by the function that a C compiler calls for `#pragma omp parallel`.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import pairwise
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
Task = Callable[[], Any]

_IMPORTED_BY = os.getpid()
_Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def shares(count: int) -> list[tuple[int, int]]:
    """[0, count) cut into as many nearly equal intervals as torch has threads."""
    threads = torch.get_num_threads()
    return list(pairwise(count * part // threads for part in range(threads + 1)))


def run_together(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """What each of the tasks returns, in order; they run side by side as far as they let go of the interpreter.

    A task must not call this function itself. Raises what one of them raises, when all are done.
    """
    if len(tasks) == 1:
        return [tasks[0]()]
    results: list[Any] = [None] * len(tasks)
    errors: list[BaseException] = []
    waiting = deque(enumerate(tasks))
    work = partial(_work_off, waiting, results, errors)
    parallel = _openmp()
    if parallel is not None:
        parallel(_Body(work), None, len(tasks), 0)
    else:
        others = [_pool(len(tasks) - 1).submit(work) for _ in tasks[1:]]
        work()
        for other in others:
            other.result()
    while waiting:  # an error ended the thread that would have done it
        work()
    if errors:
        raise errors[0]
    return results


def _work_off(
    waiting: deque[tuple[int, Task]], results: list[Any], errors: list[BaseException], _: object = None
) -> None:
    """Take tasks until there are none: OpenMP may give fewer threads than it is asked for."""
    try:
        while True:
            try:
                number, task = waiting.popleft()
            except IndexError:
                return
            results[number] = task()
    except BaseException as error:  # Ctrl-C too: nothing can be raised through the C function that calls this
        errors.append(error)


@cache
def _openmp() -> Callable[..., None] | None:
    """GNU's OpenMP as torch has loaded it; None in a forked child, and where torch has another one."""
    if os.getpid() != _IMPORTED_BY:
        return None
    try:
        library = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        parallel: Any = library.GOMP_parallel
    except (AttributeError, OSError):
        return None
    parallel.argtypes = [_Body, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="lisrd-rows")


def _after_fork() -> None:
    """A child has its parent's pools and none of their threads, for which OpenMP would wait without end."""
    _pool.cache_clear()
    _openmp.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
