"""Training the selection of a bank: NetVLAD, temperature and bias, over frozen members."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lisrd.describe.selector import Selector
from lisrd.train.bank_config import BankTrainingConfig
from lisrd.train.bank_objective import BankObjective, validate_bank
from lisrd.train.bank_pairs import DescribedPairs, PairDescriber, concatenate
from lisrd.train.checkpoint import MovingAverage
from lisrd.train.clusters import start_from_clusters
from lisrd.train.data.dataset import TripletDataset, triplet_loader
from lisrd.train.data.dice import step_generator
from lisrd.train.data.sources import build_mixture
from lisrd.train.data.triplets import Augmenter, Triplets
from lisrd.train.journal import Journal
from lisrd.train.trainer import VALIDATION_SEED, Progress, Trainer, _fabric


class BankTrainer(Trainer):
    """The loop of `Trainer`; its batches are drawn from pairs that were described before the first step."""

    def __init__(
        self,
        config: BankTrainingConfig,
        data_root: Path,
        directory: Path,
        seed: int = 0,
        workers: int = 1,
        on_step: Callable[[dict[str, float]], None] | None = None,
    ) -> None:
        self.config: Any = config
        self.directory, self.seed, self.workers, self.on_step = directory, seed, workers, on_step
        directory.mkdir(parents=True, exist_ok=True)
        self.fabric = _fabric(config.run.precision)
        torch.manual_seed(seed)
        bank = config.bank.build()
        self.describer = PairDescriber(bank, config.pairs)
        self.network: Any = bank.selector
        self.objective: Any = BankObjective(config.loss)
        parameters = [p for m in (self.network, self.objective) for p in m.parameters() if p.requires_grad]
        self.optimiser: Any = torch.optim.AdamW(
            parameters, lr=config.optimiser.learning_rate, weight_decay=config.optimiser.weight_decay
        )
        self.progress = Progress()
        self.last_validation = {}
        train, held_out = (build_mixture(data_root, config.data.sources, split) for split in ("train", "val"))
        self.dataset = TripletDataset(train, config.data, seed)
        self.validation_set = TripletDataset(held_out, config.data, VALIDATION_SEED)
        self.augmenter = Augmenter(config.augment, config.data.size)
        self.journal = Journal(directory)
        self.teacher = None  # the members are frozen
        self.average = MovingAverage(self.network, config.optimiser.ema_decay)
        self.model = self.fabric.setup_module(_LossOfPairs(self.network, self.objective))
        self.optimiser = self.fabric.setup_optimizers(self.optimiser)

    def fit(self) -> Any:
        """Train; returns the selector with averaged weights."""
        if self.progress.step == 0:
            self.start_from_clusters()
        return super().fit()

    @cached_property
    def pairs(self) -> DescribedPairs:
        """What is learnt from: a function of the data, the configuration and the seed."""
        return self._described(self.dataset, self.config.pairs.count, self.seed)

    @cached_property
    def validation_pairs(self) -> DescribedPairs:
        """Of the photographs that are kept for validation."""
        return self._described(self.validation_set, self.config.run.validation_triplets, VALIDATION_SEED)

    def start_from_clusters(self) -> None:
        """Centroids of every NetVLAD from the descriptors of the pairs."""
        generator = step_generator(self.seed, 0)
        for member, vlad in enumerate(self.network.meta.vlads):
            found = self.pairs.descriptors0[:, :, member].flatten(0, 1)
            start_from_clusters(vlad, found[found.any(1)].float().cpu(), generator)
        self.average = MovingAverage(self.network, self.config.optimiser.ema_decay)

    def validate(self) -> dict[str, dict[str, float]]:
        """Scores of the averaged selector, appended to `validation.jsonl`."""
        if self.fabric.global_rank:
            return {}
        self.last_validation = validate_bank(self.averaged_network(), self.validation_pairs)  # type: ignore[arg-type]
        self.journal.validation(self.progress.step, self.progress.seconds, self.last_validation, None)
        return self.last_validation

    def _described(self, dataset: TripletDataset, count: int, seed: int) -> DescribedPairs:
        size = self.config.run.batch_size
        loader = triplet_loader(dataset, size, workers=self.workers, num_steps=-(-count // size))
        triplets = (super(BankTrainer, self)._triplets(batch, seed, i) for i, batch in enumerate(loader))
        return concatenate(map(self.describer, triplets))

    def preview(self) -> Triplets:
        """The first triplets, before they are described."""
        return super()._triplets(next(super()._batches()), self.seed, 0)

    def _batches(self) -> Iterator[Any]:
        size, step, fabric = self.config.run.batch_size, self.progress.step, self.fabric
        while True:
            generator = step_generator(self.seed, step * fabric.world_size + fabric.global_rank)
            order = torch.randperm(len(self.pairs), generator=generator)
            yield self.pairs.choose(order[:size].to(self.pairs.xy0.device))
            step += 1

    def _triplets(self, batch: Any, seed: int, step: int) -> Any:
        return batch  # pairs that are ready


class _LossOfPairs(nn.Module):
    """Selector and objective as the one module whose forward makes the loss, as data parallelism wants it."""

    def __init__(self, selector: Selector, objective: BankObjective) -> None:
        super().__init__()
        self.selector, self.objective = selector, objective

    def forward(self, taught: None, **fields_of_pairs: Tensor) -> dict[str, Tensor]:
        return self.objective(self.selector, DescribedPairs(**fields_of_pairs))
