"""Training the selection of a bank: NetVLAD, temperature and bias, over frozen members."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from lisrd.describe.selector import Selector
from lisrd.train.bank_objective import BankObjective, validate_bank
from lisrd.train.bank_pairs import DescribedPairs, PairDescriber, concatenate
from lisrd.train.clusters import start_from_clusters
from lisrd.train.data.dataset import TripletDataset, triplet_loader
from lisrd.train.data.dice import numbered_generator
from lisrd.train.data.triplets import Triplets
from lisrd.train.trainer import VALIDATION_SEED, Trainer


class BankTrainer(Trainer):
    """The loop of `Trainer`; its batches are drawn from pairs that were described before the first step."""

    config: Any  # a BankTrainingConfig

    def _build(self) -> Any:
        bank = self.config.bank.build()
        self.describer = PairDescriber(bank, self.config.pairs)
        objective = BankObjective(self.config.loss)
        self.teacher = None  # the members are frozen
        return _LossOfPairs(bank.selector, objective)

    def _train(self) -> None:
        if self.progress.step == 0:
            self.start_from_clusters()
        super()._train()

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
        generator = numbered_generator(self.seed, 0)
        for member, vlad in enumerate(self.network.meta.vlads):
            found = self.pairs.descriptors0[:, :, member].flatten(0, 1)
            start_from_clusters(vlad, found[found.any(1)].float().cpu(), generator)
        self.learner.start_average()

    def validate(self) -> dict[str, dict[str, float]]:
        """Scores of the averaged selector, appended to `validation.jsonl`."""
        if not self.journal:
            return {}
        self.last_validation = validate_bank(self.learner.averaged_network(), self.validation_pairs)
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
            order = torch.randperm(len(self.pairs), generator=numbered_generator(self.seed, step))
            share = order[fabric.global_rank * size :][:size]
            yield self.pairs.choose(share.to(self.pairs.xy0.device))
            step += 1

    def _triplets(self, batch: Any, seed: int, step: int) -> Any:
        return batch  # pairs that are ready


class _LossOfPairs(nn.Module):
    """Selector and objective as the one module whose forward makes the loss, as data parallelism wants it."""

    def __init__(self, network: Selector, objective: BankObjective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, taught: None, **fields_of_pairs: Tensor) -> dict[str, Tensor]:
        return self.objective(self.network, DescribedPairs(**fields_of_pairs))
