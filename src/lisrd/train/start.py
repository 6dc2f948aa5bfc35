"""Where a training starts: from other weights, and with which parts left to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from lisrd.describe.weights import fingerprint, load_network, read_metadata
from lisrd.errors import InputError

#: Parameters of the selection start with this; the others shape the descriptors.
_SELECTION = "meta."


def start_from(network: nn.Module, weights: str | Path) -> dict[str, Any]:
    """Copy every parameter of `weights` into the network; parts of the selection that they lack stay as they are.

    Returns what provenance should say of it.

    Raises:
        InputError: no such weights, or descriptors of another network.
    """
    found = load_network(weights).state_dict()
    wanted = network.state_dict()
    fitting = {n: t for n, t in found.items() if n in wanted and t.shape == wanted[n].shape}
    missing = [n for n in wanted if n not in fitting and not n.startswith(_SELECTION)]
    if missing:
        raise InputError(
            f"{weights}: {len(missing)} parameters do not fit this configuration, {missing[0]} first; "
            "start from weights of a network of the same sizes"
        )
    network.load_state_dict(wanted | fitting)
    provenance = read_metadata(weights)["provenance"]
    told = {key: provenance[key] for key in ("steps", "minutes", "started_from") if key in provenance}
    return {"sha256": fingerprint(weights), **told}


def train_selection_alone(network: nn.Module) -> None:
    """Freeze all that shapes the descriptors."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(_SELECTION) and parameter.requires_grad)
