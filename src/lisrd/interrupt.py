"""Ctrl-C is for the process that the user started, which ends its workers itself."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
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


@contextmanager
def workers_end_with_interrupt() -> Iterator[None]:
    """Ctrl-C in this block ends the processes that started in it, in the middle of their work."""
    others = set(multiprocessing.active_children())
    try:
        yield
    except KeyboardInterrupt:
        for worker in set(multiprocessing.active_children()) - others:
            worker.terminate()
        raise
