"""Weights on disk: safetensors that say which network they are, checked when loaded, never pickled.

A file's metadata holds `format`, `kind` (which network), `config` (its sizes, JSON) and `provenance` (where it comes
from, JSON). Bundled files lie in `lisrd/weights` beside `SHA256SUMS`, as `sha256sum` writes it. The names of the
published checkpoints' parameters are known here and nowhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.paper import PaperConfig, PaperNetwork
from lisrd.describe.selector import Selector, SelectorConfig
from lisrd.errors import InputError
from lisrd.invariance import invariances
from lisrd.tensor_files import read_header, read_pickled_tensors, read_tensors, save_atomically, sha256

FORMAT = "lisrd-weights-1"

#: A network with a descriptor field.
Network = PyramidNetwork | PaperNetwork

#: What a file may hold: the class of its network, and of the configuration that builds it.
KINDS: dict[str, tuple[type[nn.Module], type[Any]]] = {
    "pyramid": (PyramidNetwork, PyramidConfig),
    "paper": (PaperNetwork, PaperConfig),
    "selector": (Selector, SelectorConfig),
}

_BUNDLED = files("lisrd") / "weights"


def build_network(config: PyramidConfig | PaperConfig) -> Network:
    """The network of this configuration, not trained."""
    return PaperNetwork(config) if isinstance(config, PaperConfig) else PyramidNetwork(config)


def save_weights(path: str | Path, network: nn.Module, metadata: dict[str, Any], half: bool = False) -> None:
    """Write the network's parameters and configuration; `metadata`, of JSON values, says where they come from.

    `half` stores float16; BatchNorm's statistics stay float32, because their range is wide and they are few.

    Raises:
        InputError: a parameter is not finite, or too large for float16.
    """
    kind = next((name for name, (network_class, _) in KINDS.items() if type(network) is network_class), None)
    assert kind is not None, f"{type(network).__name__} is missing from KINDS"
    header = {
        "format": FORMAT,
        "kind": kind,
        "config": json.dumps(asdict(network.config)),  # type: ignore[call-overload]
        "provenance": json.dumps(metadata),
    }
    tensors = {name: _stored(name, value, half) for name, value in network.state_dict().items()}
    save_atomically(tensors, Path(path), header)


def load_network(name_or_path: str | Path) -> nn.Module:
    """The network of a bundled name (see `bundled_names`) or a `.safetensors` file: evaluation mode, float32.

    Raises:
        InputError: no such file, a damaged one, or parameters that do not fit the network they claim to be.
    """
    with _located(name_or_path) as path:
        state, header = read_tensors(path)
        kind, config = _kind_and_config(header, path)
    network = KINDS[kind][0](config)
    load_strictly(network, state, str(path))
    return network.eval()


def read_metadata(name_or_path: str | Path) -> dict[str, Any]:
    """`kind`, `config` and `provenance` of a weights file. Raises InputError like `load_network`."""
    with _located(name_or_path) as path:
        header = read_header(path)
        kind, config = _kind_and_config(header, path)
    try:
        provenance = json.loads(header.get("provenance", "{}"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}); export the weights again") from None
    return {"kind": kind, "config": asdict(config), "provenance": provenance}


def fingerprint(name_or_path: str | Path) -> str:
    """SHA-256 of the file: what makes features of different weights incomparable."""
    with _located(name_or_path) as path:
        return sha256(path)


def bundled_names() -> list[str]:
    """Names of the weights that came with the package."""
    return sorted(name.removesuffix(".safetensors") for name in _checksums())


def load_strictly(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Copy `state` into the network, every name and every shape.

    Raises:
        InputError: parameters are missing, unknown or of another shape; the message names them.
    """
    expected = network.state_dict()
    misshapen = [
        f"{name} ({tuple(state[name].shape)} instead of {tuple(expected[name].shape)})"
        for name in sorted(expected.keys() & state.keys())
        if expected[name].shape != state[name].shape
    ]
    difference = _difference(expected, state) + (
        [f"has other shapes for {_listed(misshapen)}"] if misshapen else []
    )
    if difference:
        raise InputError(
            f"{where} {'; '.join(difference)}: these are not weights of {type(network).__name__} with its "
            "configuration; use a file that was exported from this network"
        )
    network.load_state_dict(state)


def convert(
    source: str | Path,
    target: str | Path,
    compat: Literal["reference", "none"] = "reference",
    half: bool = False,
) -> None:
    """Turn a published checkpoint (`.pth`) of the `paper` network into a weights file.

    Only tensors are read, and those of the optimiser are dropped. With `compat="none"` the network samples by this
    package's pixel convention instead of the released code's.

    Raises:
        InputError: no such file, not a checkpoint, Python objects in it, or parameters of another network.
    """
    source = Path(source)
    published = _parameters_of(read_pickled_tensors(source), source)
    network = PaperNetwork(PaperConfig(compat=compat))
    # Temperature and bias of the selection are not in it: they stay at 1 and 0, the published formula.
    selection = {name: network.state_dict()[name] for name in ("meta.log_sharpness", "meta.bias")}
    load_strictly(network, from_published(published, str(source)) | selection, str(source))
    save_weights(target, network, {"converted_from": source.name, "sha256": sha256(source)}, half)


