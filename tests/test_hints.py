"""Hints: the loss by hand, and networks that learn from the maps of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.paper import PaperConfig
from lisrd.describe.weights import save_weights
from lisrd.errors import InputError
from lisrd.train.data.triplets import Triplets
from lisrd.train.hints import DESCRIPTORS, hint_loss, hinting_network
from lisrd.train.objective import LossConfig, TripletObjective

SMALL = PyramidConfig(widths=(2,) * 5, trunk_width=4, head_width=8, descriptor_dim=8)


@pytest.fixture
def triplets() -> Triplets:
    g = torch.Generator().manual_seed(0)
    images, places = torch.rand(3, 2, 3, 64, 64, generator=g), 60 * torch.rand(3, 2, 20, 2, generator=g)
    same, everyone = torch.eye(3).expand(2, 3, 3), torch.ones(2, 20, dtype=torch.bool)
    return Triplets(
        images, places, everyone, same, same, torch.zeros(2), torch.ones(2) > 0, torch.zeros(2) > 0
    )


def saved(path: Path, config: PyramidConfig = SMALL) -> str:
    torch.manual_seed(1)
    save_weights(path, PyramidNetwork(config), {})
    return str(path)


def test_hint_loss_by_hand() -> None:
    """Maps of variance 2, half of which is off by 1; a level of other channels; one of two keypoints known."""
    hinted = [torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 1, 2, 2) * 1.5**0.5, torch.ones(1, 3, 1, 1)]
    own = [hinted[0] + torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 2, 2), torch.zeros(1, 2, 1, 1)]
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    descriptors = torch.stack([x, y]).view(1, 2, 1, 2)
    mask = torch.tensor([[True, False]])
    assert float(hint_loss(own, [descriptors], hinted, [x.expand(1, 2, 1, 2)], mask)) == pytest.approx(0.25)
    everyone = torch.ones_like(mask)
    other = float(hint_loss(own, [descriptors], hinted, [x.expand(1, 2, 1, 2)], everyone))
    assert other == pytest.approx(0.25 + DESCRIPTORS / 2)
    assert float(hint_loss([], [descriptors], [], [descriptors], mask)) == pytest.approx(0, abs=1e-6)


def test_a_network_that_lost_a_block_finds_back(triplets: Triplets, tmp_path: Path) -> None:
    """Of what it lost at first it has most again after a few steps; what gives the hints stays as it was."""
    hinting = hinting_network(saved(tmp_path / "whole.safetensors"), SMALL)
    before = {name: value.clone() for name, value in hinting.state_dict().items()}
    network = PyramidNetwork(replace(SMALL, plain_levels=1))
    network.load_state_dict({n: t for n, t in before.items() if n in network.state_dict()})
    config = LossConfig(
        hints="whole", hints_weight=1.0, steady_weight=0.0, variant_weight=0.0, meta_weight=0.0
    )
    objective = TripletObjective(config, network.invariances)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        parts = objective(network, triplets, hinting=hinting)
        torch.testing.assert_close(parts["loss"], parts["invariant"] + parts["hints"])
        optimiser.zero_grad()
        parts["hints"].backward()
        optimiser.step()
        losses.append(parts["hints"].item())
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in hinting.state_dict().items())


def test_a_network_follows_itself_without_loss(triplets: Triplets, tmp_path: Path) -> None:
    hinting = hinting_network(saved(tmp_path / "whole.safetensors"), SMALL)
    objective = TripletObjective(LossConfig(hints="whole", hints_weight=1.0), hinting.invariances)
    assert float(objective(hinting, triplets, hinting=hinting)["hints"]) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (replace(SMALL, turns=8), "turns 4, but network.turns is 8"),
        (replace(SMALL, descriptor_dim=16), "descriptor_dim 8, but network.descriptor_dim is 16"),
        (PaperConfig(), "both networks must be pyramids"),
    ],
    ids=["turns", "length", "kind"],
)
def test_hints_of_another_kind_are_refused(config: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=reason):
        hinting_network(saved(tmp_path / "whole.safetensors"), config)


def test_hints_need_a_weight() -> None:
    with pytest.raises(ValueError, match=r"loss.hints and loss.hints_weight need each other"):
        LossConfig(hints="pyramid")
