"""The state dict of the published network, and seeded stand-ins for its weights (reference/README.md)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def seeded_weights(names: Sequence[str], shapes: Sequence[Sequence[int]], seed: int) -> dict[str, Tensor]:
    """What the golden numbers were computed with: one generator over the sorted names."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in sorted(zip(names, shapes, strict=True)):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
            continue
        x = rng.standard_normal(shape).astype(np.float32)
        if name.endswith("running_var"):
            x = 0.5 + np.abs(x)
        elif len(shape) == 4:
            x = x * np.sqrt(2 / np.prod(shape[1:])).astype(np.float32)
        elif name.endswith("weight"):
            x = 1 + np.float32(0.1) * x
        else:
            x = np.float32(0.1) * x
        state[name] = torch.from_numpy(x)
    return state


def published_state(golden: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """All 104 parameters under their published names."""
    shapes = [json.loads(shape) for shape in golden["state_shapes"].tolist()]
    return seeded_weights(golden["state_keys"].tolist(), shapes, seed=0)