def published_names() -> dict[str, str]:
    """Our name for each of the 104 published parameters."""
    names: dict[str, str] = {}
    for group in range(4):
        for index in range(2):
            number = f"{group + 1}_{index + 1}"
            ours = f"encoder.groups.{group}.{index}"
            names |= _conv_and_norm(f"_backbone._conv{number}", f"_backbone._bn{number}", ours)
    for v, invariance in enumerate(invariances()):
        rotation, light = invariance.name.split("_illum_")
        theirs = f"illum_{light}_{rotation}"
        names |= _conv_and_norm(f"conv_{theirs}_1", f"bn_{theirs}_1", f"heads.{v}.hidden")
        names |= _parts(f"conv_{theirs}_2", f"heads.{v}.out", "weight", "bias")
        names |= _parts(f"vlad_{invariance.name}.conv", f"meta.vlads.{v}.assign", "weight", "bias")
        names |= _parts(f"vlad_{invariance.name}", f"meta.vlads.{v}", "centroids")
    return names


def from_published(state: dict[str, Tensor], where: str) -> dict[str, Tensor]:
    """A published state dict under our names. Raises InputError unless it holds exactly the 104 parameters."""
    names = published_names()
    difference = _difference(names, state)
    if difference:
        raise InputError(
            f"{where} {'; '.join(difference)}: this is no checkpoint of the published LISRD network; "
            "give one of the .pth files of its authors"
        )
    # NetVLAD's assignment was a 1 x 1 convolution: the same numbers as our Linear.
    return {
        ours: state[theirs].flatten(1) if ours.endswith("assign.weight") else state[theirs]
        for theirs, ours in names.items()
    }


def _parameters_of(checkpoint: dict[str, Any], source: Path) -> dict[str, Tensor]:
    """The network's tensors in a checkpoint that may wrap them, without DataParallel's `module.`."""
    wrapped = checkpoint.get("model_state_dict", checkpoint)
    if not isinstance(wrapped, dict) or not all(isinstance(value, Tensor) for value in wrapped.values()):
        raise InputError(
            f"{source} holds no parameters by name; give a .pth file of the published LISRD network"
        )
    return {str(name).removeprefix("module."): value for name, value in wrapped.items()}


def _conv_and_norm(conv: str, norm: str, ours: str) -> dict[str, str]:
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    return _parts(conv, f"{ours}.conv", "weight", "bias") | _parts(
        norm, f"{ours}.norm", "weight", "bias", *statistics
    )


def _parts(theirs: str, ours: str, *parts: str) -> dict[str, str]:
    return {f"{theirs}.{part}": f"{ours}.{part}" for part in parts}


def _stored(name: str, value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu()
    if half and value.is_floating_point() and not name.endswith(("running_mean", "running_var")):
        value = value.half()
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"parameter {name} is not finite in {value.dtype}: the weights were not written")
    return value.contiguous().clone()  # safetensors refuses shared memory


def _kind_and_config(header: dict[str, str], path: Path) -> tuple[str, Any]:
    if header.get("format") != FORMAT:
        found = header.get("format", "no format at all")
        raise InputError(
            f"{path} does not hold weights of this package ({FORMAT}; it says {found}): use a file from "
            "`lisrd train --export` or `lisrd convert`"
        )
    kind = header.get("kind", "")
    if kind not in KINDS:
        raise InputError(
            f"{path} holds a {kind!r} network; this version knows {', '.join(KINDS)}: upgrade lisrd"
        )
    try:
        values = json.loads(header["config"])
        # JSON has no tuples.
        return kind, KINDS[kind][1](**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: its configuration does not fit a {kind!r} network of this version ({error}): upgrade lisrd, or "
            "export the weights again"
        ) from None


@contextmanager
def _located(name_or_path: str | Path) -> Iterator[Path]:
    """The file of a path, or of a bundled name once its checksum is right."""
    text = str(name_or_path)
    if isinstance(name_or_path, Path) or os.sep in text or "." in text:
        yield Path(text)
        return
    checksums, file_name = _checksums(), f"{text}.safetensors"
    if file_name not in checksums:
        raise InputError(
            f"no weights {text!r} come with this package (it has: {', '.join(bundled_names()) or 'none'}); "
            "give the path of a .safetensors file, from `lisrd train --export` or `lisrd convert`"
        )
    with as_file(_BUNDLED / file_name) as path:
        if not path.is_file() or sha256(path) != checksums[file_name]:
            raise InputError(f"bundled weights {path} are missing or changed: install lisrd again")
        yield path


def _checksums() -> dict[str, str]:
    """SHA-256 of each bundled file."""
    table = _BUNDLED / "SHA256SUMS"
    if not table.is_file():
        return {}
    rows = [line.split() for line in table.read_text().splitlines()]
    return {name.removeprefix("*"): digest for digest, name in rows}


def _difference(expected: dict[str, Any], state: dict[str, Any]) -> list[str]:
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    return [
        f"{what} {_listed(names)}" for what, names in (("misses", missing), ("has unknown", unknown)) if names
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
