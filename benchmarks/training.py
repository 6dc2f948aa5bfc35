"""A training step beside the same step with a meta descriptor per keypoint."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import torch

from benchmarks.direct import selection_weights_direct
from benchmarks.inputs import triplets
from benchmarks.timing import Comparison
from lisrd.describe.network import PyramidNetwork
from lisrd.describe.precision import choose_precision
from lisrd.train.objective import LossConfig, TripletObjective


class Step:
    """Forward, all losses and backward of one batch, in the precision that the trainer would choose."""

    def __init__(self, batch: int, width: int, height: int, count: int) -> None:
        torch.manual_seed(0)
        self.network = PyramidNetwork().train()
        self.objective = TripletObjective(LossConfig(selection_weight=0.1), self.network.invariances)
        self.triplets = triplets(batch, width, height, count)
        self.dtype, _ = choose_precision("auto", "cpu")

    def run(self) -> float:
        lower = self.dtype != torch.float32
        with torch.autocast("cpu", dtype=self.dtype if lower else None, enabled=lower):
            loss = self.objective(self.network, self.triplets)["loss"]
        loss.backward()
        self.network.zero_grad()
        return loss.item()

    def run_direct(self) -> float:
        with patch("lisrd.train.objective.selection_weights", selection_weights_direct):
            return self.run()


def comparisons(batch: int, width: int, height: int, count: int) -> Iterator[Comparison]:
    """The one row of training."""
    step = Step(batch, width, height, count)
    words = f"batch {batch}, {width} x {height}, {count} keypoints, {str(step.dtype).removeprefix('torch.')}"
    yield Comparison(
        "train_step_vs_direct",
        f"forward, all losses, backward; {words}",
        "the same with a 1024-d meta descriptor per keypoint",
        step.run,
        step.run_direct,
    )
