"""The evidence of all pairs of a collection, put together: its weights, its turned images, its changes of light."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from lisrd.diagnose.evidence import PairEvidence, pair_evidence
from lisrd.diagnose.rotation import image_angles
from lisrd.errors import InputError
from lisrd.scale import read_features, read_matches
from lisrd.scale.layout import stored_direction
from lisrd.scale.pairs import Pair
from lisrd.scale.work import Progress

#: Degrees from which an image counts as turned: rotation variant descriptors bear less.
TURNED = 20.0
#: `PairEvidence.light_change` from which the light counts as changed. `pyramid` gives at most 0.02 between a photograph
#: and the same by another camera, upright or askew by 15 degrees; at 30 and 45 degrees 0.03 in the median and 0.09 at
#: worst; between a webcam's photographs of different days 0.13 in the median, above 0.09 in nine of ten pairs
#: (`python -m benchmarks.calibrate_light ROOT`, training images).
LIGHT_CHANGED = 0.06

_CACHED_IMAGES = 64


@dataclass(frozen=True, slots=True)
class WeightSummary:
    """The mean weights of one invariance in the verified pairs; `wins` is the share in which it has the highest."""

    invariance: str
    mean: float
    low: float  # of one in ten pairs less
    median: float
    high: float  # of one in ten pairs more
    wins: float


@dataclass(frozen=True, slots=True)
class ImageFinding:
    """One image against the others of its group, the images that verified pairs connect.

    `angle` (degrees, clockwise) is how far it is turned against most of its group; `disagreement` the median by which
    its pairs contradict that. `light_change` is the median over its verified pairs.
    """

    name: str
    verified_pairs: int
    group: int
    angle: float | None
    disagreement: float | None
    light_change: float | None

    @property
    def turned(self) -> bool:
        return self.angle is not None and abs(self.angle) > TURNED

    @property
    def other_light(self) -> bool:
        return self.light_change is not None and self.light_change > LIGHT_CHANGED


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the pairs and the images of a collection show; `weights` are empty where no pair was verified."""

    invariances: tuple[str, ...]
    pairs: tuple[PairEvidence, ...]
    images: tuple[ImageFinding, ...]
    weights: tuple[WeightSummary, ...] = field(default=())

    @property
    def verified(self) -> list[PairEvidence]:
        return [pair for pair in self.pairs if pair.verified]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON, with what is suspected."""
        images = [
            {**asdict(image), "turned": image.turned, "other_light": image.other_light}
            for image in self.images
        ]
        return {**asdict(self), "images": images}


def diagnose(
    features: Path, matches: Path, pairs: Sequence[Pair], on_progress: Progress | None = None
) -> Diagnosis:
    """The diagnosis of a collection from the files of `lisrd extract` and `lisrd match-pairs`.

    Raises:
        InputError: no pairs, files that lack some of them, or a describer without a choice of invariances.
    """
    if not pairs:
        raise InputError("no pairs to diagnose by; give at least two images that show one place")
    unique = list({frozenset(pair): pair for pair in pairs}.values())
    invariances = _invariances(features, unique[0][0])
    evidence = []
    for pair in _evidence(features, matches, unique):
        evidence.append(pair)
        if on_progress:
            on_progress(len(evidence), len(unique))
    return Diagnosis(invariances, tuple(evidence), _findings(evidence), _summaries(evidence, invariances))


def _invariances(features: Path, name: str) -> tuple[str, ...]:
    names = read_features(features, name).invariances
    if len(names) == 1:
        raise InputError(
            f"{features} was made by {names[0]}, which has no invariances to choose from: "
            "extract with pyramid, paper or a bank"
        )
    return names


def _evidence(features: Path, matches: Path, pairs: Sequence[Pair]) -> Iterator[PairEvidence]:
    read = lru_cache(_CACHED_IMAGES)(partial(read_features, features))
    for pair in pairs:
        name0, name1 = stored_direction(matches, pair)
        features0, features1 = read(name0), read(name1)
        found = read_matches(matches, name0, name1, features1.keypoints.shape[1])
        yield pair_evidence((name0, name1), features0, features1, found)


def _summaries(evidence: Sequence[PairEvidence], invariances: tuple[str, ...]) -> tuple[WeightSummary, ...]:
    weights = np.array([pair.weights for pair in evidence if pair.verified])
    if not len(weights):
        return ()
    low, median, high = np.quantile(weights, (0.1, 0.5, 0.9), axis=0)
    wins = np.bincount(weights.argmax(1), minlength=len(invariances)) / len(weights)
    columns = zip(invariances, weights.mean(0), low, median, high, wins, strict=True)
    return tuple(WeightSummary(name, *map(float, numbers)) for name, *numbers in columns)


def _findings(evidence: Sequence[PairEvidence]) -> tuple[ImageFinding, ...]:
    names = sorted({name for pair in evidence for name in pair.names})
    number = {name: index for index, name in enumerate(names)}
    turned = [pair for pair in evidence if pair.angle is not None]
    ends = np.array([[number[name] for name in pair.names] for pair in turned], dtype=int).reshape(-1, 2)
    relative = np.array([pair.angle for pair in turned], dtype=float)
    inliers = np.array([pair.inliers for pair in turned], dtype=float)
    angles, groups = image_angles(ends, relative, inliers, len(names))
    contradictions = np.abs((angles[ends[:, 1]] - angles[ends[:, 0]] - relative + 180) % 360 - 180)
    of_image = _by_image(turned)
    return tuple(
        ImageFinding(
            name,
            len(of_image[name]),
            int(groups[i]),
            _median([angles[i]] if of_image[name] else []),
            _median(contradictions[of_image[name]].tolist()),
            _median([change for p in of_image[name] if (change := turned[p].light_change) is not None]),
        )
        for i, name in enumerate(names)
    )


def _by_image(pairs: Sequence[PairEvidence]) -> dict[str, list[int]]:
    """The indices of every image's pairs."""
    found: dict[str, list[int]] = defaultdict(list)
    for index, pair in enumerate(pairs):
        for name in pair.names:
            found[name].append(index)
    return found


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if len(values) else None
