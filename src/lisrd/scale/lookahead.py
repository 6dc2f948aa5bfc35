"""Threads that prepare the next items while the caller works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def prepared_ahead(
    prepare: Callable[[Item], Prepared], items: Iterable[Item], depth: int = 2, threads: int = 1
) -> Generator[tuple[Item, Future[Prepared]], None, None]:
    """Each item, in order, with the future of what `prepare` makes of it; at most `depth` are prepared ahead.

    The future raises what `prepare` raised, where the caller asks for its result.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque((item, pool.submit(prepare, item)) for item in islice(remaining, depth))
        try:
            while waiting:
                item, future = waiting.popleft()
                waiting.extend(
                    (next_item, pool.submit(prepare, next_item)) for next_item in islice(remaining, 1)
                )
                yield item, future
        finally:
            pool.shutdown(cancel_futures=True)
