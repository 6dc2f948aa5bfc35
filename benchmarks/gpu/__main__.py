"""`python -m benchmarks.gpu`: describing, matching and training on one GPU, beside what it can do at most.

Seconds are medians of CUDA events around single calls, megabytes the peak of the device's memory over the input. Every
case stands for itself: one that fails leaves its error in `results_gpu.json`, which is written after every case, and of
which `RESULTS_GPU.md` is made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.ceilings import ceiling_cases
from benchmarks.gpu.describing import describing_cases
from benchmarks.gpu.matching import matching_cases, tile_cases, triton_cases
from benchmarks.gpu.report import write_report
from benchmarks.gpu.training import training_cases
from benchmarks.gpu.work import QUICK, ROUNDS, Case, Meter, Sizes

_HERE = Path(__file__).resolve().parents[1]
GROUPS = ("ceilings", "describe", "train", "match", "triton", "tiles")

_CASES: dict[str, Callable[[Sizes, Meter], Iterator[Case]]] = {
    "ceilings": ceiling_cases,
    "describe": describing_cases,
    "train": training_cases,
    "match": matching_cases,
    "triton": triton_cases,
    "tiles": tile_cases,
}


def measured(case: Case, meter: Meter) -> dict[str, Any]:
    """The row of a case, or its error."""
    row: dict[str, Any] = {"group": case.group, "name": case.name, "unit": case.unit}
    begun = time.perf_counter()
    try:
        work = case.prepare()
        row |= meter.measure(work.run) | work.facts
        row |= {"operations": work.operations, "bytes": work.bytes}
        if work.items:
            row["items_per_second"] = work.items / row["seconds"]
    except Exception as error:  # the others are still worth measuring
        row["error"] = f"{type(error).__name__}: {error}"[:600]
    row["spent"] = round(time.perf_counter() - begun, 2)
    return row


def add_shares(rows: list[dict[str, Any]]) -> None:
    """To every row the share of the ceilings that it reaches: the longer of its two floors over its time."""
    ceilings = {row["unit"]: row for row in rows if row["group"] == "ceilings" and "seconds" in row}
    for row in rows:
        known = "seconds" in row and (row.get("operations") or row.get("bytes"))
        times = 3 if row["unit"].startswith("3 x") else 1
        product, copy = ceilings.get(row["unit"].removeprefix("3 x ")), ceilings.get("")
        if known and product and copy:
            by_operations = times * row["operations"] * product["seconds"] / (product["operations"] or 1)
            by_bytes = row["bytes"] * copy["seconds"] / copy["bytes"]
            row["floor_by"] = "operations" if by_operations > by_bytes else "bytes"
            row["share_of_ceiling"] = max(by_operations, by_bytes) / row["seconds"]


def machine(device: torch.device) -> dict[str, str]:
    """Names and versions that a figure depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    found = {"device": name, "python": platform.python_version(), "torch": torch.__version__}
    for package in ("triton", "kornia"):
        with contextlib.suppress(Exception):
            found[package] = __import__(package).__version__
    return found


def measure(options: argparse.Namespace) -> None:
    """Writes `results_gpu.json` after every case."""
    device = torch.device(options.device)
    meter = Meter(device, 0.0 if options.quick else options.seconds_per_case, 1 if options.quick else ROUNDS)
    sizes = QUICK if options.quick else Sizes()
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(device), "rows": []}
    begun = time.perf_counter()
    for case in chain.from_iterable(_CASES[group](sizes, meter) for group in options.only):
        if time.perf_counter() - begun > options.budget:
            print(f"the budget of {options.budget} s is spent before {case.name}", file=sys.stderr)
            break
        results["rows"].append(measured(case, meter))
        add_shares(results["rows"])
        (options.out / "results_gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        print("{name} ({unit}): {spent} s".format(**results["rows"][-1]), file=sys.stderr, flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=_HERE, help="folder of results_gpu.json, RESULTS_GPU.md")
    parser.add_argument("--report", action="store_true", help="only RESULTS_GPU.md, of the results in --out")
    parser.add_argument("--device", default="cuda", help="cpu: whether it runs, with --quick")
    parser.add_argument("--seconds-per-case", type=float, default=0.15, help="of timed calls")
    parser.add_argument("--budget", type=float, default=90.0, help="seconds after which no case is begun")
    parser.add_argument("--only", choices=GROUPS, nargs="+", default=GROUPS)
    parser.add_argument("--quick", action="store_true", help="tiny inputs: does it run?")
    options = parser.parse_args(arguments)
    if not options.report:
        measure(options)
    results = json.loads((options.out / "results_gpu.json").read_text())
    write_report(results, options.out / "RESULTS_GPU.md")


if __name__ == "__main__":
    main()
