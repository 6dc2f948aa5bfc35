"""One function over many items in one or several processes, in order, with progress on standard error."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from lisrd.interrupt import leave_when_terminated, workers_end_with_interrupt, workers_ignore_interrupt

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, label: str, progress: bool = True
) -> list[Result]:
    """`[function(item) for item in items]`; an exception of any item is raised here."""
    with _progress(items, label, progress) as advance:
        if workers <= 1 or len(items) <= 1:
            return list(advance(map(function, items)))
        # Spawned, not forked: torch and OpenCV threads of this process would hang in a forked one.
        context = multiprocessing.get_context("spawn")
        threads = max(1, (os.cpu_count() or 1) // workers)
        chunk = max(1, min(8, len(items) // (4 * workers)))
        with (
            ProcessPoolExecutor(workers, context, _prepare_worker, (threads,)) as pool,
            workers_end_with_interrupt(pool),
        ):
            with workers_ignore_interrupt():
                results = pool.map(function, items, chunksize=chunk)
            return list(advance(results))


def _prepare_worker(threads: int) -> None:
    import cv2
    import torch

    leave_when_terminated()
    torch.set_num_threads(threads)  # processes that each take all cores slow one another down
    cv2.setNumThreads(threads)


@contextmanager
def _progress(
    items: Sequence[Item], label: str, shown: bool
) -> Iterator[Callable[[Iterator[Result]], Iterator[Result]]]:
    if not shown:
        yield lambda results: results
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=len(items))

        def advance(results: Iterator[Result]) -> Iterator[Result]:
            for result in results:
                bar.advance(task)
                yield result

        yield advance
