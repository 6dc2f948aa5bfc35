"""Ctrl-C is for the process that the user started, which ends its workers itself."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def workers_ignore_interrupt() -> Iterator[None]:
    """Processes that start in this block ignore Ctrl-C; a terminal sends it to them too, and each would complain."""
    if threading.current_thread() is not threading.main_thread():  # only that one may say what signals do
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def leave_when_terminated() -> None:
    """In a worker: being terminated ends its work as an exception does, so that half-written files are removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())


@contextmanager
def workers_end_with_interrupt(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Ctrl-C in this block ends the processes that started in it, in the middle of their work."""
    others = set(multiprocessing.active_children())
    try:
        yield
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
