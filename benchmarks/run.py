"""`python -m benchmarks.run`: measure everything, write `results.json`, and `RESULTS.md` from it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks import describing, end_to_end, geometry_stages, matching, onnx, training
from benchmarks.floors import floors
from benchmarks.machine import ceilings, machine
from benchmarks.report import write_report
from benchmarks.timing import Comparison, Effort, compare

_HERE = Path(__file__).resolve().parent
_CLOCKS = {"wall": time.perf_counter, "process": time.process_time}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the inputs are; rows are named after them where that matters."""

    matched: tuple[int, ...] = (2048, 4096)
    growth: tuple[int, ...] = (1024, 2048, 4096, 8192, 16384, 32768)
    memory: tuple[int, ...] = (16384, 32768)
    image: tuple[int, int] = (640, 480)
    keypoints: int = 1000
    many_keypoints: int = 2048
    large_image: tuple[int, int] = (1600, 1200)
    large_keypoints: int = 4096
    training: tuple[int, int, int, int] = (8, 320, 240, 512)  # batch, width, height, keypoints


#: Seconds instead of minutes: whether it runs, not how fast.
QUICK = Sizes((64,), (64, 128), (128,), (96, 64), 32, 48, (128, 96), 64, (2, 96, 64, 16))


GROUPS = ("match", "describe", "train_step", "end_to_end", "geometry", "onnx")


def comparisons(group: str, sizes: Sizes, pipeline: end_to_end.Pipeline) -> Iterator[Comparison]:
    """The rows of a group, in the order of the report."""
    match group:
        case "match":
            yield from matching.comparisons(sizes.matched)
        case "describe":
            width, height = sizes.image
            yield from describing.comparisons(width, height, sizes.keypoints)
            peers = ("paper", "aliked_n16", "disk")
            yield from describing.comparisons(width, height, sizes.many_keypoints, peers, "_many_keypoints")
            width, height = sizes.large_image
            peers = ("paper", "aliked_n16")  # DISK takes half a minute each time
            yield from describing.comparisons(width, height, sizes.large_keypoints, peers, "_large_image")
        case "train_step":
            yield from training.comparisons(*sizes.training)
        case "end_to_end":
            yield from end_to_end.comparisons(pipeline)
        case "geometry":
            yield from geometry_stages.comparisons(*sizes.image, sizes.many_keypoints)
        case "onnx":
            yield from onnx.comparisons(*sizes.image, sizes.many_keypoints, sizes.matched[0])


def measure(sizes: Sizes, effort: Effort, groups: tuple[str, ...], directory: Path) -> dict[str, Any]:
    """The rows of `groups`, as `results.json` holds them."""
    photographs = end_to_end.make_photographs(directory, *sizes.image)
    pipeline = end_to_end.Pipeline(*photographs, effort.clock)
    rows = []
    for comparison in chain.from_iterable(comparisons(group, sizes, pipeline) for group in groups):
        rows.append(asdict(compare(comparison, effort)))
        print("{name:36} {ratio:6.2f}".format(**rows[-1]), file=sys.stderr)
    return {"machine": machine(), "rows": rows, "stages": pipeline.stages()}


def measure_limits(sizes: Sizes, effort: Effort) -> dict[str, Any]:
    """Growth and memory of matching, and the floors."""
    ceiling = ceilings(effort)
    found = floors(sizes.matched[-1], *sizes.image, sizes.keypoints, effort)
    bounds = [zip(("seconds_operations", "seconds_bytes"), f.seconds(ceiling), strict=True) for f in found]
    return {
        "growth": matching.growth(sizes.growth, effort),
        "memory": matching.memory(sizes.memory),
        "ceilings": ceiling,
        "floors": [{**asdict(f), **dict(bound)} for f, bound in zip(found, bounds, strict=True)],
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny inputs, one round: does it run?")
    parser.add_argument("--only", choices=GROUPS, help="one group of rows, without growth, memory and floors")
    parser.add_argument("--skip", nargs="+", choices=GROUPS, default=[], help="groups of rows to leave out")
    parser.add_argument("--out", type=Path, default=_HERE, help="folder of results.json and RESULTS.md")
    parser.add_argument("--threads", type=int, help="of torch; all cores by default")
    parser.add_argument(
        "--clock", choices=_CLOCKS, default="wall", help="process: CPU time, for one thread on a busy machine"
    )
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = _CLOCKS[options.clock]
    effort = Effort(1, 0.0, clock) if options.quick else Effort(clock=clock)
    sizes = QUICK if options.quick else Sizes()
    wanted = (options.only,) if options.only else GROUPS
    groups = tuple(group for group in wanted if group not in options.skip)
    with tempfile.TemporaryDirectory() as directory:
        results = measure(sizes, effort, groups, Path(directory))
    if not options.only:
        results |= measure_limits(sizes, effort)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    write_report(results, options.out / "RESULTS.md")


if __name__ == "__main__":
    main()
