"""Lightning Fabric as a training wants it: one process, or those that torchrun started, in one precision."""

from __future__ import annotations

import os
from typing import Any

import torch

from lisrd.describe.precision import has_fast_bfloat16
from lisrd.errors import InputError, MissingExtraError

_PRECISIONS = {"bfloat16": "bf16-mixed", "float32": "32-true"}


def launch_fabric(precision: str) -> Any:
    """A launched `Fabric`; `precision` as in `precision_here`.

    Raises:
        InputError: unknown precision.
        MissingExtraError: Fabric is not installed.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise MissingExtraError("train", "training") from None
    chosen = _PRECISIONS[precision_here(precision)]
    fabric = Fabric(precision=chosen, **_processes())  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def precision_here(precision: str) -> str:
    """Which of "float32" and "bfloat16" is meant on this machine, by either name or by "auto".

    Raises:
        InputError: unknown precision.
    """
    if precision == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return "bfloat16" if has_fast_bfloat16(device) else "float32"
    if precision not in _PRECISIONS:
        raise InputError(f"run.precision is {precision!r}; it must be 'auto', 'float32' or 'bfloat16'")
    return precision


def _processes() -> dict[str, Any]:
    """How many processes there are, as torchrun says it in the environment."""
    together = int(os.environ.get("WORLD_SIZE", 1))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", together))
    if together == 1:
        return {"devices": 1}
    from lightning_fabric.strategies import DDPStrategy

    # Some parameters have no part in some steps. BatchNorm's statistics are the same everywhere already.
    strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    return {"accelerator": accelerator, "devices": here, "num_nodes": together // here, "strategy": strategy}
