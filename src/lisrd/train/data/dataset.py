"""Samples for training, made on the CPU by workers: a random crop, its other light, and its keypoints.

A sample is a *canvas*: the anchor crop in the middle of a larger piece of the same photograph, so that views
warped from it show real pixels beyond the anchor's border as far as the photograph goes, and black beyond.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lisrd.errors import InputError
from lisrd.train.data.crops import keypoints_in_crop, random_crop, spread
from lisrd.train.data.keypoint_cache import KeypointCache
from lisrd.train.data.photo_cache import PhotoCache
from lisrd.train.data.sources import Mixture, SourceConfig

Sample = dict[str, Tensor]

_CROPS = 4  # tried in one photograph, which may be half sky
_LEAST: dict[str, float] = {
    "height": 32,  # the coarsest map of `pyramid` has a pixel then
    "width": 32,
    "num_keypoints": 1,
    "min_keypoints": 1,
    "lasting": 0,
    "canvas": 1,
    "short_side": 32,
    "cache_megabytes": 0,
}
_ATTEMPTS = 50  # draws until a sample has a readable photograph with enough keypoints


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What a sample is made of; sizes in pixels.

    `canvas` is the side of the canvas over that of the crop. Photographs are shrunk to `short_side` when
    read, which bounds how much a crop is reduced. `cache_megabytes` is per worker. Of several detectors, named with
    commas between them, each sample takes the keypoints of one.
    `lasting`: see `KeypointCache`.
    """

    sources: tuple[SourceConfig, ...] = ()
    height: int = 240
    width: int = 320
    num_keypoints: int = 512
    min_keypoints: int = 32
    detector: str = "sift"
    lasting: float = 0.25
    canvas: float = 1.4
    short_side: int = 400
    cache_megabytes: float = 1024.0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if not value >= least:
                raise ValueError(f"{name} is {value}; it must be {least} or more")
        if not self.lasting <= 1:
            raise ValueError(f"lasting is {self.lasting}; it must be a share, from 0 to 1")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the crop."""
        return self.height, self.width

    @property
    def margin(self) -> tuple[int, int]:
        """(top, left) of the crop in the canvas."""
        return round(self.height * (self.canvas - 1) / 2), round(self.width * (self.canvas - 1) / 2)


class TripletDataset(Dataset[Sample]):
    """What triplets are made of, as a pure function of (seed, index), for any index from 0.

    A sample has, for a canvas of h x w and a crop of H x W pixels in its middle:
    `image0` uint8 (3, h, w); `other` the same under another light, equal to `image0` where there is none;
    `has_other` bool; `keypoints0` float32 (N, 2) in pixels of the crop, with `keypoint_mask` bool (N,),
    `scales` and `oris` float32 (N,), NaN where the detector has none; all padded with zeros.
    """

    def __init__(self, mixture: Mixture, config: DataConfig = DataConfig(), seed: int = 0) -> None:
        self.mixture = mixture
        self.config = config
        self.seed = seed
        self._photos = PhotoCache(config.short_side, config.cache_megabytes)
        self._keypoints = [
            KeypointCache(self._photos, name.strip(), config.lasting) for name in config.detector.split(",")
        ]

    def keep_keypoints(self, directory: Path) -> None:
        """Keep what is detected in files there, for other workers and other runs."""
        for cache in self._keypoints:
            cache.directory = directory

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def sample(self, index: int) -> Sample:
        """Raises InputError when the sources have hardly any readable photograph with keypoints."""
        rng = np.random.default_rng((self.seed, index))
        for _ in range(_ATTEMPTS):
            sample = self._attempt(rng)
            if sample is not None:
                return sample
        raise InputError(
            f"{_ATTEMPTS} photographs in a row were broken or had fewer than {self.config.min_keypoints}"
            " keypoints; check the training images, or lower min_keypoints"
        )

    def _attempt(self, rng: np.random.Generator) -> Sample | None:
        scene = self.mixture.draw(rng)
        paths = [scene[i] for i in rng.permutation(len(scene))[:2]]
        photos = [photo for path in paths if (photo := self._photos.read(path)) is not None]
        if len(photos) < len(paths) or photos[0].shape != photos[-1].shape:
            return None
        cache = self._keypoints[rng.integers(len(self._keypoints)) if len(self._keypoints) > 1 else 0]
        found = self._crop(cache.in_scene(paths[0], photos[0], scene), photos[0].shape[:2], rng)
        if found is None:
            return None
        transform, keypoints = found
        canvases = [self._canvas(photo, transform) for photo in photos]
        return {
            "image0": canvases[0],
            "other": canvases[-1],
            "has_other": torch.tensor(len(photos) > 1),
            **_padded(keypoints, self.config.num_keypoints),
        }

    def _crop(
        self, keypoints: Float[np.ndarray, "n 4"], photo_size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "2 3"], Float[np.ndarray, "m 4"]] | None:
        """The first of a few crops that has enough keypoints, and these."""
        size, config = self.config.size, self.config
        for _ in range(_CROPS):
            transform = random_crop(photo_size, size, rng)
            inside = keypoints_in_crop(keypoints, transform, size)
            if len(inside) >= config.min_keypoints:
                return transform, inside[spread(inside[:, :2], size, config.num_keypoints)]
        return None

    def _canvas(self, photo: UInt8[np.ndarray, "h w 3"], transform: Float[np.ndarray, "2 3"]) -> Tensor:
        (height, width), (top, left) = self.config.size, self.config.margin
        to_canvas = transform + np.array([[0, 0, left], [0, 0, top]])
        size = (width + 2 * left, height + 2 * top)
        warped = cv2.warpAffine(photo, to_canvas, size, flags=cv2.INTER_LINEAR)
        return torch.from_numpy(warped).permute(2, 0, 1).contiguous()


def _padded(keypoints: Float[np.ndarray, "n 4"], length: int) -> Sample:
    rows = torch.zeros(length, 4)
    rows[: len(keypoints)] = torch.from_numpy(keypoints).float()
    mask = torch.arange(length) < len(keypoints)
    return {"keypoints0": rows[:, :2], "keypoint_mask": mask, "scales": rows[:, 2], "oris": rows[:, 3]}


def collate(samples: Sequence[Sample]) -> Sample:
    """Samples stacked along a new first axis."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


