"""Hints: the maps of a trained network, and its descriptors, on the very views that a network learns from.

For a network that shall do with fewer operations what another does. A teacher is asked once, of the clean image, and
wants invariance; hints want the same numbers at every pixel, and a network that lost a part recovers in minutes.

Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.paper import PaperConfig
from lisrd.describe.weights import load_network
from lisrd.errors import InputError

#: What must be alike, for descriptors at the same turn to be comparable.
_ALIKE = ("turns", "descriptor_dim")
#: Of one minus the cosine of the descriptors to the relative error of the maps.
DESCRIPTORS = 3.0


def hinting_network(weights: str, config: PyramidConfig | PaperConfig) -> PyramidNetwork:
    """The network of `weights`, bundled ones or a file, frozen, as one to learn from for a network of `config`.

    Raises:
        InputError: no such weights, another kind of network, or other turns or lengths of descriptors.
    """
    network = load_network(weights)
    if not isinstance(network, PyramidNetwork) or not isinstance(config, PyramidConfig):
        raise InputError(f"loss.hints is {weights}: both networks must be pyramids, hints are their maps")
    own, wanted = asdict(network.config), asdict(config)
    for name in _ALIKE:
        if own[name] != wanted[name]:
            raise InputError(
                f"loss.hints is {weights} with {name} {own[name]}, but network.{name} is {wanted[name]}"
            )
    return network.eval().requires_grad_(False)


def hint_loss(
    maps: Sequence[Float[Tensor, "B _ _ _"]],
    descriptors: Sequence[Float[Tensor, "B N V D"]],
    hinted_maps: Sequence[Float[Tensor, "B _ _ _"]],
    hinted_descriptors: Sequence[Float[Tensor, "B N V D"]],
    mask: Bool[Tensor, "B N"],
) -> Float[Tensor, ""]:
    """Mean squared error of the maps over their variance, and `DESCRIPTORS` times one minus the descriptors' cosine.

    Levels with another number of channels are not compared.
    """
    errors = [
        F.mse_loss(own.float(), hinted.float()) / hinted.float().var().clamp_min(1e-6)
        for own, hinted in zip(maps, hinted_maps, strict=False)
        if own.shape == hinted.shape
    ]
    cosines = [(d * h).sum(-1).mean(-1)[mask] for d, h in zip(descriptors, hinted_descriptors, strict=True)]
    of_descriptors = DESCRIPTORS * (1 - torch.cat(cosines).mean())
    return of_descriptors + torch.stack(errors).mean() if errors else of_descriptors
