"""One thread that prepares the next items while the caller works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")


def prepared_ahead(
    prepare: Callable[[Item], Prepared], items: Iterable[Item], depth: int = 2
) -> Iterator[tuple[Item, Future[Prepared]]]:
    """Each item, in order, with the future of what `prepare` makes of it; at most `depth` are prepared ahead.

    The future raises what `prepare` raised, where the caller asks for its result.
    """
    remaining = iter(items)
    with ThreadPoolExecutor(1) as thread:
        waiting = deque((item, thread.submit(prepare, item)) for item in islice(remaining, depth))
        try:
            while waiting:
                item, future = waiting.popleft()
                waiting.extend(
                    (next_item, thread.submit(prepare, next_item)) for next_item in islice(remaining, 1)
                )
                yield item, future
        finally:
            thread.shutdown(cancel_futures=True)
