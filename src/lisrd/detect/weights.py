"""Weights of published detectors: from a file, strictly, or from a download that may fail with advice."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from lisrd.errors import InputError

Network = TypeVar("Network", bound=nn.Module)


def load_weights(
    network: Network, path: str | Path, inside: str | None = None, may_miss: Sequence[str] = ()
) -> Network:
    """The network in evaluation mode with the weights of a `torch.save`d file.

    `inside` is the entry that holds the weights where the file wraps them, `may_miss` names buffers that it
    need not hold. Raises `InputError` for a file that is missing, not a checkpoint, or another network's.
    """
    state = _read_checkpoint(Path(path))
    state = state.get(inside, state) if inside is not None else state
    expected = network.state_dict()
    missing = sorted(expected.keys() - state.keys() - set(may_miss))
    unexpected = sorted(state.keys() - expected.keys())
    misshapen = sorted(k for k in expected.keys() & state.keys() if expected[k].shape != state[k].shape)
    for what, names in (
        ("misses", missing),
        ("has unknown", unexpected),
        ("has other shapes for", misshapen),
    ):
        if names:
            raise InputError(
                f"{path} {what} {_listed(names)}: these are not weights of {type(network).__name__}"
            )
    network.load_state_dict({**{k: expected[k] for k in may_miss}, **state})
    return network.eval()


def downloaded(name: str, build: Callable[..., Network], *args: Any, **options: Any) -> Network:
    """What kornia's `build` returns with weights it downloads (or finds in torch's cache)."""
    try:
        return build(*args, **options)
    except (OSError, RuntimeError) as error:  # no connection, or a file with another hash
        raise InputError(
            f"the weights of {name} could not be downloaded ({error}); get the file elsewhere and give its "
            f"path: {name}=PATH"
        ) from None


def _read_checkpoint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; give the path of a weights file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError):
        raise InputError(f"{path} is not a checkpoint that torch.load reads; download it again") from None
    if not isinstance(state, dict):
        raise InputError(f"{path} holds a {type(state).__name__}; a dictionary of weights is needed")
    return state


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