class _Steps:
    """The sample numbers of every step: rank r of R takes the r-th part of its R x batch_size samples."""

    def __init__(self, batch_size: int, start: int, stop: int | None, rank: int, world_size: int) -> None:
        self.batch_size, self.start, self.stop = batch_size, start, stop
        self.rank, self.world_size = rank, world_size

    def __iter__(self) -> Iterator[list[int]]:
        for step in count(self.start) if self.stop is None else range(self.start, self.stop):
            first = (step * self.world_size + self.rank) * self.batch_size
            yield list(range(first, first + self.batch_size))


def triplet_loader(
    dataset: TripletDataset,
    batch_size: int,
    workers: int = 0,
    start_step: int = 0,
    *,
    num_steps: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader[Sample]:
    """Batches from `start_step` on, without end or `num_steps` of them, the same for any number of workers.

    The processes of one training share a step's samples: rank 0 of 2 with batch 8 sees the first half of what
    one process with batch 16 sees.
    """
    stop = None if num_steps is None else start_step + num_steps
    return DataLoader(
        dataset,
        batch_sampler=_Steps(batch_size, start_step, stop, rank, world_size),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_prepare_worker if workers else None,
        # Forked workers hang where torch or OpenCV threads ran in the parent.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # starting workers would draw from the trainer's random numbers
    )


def _prepare_worker(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    sys.excepthook = _unless_nobody_listens


def _unless_nobody_listens(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A trainer that was interrupted fetches no more batches: nothing that the user need read about."""
    if not issubclass(kind, ConnectionError):
        sys.__excepthook__(kind, error, trace)
