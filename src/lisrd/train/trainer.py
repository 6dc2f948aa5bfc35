"""The training loop: batches, budgets, checkpoints, metrics, validation. What one step does is the learner's."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lisrd.describe.network import PyramidNetwork
from lisrd.describe.weights import Network, build_network
from lisrd.interrupt import workers_ignore_interrupt
from lisrd.one_writer import claim
from lisrd.processes import mean_over_processes
from lisrd.train.allocator import keep_freed_memory
from lisrd.train.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from lisrd.train.config import TrainingConfig
from lisrd.train.data.dataset import TripletDataset, triplet_loader
from lisrd.train.data.detection import DetectionConfig
from lisrd.train.data.dice import sample_generators
from lisrd.train.data.sources import build_mixture
from lisrd.train.data.triplets import Augmenter, Triplets
from lisrd.train.hints import hinting_network
from lisrd.train.identity import refuse_other_run, run_identity
from lisrd.train.journal import Journal
from lisrd.train.launch import launch_fabric
from lisrd.train.learner import Learner
from lisrd.train.objective import TripletObjective
from lisrd.train.start import start_from
from lisrd.train.statistics import has_statistics, measure_statistics
from lisrd.train.teacher import Beside, Teacher
from lisrd.train.validation import validate
from lisrd.whole_file import writing

#: Batches of validation are drawn from a seed of their own, the same in every run.
VALIDATION_SEED = 20_200_824

#: Batches on which BatchNorm's statistics of the averaged weights are measured: sixty gave the same scores.
MEASURED_BATCHES = 8

#: Batches from which a teacher of more values than the network takes what to teach.
SHOWN_BATCHES = 4

#: Scores of the network in training by kind of pair, from pairs that the trainer knows nothing of.
RealScores = Callable[[Any], dict[str, dict[str, float]]]


@dataclass
class Progress:
    """Where the run stands; saved with every checkpoint."""

    step: int = 0
    seconds: float = 0.0  # of training, over all sessions


class Trainer:
    """Trains a network on triplets until the first of its two budgets, steps or minutes, is spent."""

    def __init__(
        self,
        config: TrainingConfig | Any,  # a subclass has its own
        data_root: Path,
        directory: Path,
        seed: int = 0,
        workers: int = 1,
        on_step: Callable[[dict[str, float]], None] | None = None,
        init: Sequence[str | Path] = (),
    ) -> None:
        """`init` names weights to start from, bundled names or files; of several the mean.

        Raises:
            InputError: bad data, or weights of another network.
        """
        self.config, self.directory, self.seed, self.workers = config, directory, seed, workers
        self.on_step = on_step
        self.real_pairs: RealScores | None = None  # asked at every validation
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        self.fabric = launch_fabric(config.run.precision)
        keep_freed_memory()
        torch.manual_seed(seed)
        loss = self._build()
        self.started_from = start_from(loss.network, init) if init else None
        self.learner = Learner(self.fabric, loss, config.optimiser)
        self.progress = Progress()
        self.last_validation: dict[str, dict[str, float]] = {}
        train, held_out = (build_mixture(data_root, config.data.sources, split) for split in ("train", "val"))
        self.dataset = TripletDataset(train, config.data, seed)
        self.validation_set = TripletDataset(held_out, config.data, VALIDATION_SEED)
        self.augmenter = Augmenter(config.augment, config.data.size)
        exact = replace(config.augment, detection=DetectionConfig())
        self.exact_augmenter = Augmenter(exact, config.data.size)
        self.journal = Journal(directory) if self.is_main else None

    def _build(self) -> Any:
        """The loss as a module, with what is trained as its `network`; see `Learner`."""
        config = self.config
        network = build_network(config.network)
        objective = TripletObjective(config.loss, network.invariances)
        loss, dim = config.loss, config.network.descriptor_dim
        kinds = [network.invariances[v].name for v in objective.taught]
        size, device = config.data.size, self.fabric.device
        self.teacher = None
        if loss.teacher:
            looks = loss.teacher_sizes, loss.teacher_mirrored
            second = loss.teacher_beside, loss.teacher_beside_kinds, loss.teacher_beside_weight
            beside = Beside(*second) if loss.teacher_beside else None
            self.teacher = Teacher(loss.teacher, kinds, dim, size, device, *looks, beside)
        hinting = hinting_network(loss.hints, config.network) if loss.hints else None
        return _LossOf(network, objective, hinting)

    @property
    def network(self) -> Any:
        """What is trained, with the weights of the last step."""
        return self.learner.network

    def resume(self) -> bool:
        """Continue from the newest checkpoint; False where there is none.

        Raises:
            InputError: the checkpoint belongs to another run (see `run_identity`), or another run writes here.
        """
        with self._claimed():
            return self._resumed()

    def _resumed(self) -> bool:
        path = newest_checkpoint(self.directory)
        if path is None:
            return False
        step, state, saved = load_checkpoint(path)
        refuse_other_run(path, saved, run_identity(self.config, self.seed))
        self.learner.restore(state, step)
        self.progress = Progress(step, saved["seconds"])
        self.started_from = saved.get("started_from")
        if self.journal:
            self.journal.forget_after(step)
        return True

    def preview(self) -> Triplets:
        """The triplets of the first step, for a look at what the network sees."""
        return self._triplets(next(self._batches()), self.seed, 0)

    @property
    def is_main(self) -> bool:
        """Whether this is the one of several processes that writes and reports."""
        return bool(self.fabric.is_global_zero)

    def provenance(self) -> dict[str, Any]:
        """What finished weights say of themselves."""
        return {
            "recipe": run_identity(self.config, self.seed)["config"],
            "seed": self.seed,
            "steps": self.progress.step,
            "minutes": round(self.progress.seconds / 60, 1),
            "started_from": self.started_from,
            "data": [source.path for source in self.config.data.sources],
            "validation": self.last_validation,
        }

    def fit(self) -> Any:
        """Train; returns the network with averaged weights. Interrupted, it saves where it stands first.

        Raises:
            InputError: another process trains into this directory, or the loss or its gradient is not finite.
        """
        with self._claimed():
            self._train()
            return self.averaged_network()

    def _claimed(self) -> AbstractContextManager[Any]:
        """The directory, as the only run that writes there; of several processes the main one does."""
        return closing(claim(self.directory / ".lock", self.directory)) if self.is_main else nullcontext()

    def _train(self) -> None:
        started, before = time.monotonic(), self.progress.seconds
        saved, validated = before, before
        run = self.config.run
        for dataset in (self.dataset, self.validation_set):
            dataset.keep_keypoints(self.directory / "keypoints")
        if self.teacher:
            self.teacher.shorten(triplet_loader(self.dataset, run.batch_size, num_steps=SHOWN_BATCHES))
        try:
            batches = self._batches()
            while self._spent() < 1:
                loss = self._step(next(batches))
                now = self._agreed(before + time.monotonic() - started)
                loss["samples_per_second"] = (
                    run.batch_size * self.fabric.world_size / (now - self.progress.seconds)
                )
                self.progress.seconds = now
                self._record(loss)
                if now - saved > 60 * run.checkpoint_minutes:
                    self.save()
                    saved = now
                if now - validated > 60 * run.validate_minutes:
                    self.validate()
                    validated = now
            self.validate()
        finally:
            self.save()

    def _agreed(self, seconds: float) -> float:
        """One time for all processes, which must save, validate and stop at the same step."""
        return float(mean_over_processes(torch.tensor(seconds, device=self.fabric.device)))

    def _batches(self) -> Iterator[dict[str, Tensor]]:
        run, fabric = self.config.run, self.fabric
        loader = triplet_loader(
            self.dataset,
            run.batch_size,
            workers=self.workers,
            start_step=self.progress.step,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )
        with workers_ignore_interrupt():
            return iter(loader)

    def _step(self, batch: Any) -> dict[str, float]:
        step, fabric = self.progress.step, self.fabric
        with torch.no_grad():
            triplets = self._triplets(batch, self.seed, step * fabric.world_size + fabric.global_rank)
            taught = self._taught(batch) if self.teacher else None
        # Fabric moves what it is given by setting its fields, which frozen records refuse.
        inputs = {f.name: getattr(triplets, f.name) for f in fields(triplets)}
        reached = self.learner.step(step, self._spent(), {"taught": taught, **inputs})
        self.progress.step += 1
        return reached

    def _taught(self, batch: dict[str, Tensor]) -> Tensor:
        """The teacher's descriptors of the first anchors, as many as the configuration pays for."""
        assert self.teacher is not None
        count = math.ceil(self.config.loss.teacher_share * self.config.run.batch_size)
        return self.teacher.describe({k: v[:count] for k, v in batch.items()})

    def _triplets(self, batch: Any, seed: int, number: int) -> Triplets:
        """Triplets from the `number`-th batch of samples; those of validation correspond exactly."""
        device, count = self.fabric.device, len(batch["image0"])
        on_device = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
        augmenter = self.exact_augmenter if seed == VALIDATION_SEED else self.augmenter
        return augmenter(on_device, sample_generators(seed, number * count, count))

    def _spent(self) -> float:
        """Share of the budget that is used, by steps or by time."""
        run = self.config.run
        by_time = 0.0 if run.minutes is None else _share(self.progress.seconds, 60 * run.minutes)
        return max(_share(self.progress.step, run.steps), by_time)

    def validate(self) -> dict[str, dict[str, float]]:
        """Scores of the averaged network, appended to `validation.jsonl`."""
        network = self.averaged_network()
        if not self.journal:
            return {}
        batches = self.validation_batches(self.config.run.validation_triplets)
        scores = validate(network, batches) | (self.real_pairs(network) if self.real_pairs else {})
        self.last_validation = scores
        self.journal.validation(self.progress.step, self.progress.seconds, scores, batches[0])
        return scores

    def averaged_network(self) -> Any:
        """A copy of the network with averaged weights, and with the statistics of its own that go with them.

        All processes take part.
        """
        averaged = self.learner.averaged_network()
        if self.learner.config.parts == "all" and has_statistics(averaged):
            measure_statistics(averaged, self._images_to_measure(), self.fabric.autocast)
        return averaged

    def _images_to_measure(self) -> Iterator[Tensor]:
        """Images as the network sees them in training, the same whenever it is asked."""
        fabric = self.fabric
        rank, processes = fabric.global_rank, fabric.world_size
        size, count = self.config.run.batch_size, MEASURED_BATCHES
        loader = triplet_loader(self.dataset, size, num_steps=count, rank=rank, world_size=processes)
        for number, batch in enumerate(loader):
            yield self._triplets(batch, VALIDATION_SEED, number * processes + rank).images.flatten(0, 1)

    def validation_batches(self, count: int) -> list[Triplets]:
        """At least `count` triplets of the photographs kept for validation, the same in every run."""
        size = self.config.run.batch_size
        loader = triplet_loader(self.validation_set, size, num_steps=-(-count // size))
        return [self._triplets(batch, VALIDATION_SEED, number) for number, batch in enumerate(loader)]

    def save(self) -> None:
        """Write a checkpoint; one process does."""
        if not self.is_main:
            return
        metadata = {
            **run_identity(self.config, self.seed),
            "seconds": self.progress.seconds,
            "started_from": self.started_from,
        }
        keep = self.config.run.keep_checkpoints
        save_checkpoint(self.directory, self.progress.step, self.learner.state(), metadata, keep)

    def _record(self, loss: dict[str, float]) -> None:
        if not self.journal:
            return
        row = {"step": self.progress.step, **loss, "seconds": round(self.progress.seconds, 3)}
        self.journal.step(row)
        if self.on_step:
            self.on_step({**row, "spent": self._spent()})


def _share(used: float, budget: float) -> float:
    return used / budget if budget else 1.0


class _LossOf(nn.Module):
    """Network and objective as the one module whose forward makes the loss, as data parallelism wants it."""

    def __init__(
        self, network: Network, objective: TripletObjective, hinting: PyramidNetwork | None = None
    ) -> None:
        super().__init__()
        self.network, self.objective, self.hinting = network, objective, hinting

    def forward(self, taught: Tensor | None, **fields_of_triplets: Tensor) -> dict[str, Tensor]:
        return self.objective(self.network, Triplets(**fields_of_triplets), taught, self.hinting)
