"""A training step beside the direct formulation, beside a plain network, and beside the data that it eats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import torch

from benchmarks.direct import DirectObjective
from benchmarks.inputs import generator, image, triplets
from benchmarks.timing import Comparison
from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.precision import choose_precision
from lisrd.train.allocator import keep_freed_memory
from lisrd.train.data.dataset import DataConfig, TripletDataset, collate
from lisrd.train.data.dice import sample_generators
from lisrd.train.data.sources import build_mixture
from lisrd.train.data.triplets import Augmenter, Triplets
from lisrd.train.objective import LossConfig, TripletObjective

_LOSSES = LossConfig(selection_weight=0.1)
_PHOTOGRAPHS = 24


class Step:
    """Forward, all losses and backward of one batch, on its device."""

    def __init__(
        self,
        batch: Triplets,
        dtype: torch.dtype,
        config: PyramidConfig = PyramidConfig(),
        objective: type[TripletObjective] = TripletObjective,
    ) -> None:
        torch.manual_seed(0)
        self.network = PyramidNetwork(config).train()
        self.objective = objective(_LOSSES, self.network.invariances)
        self.batch, self.dtype = batch, dtype

    def run(self) -> float:
        lower = self.dtype != torch.float32
        with torch.autocast(self.batch.images.device.type, self.dtype if lower else None, enabled=lower):
            loss = self.objective(self.network, self.batch)["loss"]
        loss.backward()
        self.network.zero_grad()
        return loss.item()


class Data:
    """Batches of triplets from photographs in files: read, cropped, their keypoints, warped, relit."""

    def __init__(self, directory: Path, batch: int, config: DataConfig) -> None:
        _write_photographs(directory, config.short_side)
        self.dataset = TripletDataset(build_mixture(directory, ()), config)
        self.augmenter = Augmenter(size=config.size)
        self.batch, self.steps = batch, count()

    def run(self) -> Triplets:
        """The next batch; photographs and their keypoints are cached when they were seen before."""
        step = next(self.steps)
        samples = [self.dataset.sample(step * self.batch + i) for i in range(self.batch)]
        return self.augmenter(collate(samples), sample_generators(0, step * self.batch, self.batch))


def plain_config() -> PyramidConfig:
    """An ordinary network with as many channels at every level."""
    config = PyramidConfig()
    widths = tuple(config.turns * width for width in config.widths)
    return replace(config, turns=1, widths=widths, trunk_width=config.turns * config.trunk_width)


def comparisons(batch: int, width: int, height: int, count: int) -> Iterator[Comparison]:
    """The rows of training."""
    keep_freed_memory()  # as the trainer does; for both sides
    inputs = triplets(batch, width, height, count)
    dtype, _ = choose_precision("auto", "cpu")
    precision = str(dtype).removeprefix("torch.")
    ours = Step(inputs, dtype)
    words = (
        f"forward, all losses, backward; batch {batch}, {width} x {height}, {count} keypoints, {precision}"
    )
    direct = (
        "the direct formulation: 1024-d meta descriptors per keypoint, N x V x N similarities of all pairs"
    )
    exact = Step(inputs, torch.float32, objective=DirectObjective).run
    yield Comparison("train_step_vs_direct", words, f"{direct}, float32", ours.run, exact)
    same = Step(inputs, dtype, objective=DirectObjective).run
    yield Comparison("train_step_vs_direct_same_precision", words, f"{direct}, {precision}", ours.run, same)
    plain = Step(inputs, dtype, plain_config()).run
    yield Comparison(
        "train_step_equivariant_vs_plain", words, "a plain network with as many channels", ours.run, plain
    )
    with TemporaryDirectory() as directory:
        config = DataConfig(height=height, width=width, num_keypoints=count)
        data = Data(Path(directory), batch, config)
        made = f"{batch} triplets from cached photographs: crops, keypoints, views, light, camera"
        yield Comparison("data_pipeline_vs_step", made, f"the step; {precision}", data.run, ours.run)


def _write_photographs(directory: Path, short_side: int) -> None:
    """Smooth noise of 4 : 3, with keypoints everywhere."""
    for index in range(_PHOTOGRAPHS):
        pixels = image(short_side * 4 // 3, short_side)[0].roll(37 * index, -1)
        noise = 0.02 * torch.randn(pixels.shape, generator=generator(index))
        bytes_ = (255 * (pixels + noise).clamp(0, 1)).byte().permute(1, 2, 0)
        cv2.imwrite(str(directory / f"{index}.jpg"), bytes_.numpy())
