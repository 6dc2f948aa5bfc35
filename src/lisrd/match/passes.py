"""Which code weighs similarities and finds neighbours on a device: shown by `lisrd info`, used by the matcher."""

from __future__ import annotations

import importlib.util
import os
from typing import Literal

import torch

Pass = Literal["torch", "numba", "triton"]

#: Set to "1", CUDA tensors are matched by the Triton kernel: it agrees with torch in Triton's interpreter and compiles,
#: but has not run on a GPU yet, so that nobody gets it unasked.
TRITON_SWITCH = "LISRD_TRITON"


def choose_pass(device: str) -> tuple[Pass, str]:
    """The fastest that is installed, and the reason in words; every one finds the same neighbours."""
    if device == "cpu":
        if _is_installed("numba"):
            return "numba", "installed; one pass over each tile in the cache"
        return "torch", "numba is not installed; pip install 'lisrd[fast]' makes matching faster"
    if device == "cuda" and torch.version.cuda and _is_installed("triton"):
        if os.environ.get(TRITON_SWITCH) == "1":
            return "triton", f"{TRITON_SWITCH}=1; one kernel that writes no similarities"
        return "torch", f"the Triton kernel has not been measured on a GPU; {TRITON_SWITCH}=1 uses it"
    return "torch", f"nothing faster is there for {device}"


def _is_installed(module: str) -> bool:
    """Whether it could be imported; it is not loaded."""
    return importlib.util.find_spec(module) is not None
