"""Collections on many processes or machines by Ray (Moritz et al., OSDI 2018).

Items are dealt out in shards. The task of a shard writes one part beside the output, on storage that all machines
share, and the store merges the parts at the end as it does those of a local run: resuming, and what is left when
something dies, are the same. The name of a part follows from its items, so a shard that is worked on twice (Ray may
take a slow machine for a dead one) gives one file.

Ray repeats a task whose process or machine died. A shard that died every time is dealt out again batch by batch: what
kills a process, a decoder that crashes or an image beyond the memory, is then alone, and is listed as broken.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from lisrd.errors import InputError, MissingExtraError
from lisrd.scale.parts import PartWriter
from lisrd.scale.store import ResumableStore
from lisrd.scale.work import Broken, Work, Written, available_cores, in_batches, one_core_each, written

Item = TypeVar("Item")
#: The batches that one task works on.
Shard = Sequence[Sequence[Item]]

#: Tasks in flight for each that can run: a process that ends one finds the next waiting.
_AHEAD = 2


@dataclass(frozen=True, slots=True)
class RayEngine:
    """A task for each shard, on the Ray cluster at `address`.

    Without an address it is that of the environment (RAY_ADDRESS), else a cluster of this machine's cores, which ends
    with the run. A task takes one core and `gpus` GPUs and works on `shard_batches` batches; where its process dies it
    is repeated `retries` times. All machines need this package, and see images and output under the same paths.
    """

    address: str | None = None
    shard_batches: int = 64
    retries: int = 3
    gpus: float = 0.0

    def run(
        self, work: Work[Item], batches: Sequence[Sequence[Item]], store: ResumableStore
    ) -> Generator[Written | Broken, None, None]:
        """Raises MissingExtraError without Ray, InputError where the cluster or the storage cannot be reached."""
        ray = _load_ray()
        with _connected(ray, self.address):
            task = ray.remote(num_cpus=1, num_gpus=self.gpus, max_retries=self.retries)(write_shard)
            shared = ray.put(work)  # sent to each machine once, not with each task

            def start(shard: Shard[Item]) -> Any:
                return task.remote(shared, shard, store.folder.absolute(), store.config)

            remaining = deque(in_batches(batches, self.shard_batches))
            for shard, ended in _ended(ray, start, remaining, _AHEAD * _places(ray, self.gpus)):
                try:
                    yield from ray.get(ended)
                except _deaths(ray) as death:
                    if len(shard) > 1:
                        remaining.extend([batch] for batch in shard)
                    else:
                        yield from _given_up(work, shard[0], self.retries, death)
                except (
                    ray.exceptions.RayTaskError
                ) as error:  # its message is a page; that of its cause is ours
                    raise error.cause if isinstance(error.cause, InputError) else error from None


def write_shard(work: Work[Item], shard: Shard[Item], folder: Path, config: str) -> list[Written | Broken]:
    """The task: one part in `folder` with the records of the shard, none where it gave none.

    Raises:
        InputError: the folder is not to be seen from this machine.
    """
    if not folder.is_dir():
        raise InputError(
            f"{platform.node()} does not see {folder}: put images and output on storage that all machines share"
        )
    names = [work.name_of(item) for batch in shard for item in batch]
    part = folder / f"shard-{hashlib.sha256(chr(0).join(names).encode()).hexdigest()[:20]}.h5"
    writer = PartWriter(folder / f"{part.stem}-{uuid4().hex}.tmp", config)
    try:
        with one_core_each():
            outcomes = [written(outcome, writer) for batch in shard for outcome in work(batch)]
    except BaseException:
        writer.discard()
        raise
    if any(isinstance(outcome, Written) for outcome in outcomes):
        writer.publish(part)
    else:
        writer.discard()
    return outcomes


def _ended(
    ray: Any, start: Callable[[Shard[Item]], Any], remaining: deque[Shard[Item]], in_flight: int
) -> Iterator[tuple[Shard[Item], Any]]:
    """Shards with the references of their results, as they end; the caller may add to `remaining`."""
    running: dict[Any, Shard[Item]] = {}
    while remaining or running:
        while remaining and len(running) < in_flight:
            shard = remaining.popleft()
            running[start(shard)] = shard
        (reference,), _ = ray.wait(list(running))
        yield running.pop(reference), reference


def _deaths(ray: Any) -> tuple[type[Exception], ...]:
    """What says that a process or a machine died, and not that our code raised something."""
    errors = ray.exceptions
    return errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError


def _given_up(work: Work[Item], batch: Sequence[Item], retries: int, death: Exception) -> Iterator[Broken]:
    reason = f"its process died {retries + 1} times ({type(death).__name__}); look at this file alone"
    return (Broken(work.name_of(item), reason) for item in batch)


def _places(ray: Any, gpus: float) -> int:
    """Tasks that can run at once."""
    resources = ray.cluster_resources()
    cores = int(resources.get("CPU", 0))
    if not gpus:
        return max(cores, 1)
    if resources.get("GPU", 0) < gpus:
        raise InputError("the Ray cluster has no GPU; add a machine that has one, or use --device cpu")
    return max(min(cores, int(resources["GPU"] / gpus)), 1)


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    if ray.is_initialized():  # by our caller, who will also end it
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked to tell others what runs here
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            ray.init(address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                "local",
                num_cpus=available_cores(),
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise InputError(
            f"no Ray cluster at {address or 'this machine'} ({error}); start one with `ray start --head`"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _load_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "the engine 'ray'") from None
    return ray
