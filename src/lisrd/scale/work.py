"""What a command does with each item of a collection, and the engine of one machine that has it done.

Work is a function of a batch of items. An engine calls it for every batch and sees to it that the records reach the
store: `LocalEngine` in the threads of this process, `lisrd.scale.ray_engine` in the processes of many machines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import torch

from lisrd.errors import InputError
from lisrd.scale.lookahead import prepared_ahead
from lisrd.scale.parts import RecordSink
from lisrd.scale.store import ResumableStore

#: Called with the items done and all items.
Progress = Callable[[int, int], None]

Item = TypeVar("Item")
Item_contra = TypeVar("Item_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Record:
    """What an item gave: a group of the output."""

    name: str
    datasets: Mapping[str, np.ndarray]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Broken:
    """An item that gave nothing, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """An item whose record the store has."""

    name: str


class Work(Protocol[Item_contra]):
    """One outcome for each item of a batch. Called by several threads at once; pickled for other processes."""

    def __call__(self, batch: Sequence[Item_contra]) -> list[Record | Broken]: ...

    def name_of(self, item: Item_contra) -> str:
        """What reports call the item."""


class Engine(Protocol):
    """Has work done."""

    def run(
        self, work: Work[Item], batches: Sequence[Sequence[Item]], store: ResumableStore
    ) -> Generator[Written | Broken, None, None]:
        """What became of each item, as it is known. The caller closes the iterator."""


@dataclass(frozen=True, slots=True)
class LocalEngine:
    """A thread per core, each with a batch of its own from decoding to description; this thread writes.

    A batch is worked on by one core: that keeps all of them busy, and the result does not depend on their number.
    `workers` is the number of threads, by default one for each core that this process may use.
    """

    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise InputError(f"workers is {self.workers}; use at least 1")

    def run(
        self, work: Work[Item], batches: Sequence[Sequence[Item]], store: ResumableStore
    ) -> Generator[Written | Broken, None, None]:
        threads = self.workers or available_cores()
        with one_core_each(), closing(prepared_ahead(work, batches, 2 * threads, threads)) as done:
            for _, future in done:
                for outcome in future.result():
                    yield written(outcome, store)


def carry_out(
    work: Work[Item],
    batches: Sequence[Sequence[Item]],
    engine: Engine,
    store: ResumableStore,
    advance: Callable[[int], None],
) -> tuple[int, list[tuple[str, str]]]:
    """How many items were written, and the names and reasons of the others; `advance` hears how many are done."""
    count, broken = 0, []
    with closing(engine.run(work, batches, store)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome, Broken):
                broken.append((outcome.name, outcome.reason))
            else:
                count += 1
            advance(count + len(broken))
    return count, broken


def in_batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Neighbours together, `size` of them at most."""
    if size < 1:
        raise InputError(f"a batch of {size} items; use at least 1")
    return [items[start : start + size] for start in range(0, len(items), size)]


def written(outcome: Record | Broken, sink: RecordSink) -> Written | Broken:
    """The record goes to the sink; what is left to say about it."""
    if isinstance(outcome, Broken):
        return outcome
    sink.write(outcome.name, outcome.datasets, outcome.attributes)
    return Written(outcome.name)


def available_cores() -> int:
    """Cores that this process may use, not those of the machine."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_core_each() -> Iterator[None]:
    """Threads that each took all cores would slow one another down."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(torch_threads)
        cv2.setNumThreads(cv2_threads)
