"""Every reader of files from outside: the call that reads a path, and valid files to mutate.

A reader keeps its promise when any bytes at all give a result or an `InputError`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import seeds
import torch
from torch import nn

from lisrd.adapters.colmap_database import read_matches
from lisrd.describe.weights import load_network, read_metadata
from lisrd.detect.weights import load_weights
from lisrd.errors import InputError
from lisrd.evaluate import compare
from lisrd.evaluate.cache import FeatureCache
from lisrd.evaluate.datasets.homography_pairs import homography_pairs
from lisrd.evaluate.datasets.pose_pairs import pose_pairs
from lisrd.evaluate.datasets.rdnim import rdnim_pairs
from lisrd.evaluate.datasets.records import read_homography
from lisrd.image import read_image
from lisrd.scale import image_names, read_features, read_pairs, similar_pairs
from lisrd.scale.images import find_images
from lisrd.scale.store import ResumableStore, open_h5
from lisrd.tensor_files import read_pickled_tensors
from lisrd.train.bank_config import load_bank_config
from lisrd.train.checkpoint import load_checkpoint
from lisrd.train.config import load_config
from lisrd.types import Keypoints


@dataclass(frozen=True, slots=True)
class Reader:
    """`file` is where in an empty folder the bytes go; `seeds` gives valid contents.

    `in_hdf5` says that the HDF5 library parses them, whose own endless loops and crashes are beyond our mending.
    """

    file: str
    read: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]
    in_hdf5: bool = False

    def accepts(self, content: bytes, folder: Path) -> bool:
        """Whether these bytes are valid; raises what the reader must not raise."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        try:
            self.read(path)
        except InputError:
            return False
        return True


def _features(path: Path) -> None:
    for name in image_names(path):
        read_features(path, name)
    similar_pairs(path, top_k=1)


def _matches(path: Path) -> None:
    with open_h5(path) as file:
        read_matches(file, "a", "b")


def _store(path: Path) -> None:
    with ResumableStore(path, {"kind": "fuzzed"}) as store:
        store.write("another", {"values": h5py.Empty("f")})
    path.unlink()


def _cached_keypoints(path: Path) -> None:
    FeatureCache(path.parent).keypoints(path.stem)


def _cached_features(path: Path) -> None:
    cache = FeatureCache(path.parent.parent)
    cache.features(path.parent.name, path.stem, Keypoints.from_xy(torch.zeros(2, 2)))
    cache.invariances(path.parent.name, path.stem)


def _weights(path: Path) -> None:
    read_metadata(path)
    load_network(path)


def _time_stamps(path: Path) -> None:
    images = path.parent.parent / "images" / path.stem
    images.mkdir(parents=True, exist_ok=True)
    (path.parent.parent / "references").mkdir(exist_ok=True)
    (images / "a.jpg").touch()
    rdnim_pairs(path.parent.parent)


READERS = {
    "image": Reader("image", read_image, seeds.images),
    "features": Reader("features.h5", _features, seeds.features, in_hdf5=True),
    "matches": Reader("matches.h5", _matches, seeds.matches, in_hdf5=True),
    "store": Reader("store.h5", _store, seeds.store, in_hdf5=True),
    "cached-keypoints": Reader("image.npz", _cached_keypoints, seeds.cached_keypoints),
    "cached-features": Reader("small/image.npz", _cached_features, seeds.cached_features),
    "weights": Reader("weights.safetensors", _weights, seeds.weights),
    "checkpoint": Reader("checkpoint-0000001.safetensors", load_checkpoint, seeds.checkpoints),
    "pickled": Reader("network.pth", read_pickled_tensors, seeds.pickled),
    "detector-weights": Reader(
        "detector.pth", lambda path: load_weights(nn.Linear(2, 2), path, inside="state"), seeds.pickled
    ),
    "results": Reader("results.json", lambda path: compare(path, path), seeds.results),
    "training": Reader("training.toml", load_config, seeds.training),
    "bank-training": Reader("bank.toml", load_bank_config, seeds.bank_training),
    "pairs": Reader("pairs.txt", read_pairs, seeds.pairs),
    "image-list": Reader("images.txt", find_images, seeds.image_lists),
    "homography": Reader("H_1_2", read_homography, seeds.homographies),
    "homography-pairs": Reader(
        "pairs.txt", lambda path: homography_pairs(path.parent), seeds.homography_pairs
    ),
    "pose-pairs": Reader("pairs.txt", lambda path: pose_pairs(path.parent), seeds.pose_pairs),
    "time-stamps": Reader("time_stamps/a.txt", _time_stamps, seeds.time_stamps),
}
