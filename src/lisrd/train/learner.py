"""What a training changes: weights, their optimiser, their moving average. One step from one batch."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from lisrd.errors import InputError
from lisrd.processes import mean_over_processes
from lisrd.train.checkpoint import MovingAverage, optimiser_tensors, restore_optimiser
from lisrd.train.config import OptimiserConfig
from lisrd.train.schedule import learning_rate
from lisrd.train.start import train_selection_alone


class Learner:
    """Trains the `network` of `loss`, a module that also has an `objective`; its forward gives a batch's losses."""

    def __init__(self, fabric: Any, loss: Any, config: OptimiserConfig) -> None:
        self.fabric, self.config = fabric, config
        self.network: Any = loss.network
        self.objective: nn.Module = loss.objective
        if config.parts == "selection":
            train_selection_alone(self.network)
        self.loss = fabric.setup_module(loss)  # on its device from here on, for the optimiser and the average
        learned = [p for p in loss.parameters() if p.requires_grad]
        adam = torch.optim.AdamW(learned, lr=config.learning_rate, weight_decay=config.weight_decay)
        self.optimiser = fabric.setup_optimizers(adam)
        self.start_average()

    def start_average(self) -> None:
        """The moving average starts from the weights as they are."""
        self.average = MovingAverage(self.network, self.config.ema_decay)

    def step(self, number: int, spent: float, inputs: dict[str, Any]) -> dict[str, float]:
        """Step `number` on the arguments of the loss; returns its parts, over the batches of all processes.

        `spent` is the share of the budget that is used.

        Raises:
            InputError: the loss or its gradient is not finite.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.config, number, spent)
        self.network.train(self.config.parts == "all")  # frozen descriptors keep their BatchNorm statistics
        parts = self.loss(**inputs)
        reached = dict(zip(parts, _of_all_processes(list(parts.values())), strict=True))
        _require_finite("loss", reached["loss"], number)
        self.fabric.backward(parts["loss"])
        norm = self.fabric.clip_gradients(
            self.loss, self.optimiser, max_norm=self.config.clip_norm, error_if_nonfinite=False
        )
        _require_finite("gradient's norm", float(norm), number)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.average.update(self.network)
        return reached

    def averaged_network(self) -> Any:
        """A copy of the network that holds the moving average of its weights."""
        averaged = deepcopy(self.network)
        self.average.copy_to(averaged)
        return averaged.eval()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """All that the next step depends on, as groups of tensors."""
        return {
            "network": self.network.state_dict(),
            "objective": self.objective.state_dict(),
            "average": self.average.weights,
            "optimiser": optimiser_tensors(self.optimiser),
        }

    def restore(self, state: dict[str, dict[str, Tensor]], updates: int) -> None:
        """The inverse of `state`, which was taken after `updates` steps."""
        self.network.load_state_dict(state["network"])
        self.objective.load_state_dict(state["objective"])
        restore_optimiser(self.optimiser, state.get("optimiser", {}))  # has nothing before the first step
        self.average.weights = {n: t.to(self.fabric.device) for n, t in state["average"].items()}
        self.average.updates = updates


def _require_finite(what: str, value: float, number: int) -> None:
    if not math.isfinite(value):
        raise InputError(
            f"the {what} is {value} at step {number}: lower the learning rate and start again in another --out, "
            "or there with --init of the weights before this step, "
            f"which --resume --steps {number} --export writes"
        )


def _of_all_processes(parts: list[Tensor]) -> list[float]:
    """The losses of the whole batch, of which every process has a share."""
    return mean_over_processes(torch.stack([part.detach().float() for part in parts])).tolist()
