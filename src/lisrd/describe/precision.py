"""Which arithmetic is fast here, and why: shown by `lisrd info`, used by precision="auto"."""

from __future__ import annotations

from pathlib import Path

import torch


def cpu_flags() -> frozenset[str]:
    """Instruction sets that the kernel reports; empty where it does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    line = next((row for row in text.splitlines() if row.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def has_fast_bfloat16(device: str = "cpu") -> bool:
    """Whether bfloat16 products are faster than float32 ones."""
    if device == "cuda" or (device == "cpu" and torch.cuda.is_available()):
        return torch.cuda.is_bf16_supported()
    return bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})
