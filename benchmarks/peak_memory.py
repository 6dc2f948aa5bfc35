"""`python -m benchmarks.peak_memory COUNT`: what matching COUNT x COUNT keypoints takes on top of its input."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.inputs import feature_pair
from lisrd.match import match


def resident_megabytes(field: str) -> float:
    """`VmRSS` (now) or `VmHWM` (the peak) of this process; Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def peak_over_input(count: int) -> dict[str, float]:
    """Megabytes of the features, and how far matching them rises above what was resident before."""
    match(*feature_pair(64))  # libraries load their parts at first use
    pair = feature_pair(count)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making the input
    before = resident_megabytes("VmRSS")
    match(*pair)
    over = resident_megabytes("VmHWM") - before
    tensors = (f.descriptors.nbytes + f.turned_descriptors.nbytes for f in pair)
    return {"keypoints": count, "input_megabytes": sum(tensors) / 2**20, "megabytes_over_input": over}


if __name__ == "__main__":
    print(json.dumps(peak_over_input(int(sys.argv[1]))))
