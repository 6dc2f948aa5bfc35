"""Which arithmetic is fast here, and why: shown by `lisrd info`, used by precision="auto"."""

from __future__ import annotations

from pathlib import Path

import torch

from lisrd.errors import InputError


def cpu_flags() -> frozenset[str]:
    """Instruction sets that the kernel reports; empty where it does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    line = next((row for row in text.splitlines() if row.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())


def has_fast_bfloat16(device: str) -> bool:
    """Whether products of bfloat16 are faster than those of float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(cpu_flags() & {"amx_bf16", "avx512_bf16"})


def choose_precision(wanted: str, device: str) -> tuple[torch.dtype, str]:
    """The arithmetic of the encoder, and the reason in words.

    float16 is never chosen on a CPU: a product was measured 280 times slower than in float32. On a GPU
    launching kernels takes the time, not multiplying, and bfloat16 was no faster (`benchmarks/RESULTS_GPU.md`).

    Raises:
        InputError: `wanted` is not "auto", "float32" or "bfloat16".
    """
    if wanted not in ("auto", "float32", "bfloat16"):
        raise InputError(f"precision is {wanted!r}; use 'auto', 'float32' or 'bfloat16'")
    if wanted != "auto":
        return getattr(torch, wanted), "asked for"
    if device == "cuda":
        return torch.float32, "as fast as bfloat16 on a GPU"
    if has_fast_bfloat16(device):
        return torch.bfloat16, f"{device} multiplies bfloat16 faster than float32"
    return torch.float32, f"{device} has no fast bfloat16"
