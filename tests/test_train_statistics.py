"""BatchNorm statistics of averaged weights are measured, and make the averaged network what it should be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.turns import TurnBatchNorm
from lisrd.train.config import OptimiserConfig, RunConfig, TrainingConfig
from lisrd.train.data.dataset import DataConfig
from lisrd.train.data.sources import SourceConfig
from lisrd.train.statistics import has_statistics, measure_statistics
from lisrd.train.trainer import Trainer
from small_training import write_photographs

SMALL = PyramidConfig(widths=(2, 2, 2, 2, 2), trunk_width=4, head_width=8, descriptor_dim=8)


@pytest.mark.parametrize("before", [7.0, float("nan")])
def test_means_over_the_batches_by_hand(before: float) -> None:
    network = nn.BatchNorm2d(1, momentum=0.3)
    network.running_mean += before  # of other weights: forgotten
    batches = [
        torch.full((1, 1, 2, 2), value) + torch.tensor([[0.0, 1.0], [0.0, 1.0]]) for value in (1.0, 4.0)
    ]
    measure_statistics(network, batches)
    assert network.running_mean.item() == pytest.approx(3.0)  # of 1.5 and 4.5
    assert network.running_var.item() == pytest.approx(1 / 3)  # of 0, 1, 0, 1, unbiased, both times
    assert network.momentum == 0.3
    assert not network.training


def test_measured_on_one_batch_evaluation_is_training() -> None:
    """Of that batch the network in evaluation gives what it gave in training, but for the unbiased variance."""
    torch.manual_seed(0)
    network, images = PyramidNetwork(SMALL), torch.rand(8, 3, 64, 64)
    with torch.no_grad():
        trained = network.train()(images).maps
    measure_statistics(network, [images])
    assert has_statistics(network)
    with torch.no_grad():
        for ours, theirs in zip(network(images).maps, trained, strict=True):
            torch.testing.assert_close(ours, theirs, atol=0.1, rtol=0.1)


def test_without_batchnorm_there_is_nothing_to_measure() -> None:
    assert not has_statistics(nn.Linear(2, 2))


def trainer(tmp_path: Path, precision: str = "float32", **optimiser: object) -> Trainer:
    config = TrainingConfig(
        network=SMALL,
        data=DataConfig((SourceConfig("images", "."),), 64, 96, num_keypoints=32, min_keypoints=8),
        optimiser=OptimiserConfig(**optimiser),  # type: ignore[arg-type]
        run=RunConfig(steps=2, batch_size=2, precision=precision, validation_triplets=2),
    )
    return Trainer(config, write_photographs(tmp_path), tmp_path / "run", workers=0)


def statistics(network: nn.Module) -> torch.Tensor:
    norms = [module.norm for module in network.modules() if isinstance(module, TurnBatchNorm)]
    return torch.cat([norm.running_mean for norm in norms])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_ends_with_statistics_of_its_averaged_weights(tmp_path: Path, precision: str) -> None:
    run = trainer(tmp_path, precision)
    averaged = run.fit()
    own = statistics(run.network)
    assert (statistics(averaged) - own).abs().max() > 1e-3
    again = run.averaged_network()
    assert torch.equal(statistics(again), statistics(averaged))  # the same images every time
    assert torch.equal(statistics(run.network), own)  # training goes on as if nothing had been asked


def test_frozen_descriptors_keep_theirs(tmp_path: Path) -> None:
    run = trainer(tmp_path, parts="selection")
    before = statistics(run.network).clone()
    assert torch.equal(statistics(run.fit()), before)
