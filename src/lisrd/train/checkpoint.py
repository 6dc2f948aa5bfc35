"""Checkpoints: one safetensors file with all that resuming needs, written whole or not at all.

All randomness of training is drawn from generators seeded by (seed, step), so a checkpoint needs no generator state.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lisrd.errors import InputError
from lisrd.tensor_files import read_tensors, save_atomically

FORMAT = "lisrd-checkpoint-2"


def save_checkpoint(
    directory: Path, step: int, state: dict[str, dict[str, Tensor]], metadata: dict[str, Any], keep: int
) -> Path:
    """Write `checkpoint-STEP.safetensors` atomically, then delete all but the newest `keep`."""
    path = directory / f"checkpoint-{step:07d}.safetensors"
    tensors = {
        f"{group}/{name}": value.detach().cpu().contiguous().clone()
        for group, values in state.items()
        for name, value in values.items()
    }
    save_atomically(tensors, path, {"format": FORMAT, "step": str(step), "training": json.dumps(metadata)})
    for old in sorted(directory.glob("checkpoint-*.safetensors"))[:-keep]:
        old.unlink(missing_ok=True)
    return path


def newest_checkpoint(directory: Path) -> Path | None:
    """The checkpoint of the highest step."""
    return max(directory.glob("checkpoint-*.safetensors"), default=None)


def load_checkpoint(path: Path) -> tuple[int, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Step, groups of tensors, and the metadata that was saved with them.

    Raises:
        InputError: the file is half-written or no checkpoint of this format.
    """
    try:
        tensors, header = read_tensors(path)
    except InputError as error:
        raise InputError(
            f"damaged or half-written checkpoint: {error}; delete it to use the one before"
        ) from None
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of this version ({FORMAT}); start a new run")
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        state.setdefault(group, {})[name] = value
    try:
        return int(header["step"]), state, dict(json.loads(header["training"]))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"damaged checkpoint {path} ({error}); delete it to use the one before") from None


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors: "index.name"."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, s in state.items() for name, value in s.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


class MovingAverage:
    """Exponential moving average of a module's weights; buffers (BatchNorm statistics) are taken as they are."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}
        self.updates = 0

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))  # young averages forget faster
        for name, parameter in module.named_parameters():
            self.weights[name].lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            parameter.copy_(self.weights[name])
