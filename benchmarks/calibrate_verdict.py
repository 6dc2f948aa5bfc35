"""The numbers of `lisrd.verify.verdict`: python -m benchmarks.calibrate_verdict ROOT [--describers a,b]

The verdict judges what the geometry stage sees before it refines and guides. ROOT holds `hpatches_style` and
`rotated_webcam`. True pairs are those of these sets whose homography came out right (verifiable: mean corner error
below `RIGHT` pixels); false pairs take two images of different scenes.
"""

from __future__ import annotations

import argparse
import random
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from lisrd import LISRD, LocalFeatures, match
from lisrd.evaluate.datasets import load_pairs
from lisrd.evaluate.datasets.records import EvaluationImage, EvaluationPair
from lisrd.verify import Steps, verify_pair
from lisrd.verify.geometry import Kind, project
from lisrd.verify.verdict import evidence

RIGHT = 10.0
#: Keypoints per image: wrong matches agree by chance the more often, the more there are.
COUNTS = (500, 2000)
KINDS: tuple[Kind, ...] = ("homography", "fundamental")
#: Of the default stage, what comes before the verdict.
BEFORE_THE_VERDICT = Steps(refine="off", guided="off")
#: Shares of the false pairs above the lower and of the verifiable true pairs below the upper probability.
FALSE_YES, FALSE_NO = 0.005, 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Evidence per pair and kind, whether the pair is true, and whether that can be verified."""

    facts: dict[Kind, Float[np.ndarray, "P 3"]]
    true: Bool[np.ndarray, " P"]
    verifiable: Bool[np.ndarray, " P"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--describers", default="root-sift,pyramid")
    parser.add_argument("--false-pairs", type=int, default=200)
    parser.add_argument("--every", type=int, default=4, help="take each n-th of the webcam pairs")
    options = parser.parse_args()
    true = load_pairs(options.root / "hpatches_style", "hpatches")
    true += load_pairs(options.root / "rotated_webcam", "rdnim")[:: options.every]
    false = false_pairs(true, options.false_pairs)
    parts = [measure(name, true, false) for name in options.describers.split(",")]
    report(parts, options.describers.split(","))


def false_pairs(pairs: list[EvaluationPair], count: int) -> list[tuple[EvaluationImage, EvaluationImage]]:
    """Images of different scenes; "i_stlouis_0" and "stlouis" are one scene, seen by one camera."""
    images = {(place(pair.scene), image) for pair in pairs for image in (pair.image0, pair.image1)}
    scenes: dict[str, list[EvaluationImage]] = {}
    for scene, image in sorted(images, key=lambda entry: str(entry[1].path)):
        scenes.setdefault(scene, []).append(image)
    draw = random.Random(0)
    chosen = [draw.sample(sorted(scenes), 2) for _ in range(count)]
    return [(draw.choice(scenes[a]), draw.choice(scenes[b])) for a, b in chosen]


def place(scene: str) -> str:
    return re.sub(r"^[iv]_|_\d+$", "", scene)


def measure(
    describer: str, true: list[EvaluationPair], false: list[tuple[EvaluationImage, EvaluationImage]]
) -> Rows:
    """Evidence of every pair with one describer on SIFT's keypoints."""
    model = LISRD.from_pretrained(describer)
    known: dict[str, LocalFeatures] = {}
    found = []
    pairs = [(p.image0, p.image1, p) for p in true] + [(a, b, None) for a, b in false]
    for image0, image1, truth in pairs:
        for image in (image0, image1):
            if image.key not in known:
                known[image.key] = model.describe(image.read()[0], max_keypoints=max(COUNTS))
        for count in COUNTS:
            features0, features1 = (_strongest(known[image.key], count) for image in (image0, image1))
            images = image0.path, image1.path
            found.append((*_row(images, features0, features1, truth), truth is not None))
    facts = {kind: np.array([row[0][kind] for row in found]) for kind in KINDS}
    return Rows(facts, np.array([row[2] for row in found]), np.array([row[1] for row in found]))


def _strongest(features: LocalFeatures, count: int) -> LocalFeatures:
    """The first keypoints, which detectors sort by strength; the others are masked."""
    among = torch.arange(features.mask.shape[1]) < count
    return replace(features, mask=features.mask & among)


def _row(
    images: tuple[Path, Path],
    features0: LocalFeatures,
    features1: LocalFeatures,
    truth: EvaluationPair | None,
) -> tuple[dict[Kind, np.ndarray], bool]:
    matches = match(features0, features1)
    found = {
        kind: verify_pair(*images, features0, features1, matches, kind, BEFORE_THE_VERDICT) for kind in KINDS
    }
    facts = {kind: evidence(pair.geometry, pair.points0, pair.points1) for kind, pair in found.items()}
    model = found["homography"].geometry.model
    return facts, truth is not None and model is not None and _right(model, features0, truth)


def _right(model: np.ndarray, features0: LocalFeatures, truth: EvaluationPair) -> bool:
    T0, T1 = (image.read()[1].numpy() for image in (truth.image0, truth.image1))
    assert truth.H_0to1 is not None
    H = T1 @ truth.H_0to1.numpy() @ np.linalg.inv(T0)
    width, height = features0.image_size[0].numpy() - 1
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    return bool(np.linalg.norm(project(corners, model) - project(corners, H), axis=1).mean() < RIGHT)


def report(parts: list[Rows], names: list[str]) -> None:
    """The line for CALIBRATIONS of each kind of model, and the rates by describer."""
    true, verifiable = (np.concatenate([getattr(p, key) for p in parts]) for key in ("true", "verifiable"))
    used = verifiable | ~true  # true pairs that went wrong are no example of either
    for kind in KINDS:
        facts = np.concatenate([p.facts[kind] for p in parts])
        bias, *weights = logistic_fit(facts[used], true[used])
        probability = sigmoid(bias + facts @ weights)
        # Between what false pairs reach and what true pairs fall below, or the other way round, lies "unsure".
        chance = float(np.quantile(probability[~true], 1 - FALSE_YES))
        truth = float(np.quantile(probability[verifiable], FALSE_NO))
        yes, no = max(chance, truth), min(chance, truth)
        rounded = ", ".join(f"{w:.2f}" for w in weights)
        print(f'"{kind}": Calibration(bias={bias:.2f}, weights=({rounded}), yes={yes:.4f}, no={no:.4f}),')
        for name, part in zip(names, parts, strict=True):
            says_yes = sigmoid(bias + part.facts[kind] @ weights) >= yes
            print(
                f"  {name}: {says_yes[~part.true].mean():.1%} of {(~part.true).sum()} false pairs called one "
                f"place, {says_yes[part.verifiable].mean():.1%} of {part.verifiable.sum()} verifiable kept"
            )


def logistic_fit(
    facts: Float[np.ndarray, "P F"], labels: Bool[np.ndarray, " P"]
) -> Float[np.ndarray, " F+1"]:
    """Bias and weights by Newton's method; both classes weigh the same, a ridge keeps separable data finite."""
    design = np.hstack([np.ones((len(facts), 1)), facts])
    balance = np.where(labels, 0.5 / labels.mean(), 0.5 / (1 - labels.mean()))
    ridge = 1e-2 * np.eye(design.shape[1])
    solution = np.zeros(design.shape[1])
    for _ in range(50):
        probability = sigmoid(design @ solution)
        gradient = design.T @ (balance * (probability - labels)) + ridge @ solution
        curvature = (design.T * (balance * probability * (1 - probability))) @ design + ridge
        solution = solution - np.linalg.solve(curvature, gradient)
    return solution


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logit, -50, 50)))


if __name__ == "__main__":
    main()
