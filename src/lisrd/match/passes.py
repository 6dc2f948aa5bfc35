"""Which code weighs similarities and finds neighbours on a device: shown by `lisrd info`, used by the matcher."""

from __future__ import annotations

from functools import cache
from typing import Literal

import torch

from lisrd.compiled import is_installed, obstacle_to
from lisrd.match.gpu import nearest_on_gpu

Pass = Literal["torch", "numba", "triton"]

#: Of the GPU: earlier ones have no products of TF32, of which the Triton kernel makes those of float32.
_COMPUTE_CAPABILITY = (8, 0)


def choose_pass(device: str) -> tuple[Pass, str]:
    """The fastest that is installed, and the reason in words; every one finds the same neighbours."""
    if device == "cpu":
        obstacle = obstacle_to("lisrd.match.fused_kernel")
        return ("torch", obstacle) if obstacle else ("numba", "one pass over each tile in the cache")
    if device == "cuda" and torch.version.cuda:
        obstacle = _obstacle_to_triton()
        return ("torch", obstacle) if obstacle else ("triton", "one kernel that writes no similarities")
    return "torch", f"nothing faster is there for {device}"


@cache
def _obstacle_to_triton() -> str:
    """Why its kernel does not run on the GPU, found by running it once; empty where it does."""
    if not is_installed("triton"):
        return "triton is not installed"
    capability = torch.cuda.get_device_capability()
    if capability < _COMPUTE_CAPABILITY:
        return "the GPU's compute capability is {}.{}; the Triton kernel needs 8.0".format(*capability)
    try:
        _run_once()
    except Exception as error:  # most often there is no C compiler, or no Python.h
        words = str(error).partition("\n")[0]
        return f"the Triton kernel could not be compiled ({type(error).__name__}: {words})"
    return ""


def _run_once() -> None:
    """On one keypoint; as the shapes are those of `pyramid`, nothing else needs to be compiled for it."""
    descriptors, thin = (torch.zeros((4, 1, width), device="cuda") for width in (128, 9))
    nearest_on_gpu(descriptors, descriptors, thin, thin, thin.new_zeros(4), sharp=False)
