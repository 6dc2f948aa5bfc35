"""Which code weighs similarities and finds neighbours on a device: shown by `lisrd info`, used by the matcher."""

from __future__ import annotations

import importlib.util
from typing import Literal

import torch

Pass = Literal["torch", "numba", "triton"]


def choose_pass(device: str) -> tuple[Pass, str]:
    """The fastest that is installed, and the reason in words; every one finds the same neighbours."""
    if device == "cpu":
        if _is_installed("numba"):
            return "numba", "installed; one pass over each tile in the cache"
        return "torch", "numba is not installed; pip install 'lisrd[fast]' makes matching faster"
    if device == "cuda" and torch.version.cuda and _is_installed("triton"):
        return "triton", "installed; one kernel that writes no similarities"
    return "torch", f"nothing faster is there for {device}"


def _is_installed(module: str) -> bool:
    """Whether it could be imported; it is not loaded."""
    return importlib.util.find_spec(module) is not None
