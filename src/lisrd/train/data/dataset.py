"""Samples for training, made on the CPU by workers: a random crop, its other light, and its keypoints.

A sample is a *canvas*: the anchor crop in the middle of a larger piece of the same photograph, so that views warped
from it show real pixels beyond the anchor's border as far as the photograph goes, and black beyond that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lisrd.errors import InputError
from lisrd.train.data.photo_cache import KeypointCache, PhotoCache
from lisrd.train.data.sources import Mixture, SourceConfig

Sample = dict[str, Tensor]

_BORDER = 3  # keypoints closer to the border, in pixels, are of no use to any loss
_ATTEMPTS = 50  # draws until a sample has a readable photograph with enough keypoints
_TILES = 3  # per side; keypoints are spread over them


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What a sample is made of; sizes in pixels.

    `canvas` is the side of the canvas over that of the crop. Photographs are shrunk to `short_side` when read, which
    bounds how far a crop is below the photograph's resolution. `cache_megabytes` is per worker.
    """

    sources: tuple[SourceConfig, ...] = ()
    height: int = 240
    width: int = 320
    num_keypoints: int = 512
    min_keypoints: int = 32
    detector: str = "sift"
    canvas: float = 1.4
    short_side: int = 400
    cache_megabytes: float = 1024

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
    `has_other` bool; `keypoints0` float32 (N, 2) in pixels of the crop, with `keypoint_mask` bool (N,), `scales`
    and `oris` float32 (N,), padded with zeros.
    """

    def __init__(self, mixture: Mixture, config: DataConfig = DataConfig(), seed: int = 0) -> None:
        self.mixture = mixture
        self.config = config
        self.seed = seed
        self._photos = PhotoCache(config.short_side, config.cache_megabytes)
        self._keypoints = KeypointCache(config.detector)

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
            f"{_ATTEMPTS} photographs in a row were broken or had fewer than {self.config.min_keypoints} keypoints;"
            " check the training images, or lower min_keypoints"
        )

    def _attempt(self, rng: np.random.Generator) -> Sample | None:
        scene = self.mixture.draw(rng)
        paths = [scene[i] for i in rng.permutation(len(scene))[:2]]
        photos = [self._photos.read(path) for path in paths]
        anchor = photos[0]
        if any(photo is None or photo.shape != anchor.shape for photo in photos):  # type: ignore[union-attr]
            return None
        transform = _random_crop(anchor.shape[:2], self.config, rng)
        keypoints = self._keypoints_in_crop(paths[0], anchor, transform)
        if len(keypoints) < self.config.min_keypoints:
            return None
        canvases = [self._canvas(photo, transform) for photo in photos]
        return {
            "image0": canvases[0],
            "other": canvases[-1],
            "has_other": torch.tensor(len(photos) > 1),
            **_padded(keypoints, self.config.num_keypoints),
        }

    def _canvas(self, photo: UInt8[np.ndarray, "h w 3"], transform: Float[np.ndarray, "2 3"]) -> Tensor:
        (height, width), (top, left) = self.config.size, self.config.margin
        to_canvas = transform + [[0, 0, left], [0, 0, top]]
        size = (width + 2 * left, height + 2 * top)
        warped = cv2.warpAffine(photo, to_canvas, size, flags=cv2.INTER_LINEAR)
        return torch.from_numpy(warped).permute(2, 0, 1).contiguous()

    def _keypoints_in_crop(
        self, path: Path, photo: UInt8[np.ndarray, "h w 3"], transform: Float[np.ndarray, "2 3"]
    ) -> Float[np.ndarray, "n 4"]:
        x, y, scale, ori = self._keypoints.of(path, photo).T
        zoom, flipped = transform[1, 1], transform[0, 0] < 0
        x, y = transform[0, 0] * x + transform[0, 2], zoom * y + transform[1, 2]
        keypoints = np.column_stack([x, y, zoom * scale, np.pi - ori if flipped else ori])
        height, width = self.config.size
        inside = (x >= _BORDER) & (x <= width - 1 - _BORDER) & (y >= _BORDER) & (y <= height - 1 - _BORDER)
        keypoints = keypoints[inside]
        return keypoints[_spread(keypoints[:, :2], width, height, self.config.num_keypoints)]


def _random_crop(
    photo_size: tuple[int, int], config: DataConfig, rng: np.random.Generator
) -> Float[np.ndarray, "2 3"]:
    """Affine map from photograph to crop: a window between the crop's own size and the largest, half of them flipped.

    A photograph smaller than the crop is enlarged.
    """
    photo_height, photo_width = photo_size
    largest = min(photo_height / config.height, photo_width / config.width)
    window = largest if largest <= 1 else np.exp(rng.uniform(0, np.log(largest)))
    left = rng.uniform(0, photo_width - window * config.width)
    top = rng.uniform(0, photo_height - window * config.height)
    # Pixel areas: x' + 0.5 = (x + 0.5 - left) / window.
    transform = np.array([[1, 0, 0.5 - left], [0, 1, 0.5 - top]]) / window - [[0, 0, 0.5], [0, 0, 0.5]]
    if rng.random() < 0.5:
        transform[0] = [-transform[0, 0], 0, config.width - 1 - transform[0, 2]]
    return transform


def _spread(xy: Float[np.ndarray, "n 2"], width: int, height: int, limit: int) -> np.ndarray:
    """Indices of at most `limit` keypoints: the strongest of every tile first, then the strongest of the rest."""
    column, row = (xy / [width, height] * _TILES).astype(int).T
    tile = row * _TILES + column
    rank = np.zeros(len(xy), int)
    for t in range(_TILES**2):
        rank[tile == t] = np.arange((tile == t).sum())
    beyond_share = rank >= limit // _TILES**2
    return np.sort(np.argsort(beyond_share, kind="stable")[:limit])


def _padded(keypoints: Float[np.ndarray, "n 4"], length: int) -> Sample:
    rows = torch.zeros(length, 4)
    rows[: len(keypoints)] = torch.from_numpy(keypoints).float()
    mask = torch.arange(length) < len(keypoints)
    return {"keypoints0": rows[:, :2], "keypoint_mask": mask, "scales": rows[:, 2], "oris": rows[:, 3]}


def collate(samples: Sequence[Sample]) -> Sample:
    """Samples stacked along a new first axis."""
    return {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


class _Steps:
    """The sample numbers of every step: rank r of R takes the r-th part of the R x batch_size samples of a step."""

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
    """Batches from step `start_step` on, without end or `num_steps` of them, the same for any number of workers.

    The processes of one training share a step's samples: rank 0 of 2 with batch 8 sees the first half of what
    one process with batch 16 sees.
    """
    stop = None if num_steps is None else start_step + num_steps
    return DataLoader(
        dataset,
        batch_sampler=_Steps(batch_size, start_step, stop, rank, world_size),  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=_one_thread if workers else None,
        # Forked workers hang where torch or OpenCV threads ran in the parent.
        multiprocessing_context="spawn" if workers else None,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # otherwise starting the workers would draw from the trainer's random numbers
    )


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
