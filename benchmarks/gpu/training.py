"""Steps of a training, beside the direct formulation, and with the augmentation of their images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from benchmarks.direct import DirectObjective
from benchmarks.gpu.work import Case, Meter, Sizes, Work
from benchmarks.inputs import triplets
from benchmarks.training import Data, Step
from lisrd.train.data.dataset import DataConfig, collate
from lisrd.train.data.dice import sample_generators
from lisrd.train.data.triplets import Triplets
from lisrd.train.objective import TripletObjective

_STEPS: tuple[tuple[str, type[TripletObjective]], ...] = (
    ("training step", TripletObjective),
    ("direct training step", DirectObjective),
)


def training_cases(sizes: Sizes, meter: Meter) -> Iterator[Case]:
    """Forward, all losses and backward; then with the augmentation of its images, which is also measured alone."""
    for batch in sizes.triplets:
        for words, objective in _STEPS:
            for unit in ("bfloat16", "float32"):
                prepare = partial(_step, sizes, meter, batch, unit, objective)
                yield Case("train", f"{words}, batch {batch}", unit, prepare)
        for unit, with_step in (("", False), ("bfloat16", True)):
            words = "augmentation and training step" if with_step else "augmentation"
            prepare = partial(_augmented, sizes, meter, batch, with_step)
            yield Case("train", f"{words}, batch {batch}", unit, prepare)


def _step(sizes: Sizes, meter: Meter, batch: int, unit: str, objective: type[TripletObjective]) -> Work:
    inputs = _moved(triplets(batch, *sizes.training), meter.device)
    run = _built(inputs, unit, objective, meter).run
    ours = objective is TripletObjective and unit == "bfloat16"
    facts = {"loss": run(), **(meter.busy_share(run) if ours else {})}
    return Work(run, batch, facts=facts)


def _built(inputs: Triplets, unit: str, objective: type[TripletObjective], meter: Meter) -> Step:
    with meter.device:
        return Step(inputs, getattr(torch, unit), objective=objective)


def _augmented(sizes: Sizes, meter: Meter, batch: int, with_step: bool) -> Work:
    """Samples lie on the device, as the trainer's loader would have brought them."""
    data, samples = _samples(sizes.training, batch)
    samples = {name: value.to(meter.device) for name, value in samples.items()}

    def augment() -> Triplets:
        return data.augmenter(samples, sample_generators(0, batch * next(data.steps), batch))

    step = _built(augment(), "bfloat16", TripletObjective, meter)

    def run() -> object:
        step.batch = augment()
        return step.run() if with_step else step.batch

    run()
    return Work(run, batch, facts=meter.busy_share(run) if with_step else {})


@lru_cache(maxsize=2)
def _samples(size: tuple[int, int, int], batch: int) -> tuple[Data, dict[str, Tensor]]:
    width, height, count = size
    with TemporaryDirectory() as directory:
        data = Data(Path(directory), batch, DataConfig(height=height, width=width, num_keypoints=count))
        return data, collate([data.dataset.sample(i) for i in range(batch)])


def _moved(batch: Triplets, device: torch.device) -> Triplets:
    return replace(batch, **{f.name: getattr(batch, f.name).to(device) for f in fields(batch)})
