"""Weights of published detectors: from a file, strictly, or from a download that may fail with advice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from lisrd.errors import InputError
from lisrd.tensor_files import read_pickled_tensors

Network = TypeVar("Network", bound=nn.Module)


def load_weights(
    network: Network, path: str | Path, inside: str | None = None, may_miss: Sequence[str] = ()
) -> Network:
    """The network in evaluation mode with the weights of a `torch.save`d file.

    `inside` is the entry that holds the weights where the file wraps them, `may_miss` names buffers that it
    need not hold. Raises `InputError` for a file that is missing, not a checkpoint, or another network's.
    """
    content = read_pickled_tensors(Path(path))
    state = content.get(inside, content) if inside is not None else content
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(
            f"{path} holds no tensors by name: these are not weights of {type(network).__name__}"
        )
    expected = network.state_dict()
    missing = sorted(expected.keys() - state.keys() - set(may_miss))
    unexpected = sorted(map(str, state.keys() - expected.keys()))
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


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
