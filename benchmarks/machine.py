"""What this machine is, and the ceilings that the floors are measured against."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from benchmarks.timing import Effort, interleaved
from lisrd.describe.precision import choose_precision
from lisrd.match.passes import choose_pass

_COPIED_MEGABYTES = 256  # beyond the caches of any CPU
_SIDE = 2048


def machine() -> dict[str, object]:
    """Names and versions that a figure depends on."""
    import cv2
    import kornia

    dtype, reason = choose_precision("auto", "cpu")
    matching_pass, pass_reason = choose_pass("cpu")
    return {
        "name": f"{_cpu_name()}, {torch.get_num_threads()} threads",
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "precision": f"{str(dtype).removeprefix('torch.')} ({reason})",
        "matching": f"{matching_pass} ({pass_reason})",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kornia": kornia.__version__,
        "opencv": cv2.__version__,
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def ceilings(effort: Effort) -> dict[str, float]:
    """Measured here: bytes per second of a copy (read and written), operations per second of matrix products."""
    source = torch.rand(_COPIED_MEGABYTES << 18)
    target = torch.empty_like(source)
    square = torch.rand(_SIDE, _SIDE)
    low = square.bfloat16()
    medians = interleaved(
        {
            "copy": lambda: target.copy_(source),
            "float32": lambda: square @ square,
            "bfloat16": lambda: low @ low,
        },
        effort,
    )
    operations = 2 * _SIDE**3
    return {
        "copy_bytes_per_second": 2 * source.nbytes / medians["copy"],
        "float32_operations_per_second": operations / medians["float32"],
        "bfloat16_operations_per_second": operations / medians["bfloat16"],
    }
