"""Keypoints and features of images on disk, each beside a SHA-256 of all that made it.

    OUT/features/<detector>/<image>.npz              keypoints
    OUT/features/<detector>/<describer>/<image>.npz  features at all of them, so that they depend on no pair

Descriptors are kept as float16: their rounding is a thousand times finer than their differences, and a data
set of pyramid features takes gigabytes otherwise. A file whose hash is not the expected one is refused, not
replaced: deleting it is the user's decision.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.errors import InputError
from lisrd.types import Keypoints, LocalFeatures, Selection
from lisrd.whole_file import whole_file, writing

#: Changes when the files' content does.
FORMAT = 2


class StaleCacheError(InputError):
    """Cached features were made by something else than what is evaluated now."""


@dataclass(frozen=True, slots=True, eq=False)
class DetectedImage:
    """The keypoints of one image, its size after preparation, and how it was prepared."""

    keypoints: Keypoints
    size: tuple[int, int]  # width, height
    transform: Float[Tensor, "3 3"]  # original to prepared pixels
    seconds: float
    digest: str


@dataclass(frozen=True, slots=True, eq=False)
class DescribedImage:
    """Features at all keypoints of one image, and how long describing them took."""

    features: LocalFeatures
    seconds: float


@dataclass(frozen=True, slots=True)
class FeatureCache:
    """Where the files of one detector lie."""

    folder: Path

    def keypoints_file(self, image_key: str) -> Path:
        return self.folder / f"{image_key}.npz"

    def features_file(self, describer: str, image_key: str, turn: int = 0) -> Path:
        return self.folder / file_name(describer) / f"{image_key}{f'-turn{turn}' if turn else ''}.npz"

    def keypoints(self, image_key: str, digest: str | None = None) -> DetectedImage | None:
        """None where there are none yet; raises `StaleCacheError` where `digest` is not theirs."""
        path = self.keypoints_file(image_key)
        arrays = _load(path, digest)
        with _errors_of(path):
            return None if arrays is None else _detected(arrays)

    def features(
        self, describer: str, image_key: str, keypoints: Keypoints, turn: int = 0
    ) -> DescribedImage | None:
        """Features at the image's (turned) keypoints, in float16; None where there are none yet."""
        path = self.features_file(describer, image_key, turn)
        arrays = _load(path, None)
        with _errors_of(path):
            return None if arrays is None else _described(arrays, keypoints)

    def has_features(self, describer: str, image_key: str, turn: int, digest: str) -> bool:
        """Whether they are there, without reading the descriptors; raises `StaleCacheError`."""
        return _stored_digest(self.features_file(describer, image_key, turn), digest) is not None

    def invariances(self, describer: str, image_key: str) -> tuple[str, ...]:
        """The descriptors of a bank, as its features name them."""
        path = self.features_file(describer, image_key)
        with _errors_of(path), np.load(path, allow_pickle=False) as file:
            return tuple(json.loads(str(file["about"]))["selection"]["invariances"])

    def store_keypoints(self, image_key: str, detected: DetectedImage) -> None:
        """Write them whole or not at all."""
        k = detected.keypoints
        optional = {"scales": k.scales, "oris": k.oris}
        arrays = {"xy": k.xy, "scores": k.scores, **{n: v for n, v in optional.items() if v is not None}}
        about = {"size": detected.size, "seconds": detected.seconds, "transform": detected.transform.tolist()}
        _store(self.keypoints_file(image_key), detected.digest, arrays, about)

    def store_features(
        self, describer: str, image_key: str, turn: int, described: DescribedImage, digest: str
    ) -> None:
        """Write them whole or not at all."""
        f = described.features
        about = {
            "selection": asdict(f.selection),
            "size": [int(v) for v in f.image_size[0].tolist()],
            "seconds": described.seconds,
        }
        names = ("descriptors", "meta_descriptors", "turned_descriptors", "turned_meta_descriptors")
        arrays = {name: value for name in names if (value := getattr(f, name)) is not None}
        _store(self.features_file(describer, image_key, turn), digest, arrays, about, half=True)


def file_name(name: str) -> str:
    """A describer's or detector's name as a folder's; where characters had to go, with its hash."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return safe if safe == name else f"{safe[:40]}-{sha256(name)[:8]}"


def sha256(*parts: Any) -> str:
    """One hash of texts, bytes, arrays and tensors."""
    total = hashlib.sha256()
    for part in parts:
        content = part.numpy().tobytes() if isinstance(part, Tensor) else part
        content = content if isinstance(content, bytes) else str(content).encode()
        total.update(hashlib.sha256(content).digest())  # hash of hashes: parts cannot run into each other
    return total.hexdigest()


def file_sha256(path: Path) -> str:
    """The hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """zipfile, zlib, numpy and json raise different things on a broken file; here they become one."""
    try:
        yield
    except Exception as error:
        raise StaleCacheError(f"{path} is broken ({error}): delete it and run again") from None


def _stored_digest(path: Path, expected: str | None) -> str | None:
    if not path.exists():
        return None
    with _errors_of(path), np.load(path, allow_pickle=False) as file:
        stored = str(file["digest"])
    if expected is not None and stored != expected:
        raise StaleCacheError(
            f"{path} was made by something else (describer, weights, keypoints or image have changed since): "
            f"delete {path.parent} or choose another --out"
        )
    return stored


def _load(path: Path, expected: str | None) -> dict[str, Any] | None:
    if _stored_digest(path, expected) is None:
        return None
    with _errors_of(path), np.load(path, allow_pickle=False) as file:
        arrays: dict[str, Any] = {
            n: torch.from_numpy(file[n]) for n in file.files if n not in ("digest", "about")
        }
        return {**arrays, **json.loads(str(file["about"])), "digest": str(file["digest"])}


def _store(
    path: Path, digest: str, arrays: dict[str, Tensor], about: dict[str, Any], half: bool = False
) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {n: (v.half() if half else v).detach().cpu().numpy() for n, v in arrays.items()}
    with whole_file(path) as partial:
        np.savez(partial, digest=np.array(digest), about=np.array(json.dumps(about)), **values)


def _detected(arrays: dict[str, Any]) -> DetectedImage:
    xy, scores = arrays["xy"], arrays["scores"]
    mask = torch.ones_like(scores, dtype=torch.bool)
    keypoints = Keypoints(xy, scores, mask, arrays.get("scales"), arrays.get("oris"))
    width, height = arrays["size"]
    transform = torch.tensor(arrays["transform"], dtype=torch.float64)
    return DetectedImage(keypoints, (width, height), transform, arrays["seconds"], arrays["digest"])


def _described(arrays: dict[str, Any], keypoints: Keypoints) -> DescribedImage:
    stored: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in arrays["selection"].items()
    }
    features = LocalFeatures(
        keypoints=keypoints.xy,
        keypoint_scores=keypoints.scores,
        descriptors=arrays["descriptors"],
        meta_descriptors=arrays["meta_descriptors"],
        image_size=torch.tensor([arrays["size"]], dtype=torch.float32),
        mask=keypoints.mask,
        selection=Selection(**stored),
        scales=keypoints.scales,
        oris=keypoints.oris,
        turned_descriptors=arrays.get("turned_descriptors"),
        turned_meta_descriptors=arrays.get("turned_meta_descriptors"),
    )
    return DescribedImage(features, arrays["seconds"])
