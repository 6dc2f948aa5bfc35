"""Where a training starts: from other weights, and with which parts left to learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lisrd.describe.network import PyramidNetwork
from lisrd.describe.weights import fingerprint, load_network, read_metadata
from lisrd.errors import InputError
from lisrd.train.grow import grown_weights

#: Parameters of the selection start with this; the others shape the descriptors.
_SELECTION = "meta."


def start_from(network: nn.Module, weights: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Copy every parameter of `weights`, of several their mean; parts of the selection that they lack stay as they are.

    Weights of a smaller `pyramid` network grow, see `lisrd.train.grow`. The mean of runs that started alike is often
    better than any of them (Wortsman et al., Model Soups, ICML 2022). Returns what provenance should say of each.

    Raises:
        InputError: no such weights, or descriptors of another network.
    """
    wanted = network.state_dict()
    found = [_fitting(network, wanted, one) for one in weights]
    common = set(found[0]).intersection(*found)
    means = {name: torch.stack([state[name].double() for state in found]).mean(0) for name in common}
    network.load_state_dict(wanted | {name: mean.to(wanted[name].dtype) for name, mean in means.items()})
    return [_told(one) for one in weights]


def _fitting(network: nn.Module, wanted: dict[str, Tensor], weights: str | Path) -> dict[str, Tensor]:
    small = load_network(weights)
    found = small.state_dict()
    if isinstance(network, PyramidNetwork) and isinstance(small, PyramidNetwork):
        try:
            found = grown_weights(small, network.config)
        except InputError as error:
            raise InputError(f"{weights}: {error}; start from weights of as many or fewer features") from None
    fitting = {n: t for n, t in found.items() if n in wanted and t.shape == wanted[n].shape}
    missing = [n for n in wanted if n not in fitting and not n.startswith(_SELECTION)]
    if missing:
        raise InputError(
            f"{weights}: {len(missing)} parameters do not fit this configuration, {missing[0]} first; "
            "start from weights of a network of the same sizes"
        )
    return fitting


def _told(weights: str | Path) -> dict[str, Any]:
    provenance = read_metadata(weights)["provenance"]
    told = {key: provenance[key] for key in ("steps", "minutes", "started_from") if key in provenance}
    return {"sha256": fingerprint(weights), **told}


def train_selection_alone(network: nn.Module) -> None:
    """Freeze all that shapes the descriptors."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(_SELECTION) and parameter.requires_grad)
