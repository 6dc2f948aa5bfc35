"""What smaller octaves are worth where scales differ: python -m benchmarks.scale --data ROOT [--photographs 12]

Photographs kept out of training, each against wider views of it: reduced by a factor, turned by up to 20 degrees,
relit, on the middle of another photograph. Precision and recall of mutual nearest neighbours at 3 pixels among the
common keypoints of the evaluation, per cent; the octaves are chosen among all keypoints, as in use.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from benchmarks.known_warps import FINER, Change
from lisrd.coordinates import scale_transform, translation_transform
from lisrd.describe import Describer, build_describer
from lisrd.describe.octaves import with_smaller_octaves
from lisrd.detect import build_detector
from lisrd.evaluate.common_pair import features_at
from lisrd.evaluate.keypoints import common_keypoints
from lisrd.evaluate.metrics.matching import match_errors, precision, recall, true_partners
from lisrd.image import as_image, read_image
from lisrd.match import match
from lisrd.match.octave import choose_octaves, octave_pairs
from lisrd.train.data.sources import image_folder
from lisrd.types import LocalFeatures

FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)
SIZE = (480, 320)  # width, height
KEYPOINTS = 1200
LIGHT = Change(gain=0.75, offset=20.0, noise=3.0)

Photograph = UInt8[np.ndarray, "H W 3"]
Score = tuple[float, float]  # precision, recall


@dataclass(frozen=True, slots=True, eq=False)
class WidePair:
    """A photograph, a wider view that shows it smaller, and the homography between them."""

    image0: Photograph
    image1: Photograph
    H: Float[Tensor, "3 3"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="holds `images`, see configs/pyramid.toml")
    parser.add_argument("--describer", default="pyramid")
    parser.add_argument("--photographs", type=int, default=12)
    options = parser.parse_args()
    scenes = image_folder(options.data / "images", "val").scenes[: options.photographs + 1]
    photographs = [_fitted(read_image(scene[0])) for scene in scenes]
    describer, sift = build_describer(options.describer), build_describer("root-sift")
    rows: dict[float, list[dict[str, Score]]] = defaultdict(list)
    seconds = np.zeros(2)
    for index, photograph in enumerate(photographs[:-1]):
        rng = np.random.default_rng(index)
        for factor in FACTORS:
            pair = wide_pair(photograph, photographs[index + 1], factor, float(rng.uniform(-20, 20)))
            scores, spent = measure(pair, describer, sift)
            rows[factor].append(scores)
            seconds += spent
    report(rows)
    print(f"\ndescribing with the smaller octaves takes {seconds.sum() / seconds[0]:.2f} times the full size")


def wide_pair(photograph: Photograph, background: Photograph, factor: float, angle: float) -> WidePair:
    """The photograph, and one at 1 / factor of its size, turned by `angle` degrees, in the middle of another."""
    half = np.array(SIZE) / 2
    c, s = np.cos(np.radians(angle)) / factor, np.sin(np.radians(angle)) / factor
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    # Turned and scaled about the middle of the image, whose pixel areas begin at -0.5.
    middle = translation_transform(*(half - 0.5)).numpy()
    H = middle @ turn @ np.linalg.inv(middle)
    fine_size = (SIZE[0] * FINER, SIZE[1] * FINER)
    fine = cv2.resize(background, fine_size, interpolation=cv2.INTER_LINEAR)
    enlarge = scale_transform(FINER, FINER).numpy()
    cv2.warpPerspective(photograph, enlarge @ H, fine_size, dst=fine, borderMode=cv2.BORDER_TRANSPARENT)
    wide = LIGHT(cv2.resize(fine, SIZE, interpolation=cv2.INTER_AREA))
    return WidePair(photograph, wide, torch.from_numpy(H))


def measure(
    pair: WidePair, describer: Describer, sift: Describer
) -> tuple[dict[str, Score], Float[np.ndarray, "2"]]:
    """Scores by method, and the CPU seconds of describing the full size and the smaller octaves."""
    images = as_image(pair.image0), as_image(pair.image1)
    keypoints = [build_detector("sift")(image, KEYPOINTS) for image in images]
    start = time.process_time()
    full = [describer.describe(i, k) for i, k in zip(images, keypoints, strict=True)]
    described = time.process_time()
    octaves0, octaves1 = (with_smaller_octaves(describer, i, f) for i, f in zip(images, full, strict=True))
    seconds = np.array([described - start, time.process_time() - described])
    sifts = [sift.describe(i, k) for i, k in zip(images, keypoints, strict=True)]
    xy0, xy1 = keypoints[0].xy[0], keypoints[1].xy[0]
    common = common_keypoints(xy0, xy1, SIZE, SIZE, pair.H, KEYPOINTS)
    scores = {
        (k0, k1): _score(octaves0[k0], octaves1[k1], common, pair.H)
        for k0, k1 in octave_pairs(len(octaves0), len(octaves1))
    }
    methods = {
        "full size": scores[0, 0],
        "octaves chosen": scores[choose_octaves(octaves0, octaves1)],
        "best octaves": max(scores.values(), key=lambda score: score[1]),
        "root-sift": _score(sifts[0], sifts[1], common, pair.H),
    }
    return methods, seconds


def _score(
    features0: LocalFeatures,
    features1: LocalFeatures,
    common: tuple[Int[Tensor, " K0"], Int[Tensor, " K1"]],
    H: Float[Tensor, "3 3"],
) -> Score:
    shown0, shown1 = (features_at(f, index) for f, index in zip((features0, features1), common, strict=True))
    xy0, xy1 = shown0.keypoints[0], shown1.keypoints[0]
    matches = match(shown0, shown1).matches
    errors = match_errors(xy0, xy1, matches, H)
    return precision(errors), recall(matches, true_partners(xy0, xy1, H))


def report(rows: dict[float, list[dict[str, Score]]]) -> None:
    print(f"precision / recall, {len(next(iter(rows.values())))} photographs\n")
    print(
        f"| scale differs by | {' | '.join(f'{factor:g}' for factor in rows)} |\n|{' --- |' * (len(rows) + 1)}"
    )
    for name in next(iter(rows.values()))[0]:
        means = [100 * np.mean([scores[name] for scores in found], axis=0) for found in rows.values()]
        print(f"| {name} | {' | '.join(f'{p:.1f} / {r:.1f}' for p, r in means)} |")


def _fitted(photograph: Photograph) -> Photograph:
    """Landscape, reduced or enlarged until it covers SIZE, and cut."""
    if photograph.shape[0] > photograph.shape[1]:
        photograph = np.rot90(photograph)
    factor = max(SIZE[0] / photograph.shape[1], SIZE[1] / photograph.shape[0])
    size = tuple(int(np.ceil(factor * side)) for side in photograph.shape[1::-1])
    resized = cv2.resize(np.ascontiguousarray(photograph), size, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(resized[: SIZE[1], : SIZE[0]])


if __name__ == "__main__":
    main()
