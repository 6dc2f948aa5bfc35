"""What a case on a GPU is, and how it is timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch

from benchmarks.timing import Run

#: Calls that are timed at least.
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the inputs are."""

    image: tuple[int, int] = (640, 480)
    keypoints: int = 1000
    images: tuple[int, ...] = (1, 8, 32)
    matched: tuple[int, ...] = (2048, 4096, 8192, 16384, 32768)
    tiles: tuple[int, ...] = (4096, 16384)
    training: tuple[int, int, int] = (320, 240, 512)  # width, height, keypoints
    triplets: tuple[int, ...] = (8, 64)
    square: int = 8192
    copied: int = 1 << 30  # bytes


#: Seconds instead of minutes: whether it runs, not how fast.
QUICK = Sizes((96, 64), 32, (1, 2), (64, 130), (130,), (96, 64, 16), (2,), 64, 1 << 16)


@dataclass(frozen=True, slots=True)
class Work:
    """What is timed, on inputs that lie on the device; `operations` and `bytes` are those it must at least do."""

    run: Run
    items: int = 0  # images or triplets
    operations: float = 0.0
    bytes: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """`unit` names the ceiling of its products."""

    group: str
    name: str
    unit: str  # "bfloat16", "float32", "tf32"; "3 x tf32" multiplies three times
    prepare: Callable[[], Work]


class Meter:
    """Times callables on a device, by its events or, without a GPU, by the clock."""

    def __init__(self, device: torch.device, seconds: float, rounds: int = ROUNDS) -> None:
        self.device, self.seconds, self.rounds = device, seconds, rounds
        self.is_gpu = device.type == "cuda"

    def measure(self, run: Run) -> dict[str, Any]:
        """Median, fastest and number of calls; megabytes over what is allocated before the first."""
        before = torch.cuda.memory_allocated() if self.is_gpu else 0
        run()  # compiles, chooses algorithms, allocates workspaces
        if self.is_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        times, begun = [self._once(run)], time.perf_counter()
        peak = torch.cuda.max_memory_allocated() - before if self.is_gpu else None
        while len(times) < self.rounds or (time.perf_counter() - begun < self.seconds and len(times) < 200):
            times.append(self._once(run))
        megabytes = None if peak is None else peak / 2**20
        return {
            "seconds": median(times),
            "fastest": min(times),
            "calls": len(times),
            "megabytes_over_input": megabytes,
        }

    def _once(self, run: Run) -> float:
        if not self.is_gpu:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000

    def busy_share(self, run: Run, steps: int = 10) -> dict[str, float]:
        """Share of the wall time of `steps` calls in which a kernel or a copy runs on the GPU."""
        if not self.is_gpu:
            return {}
        wall = self._wall(run, steps)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            traced = self._wall(run, steps)
        on_gpu = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        busy = _union([(e.time_range.start, e.time_range.end) for e in on_gpu]) / 1e6
        return {
            "gpu_busy_share": busy / wall,
            "gpu_busy_share_while_traced": busy / traced,
            "kernels_per_step": len(on_gpu) / steps,
            "busy_seconds_per_step": busy / steps,
            "wall_seconds_per_step": wall / steps,
        }

    def _wall(self, run: Run, steps: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            run()
        torch.cuda.synchronize()
        return time.perf_counter() - start


def _union(intervals: list[tuple[float, float]]) -> float:
    """The length of what the intervals cover."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
