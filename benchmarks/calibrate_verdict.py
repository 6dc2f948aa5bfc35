"""The numbers of `lisrd.verify.verdict`: python -m benchmarks.calibrate_verdict ROOT --out DIR [--describers a,b]

The verdict judges what the geometry stage sees before it refines and guides. ROOT holds `hpatches_style` and
`rotated_webcam`. True pairs are those of these sets whose homography came out right (verifiable: mean corner error
below `RIGHT` pixels); false pairs take two images of different scenes. DIR keeps features and the evidence of each
describer: a run that was stopped goes on. With new weights delete `DIR/features/sift/NAME`.
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from lisrd import LocalFeatures, match
from lisrd.evaluate.cache import FeatureCache, file_name, sha256
from lisrd.evaluate.common_pair import features_at
from lisrd.evaluate.datasets import load_pairs
from lisrd.evaluate.datasets.records import EvaluationImage, EvaluationPair
from lisrd.evaluate.identity import describer_digest, detector_digest
from lisrd.evaluate.pair_matcher import read_features
from lisrd.evaluate.predict import ImageJob, Predictor
from lisrd.verify import Steps, verify_pair
from lisrd.verify.geometry import Kind, project
from lisrd.verify.verdict import Calibration, evidence
from lisrd.whole_file import whole_file

RIGHT = 10.0
DETECTOR = "sift"
#: Keypoints per image: wrong matches agree by chance the more often, the more there are.
COUNTS = (500, 2000)
KINDS: tuple[Kind, ...] = ("homography", "fundamental")
#: Of the default stage, what comes before the verdict.
BEFORE_THE_VERDICT = Steps(refine="off", guided="off")
#: Shares of the false pairs above the lower and of the verifiable true pairs below the upper probability.
FALSE_YES, FALSE_NO = 0.005, 0.01


class Pair(NamedTuple):
    image0: EvaluationImage
    image1: EvaluationImage
    truth: EvaluationPair | None  # of two images of one place


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Evidence by each kind of model per pair, whether the pair is true, and whether that can be verified."""

    homography: Float[np.ndarray, "P 3"]
    fundamental: Float[np.ndarray, "P 3"]
    true: Bool[np.ndarray, " P"]
    verifiable: Bool[np.ndarray, " P"]
    places: np.ndarray  # (P, 2) names: where each image was taken

    @property
    def used(self) -> Bool[np.ndarray, " P"]:
        """Without true pairs that went wrong, which are no example of either."""
        return self.verifiable | ~self.true


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="keep features and evidence here")
    parser.add_argument("--describers", default="root-sift,pyramid")
    parser.add_argument("--false-pairs", type=int, default=200)
    parser.add_argument("--every", type=int, default=4, help="take each n-th of the webcam pairs")
    options = parser.parse_args()
    true = load_pairs(options.root / "hpatches_style", "hpatches")
    true += load_pairs(options.root / "rotated_webcam", "rdnim")[:: options.every]
    pairs = [Pair(pair.image0, pair.image1, pair) for pair in true]
    pairs += false_pairs(true, options.false_pairs)
    names = options.describers.split(",")
    report([kept(options.out, name, pairs) for name in names], names)


def kept(out: Path, describer: str, pairs: Sequence[Pair]) -> Rows:
    """The evidence of these weights on these pairs, measured unless DIR has it."""
    digest = sha256(
        describer_digest(describer), str(COUNTS), *(image.key for pair in pairs for image in pair[:2])
    )
    file = out / f"{file_name(describer)}-{digest[:16]}.npz"
    if not file.exists():
        rows = measure(describer, pairs, FeatureCache(out / "features" / DETECTOR))
        with whole_file(file) as partial:
            np.savez(partial, **asdict(rows))
    with np.load(file) as arrays:
        return Rows(**arrays)


def false_pairs(pairs: list[EvaluationPair], count: int) -> list[Pair]:
    """Images of different scenes; "i_stlouis_0" and "stlouis" are one scene, seen by one camera."""
    images = {(place(pair.scene), image) for pair in pairs for image in (pair.image0, pair.image1)}
    scenes: dict[str, list[EvaluationImage]] = {}
    for scene, image in sorted(images, key=lambda entry: str(entry[1].path)):
        scenes.setdefault(scene, []).append(image)
    draw = random.Random(0)
    chosen = [draw.sample(sorted(scenes), 2) for _ in range(count)]
    return [Pair(draw.choice(scenes[a]), draw.choice(scenes[b]), None) for a, b in chosen]


def place(scene: str) -> str:
    return re.sub(r"^[iv]_|_\d+$", "", scene)


def measure(describer: str, pairs: Sequence[Pair], cache: FeatureCache) -> Rows:
    """Evidence of every pair, with one describer on SIFT's keypoints."""
    digests = {describer: describer_digest(describer), DETECTOR: detector_digest(DETECTOR)}
    predictor = Predictor(cache, DETECTOR, digests)
    for image in {image.key: image for pair in pairs for image in pair[:2]}.values():
        predictor(ImageJob(image, ((describer, 0),)))
    found, places = [], []
    for pair in pairs:
        for count in COUNTS:
            features0, features1 = (_strongest(cache, describer, image, count) for image in pair[:2])
            found.append(_row(features0, features1, pair.truth))
            places.append([place(image.path.parent.name) for image in pair[:2]])
    columns = [np.array(column) for column in zip(*found, strict=True)]
    return Rows(*columns, np.array(places))


def _strongest(cache: FeatureCache, describer: str, image: EvaluationImage, count: int) -> LocalFeatures:
    features = read_features(cache, describer, image.key).features
    scores = features.keypoint_scores[0]
    return features_at(features, scores.topk(min(count, len(scores))).indices)


def _row(
    features0: LocalFeatures, features1: LocalFeatures, truth: EvaluationPair | None
) -> tuple[np.ndarray, np.ndarray, bool, bool]:
    """Evidence by both kinds of model, whether the pair is true, whether that can be verified."""
    pair = features0, features1, match(features0, features1)
    found = [verify_pair(None, None, *pair, kind, BEFORE_THE_VERDICT) for kind in KINDS]
    by_homography, by_lines = (evidence(one.geometry, one.points0, one.points1) for one in found)
    model = found[0].geometry.model
    is_right = truth is not None and model is not None and _right(model, features0, truth)
    return by_homography, by_lines, truth is not None, is_right


def _right(model: np.ndarray, features0: LocalFeatures, truth: EvaluationPair) -> bool:
    T0, T1 = (image.read()[1].numpy() for image in (truth.image0, truth.image1))
    assert truth.H_0to1 is not None
    H = T1 @ truth.H_0to1.numpy() @ np.linalg.inv(T0)
    width, height = features0.image_size[0].numpy() - 1
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    return bool(np.linalg.norm(project(corners, model) - project(corners, H), axis=1).mean() < RIGHT)


def report(parts: list[Rows], names: list[str]) -> None:
    """The line for CALIBRATIONS of each kind of model, and the rates: by describer, and of places it never saw."""
    for kind in KINDS:
        everything = [(getattr(part, kind), part) for part in parts]
        fitted = fit(everything)
        rounded = ", ".join(f"{w:.2f}" for w in fitted.weights)
        numbers = f"bias={fitted.bias:.2f}, weights=({rounded}), yes={fitted.yes:.4f}, no={fitted.no:.4f}"
        print(f'"{kind}": Calibration({numbers}),')
        for name, (facts, part) in zip(names, everything, strict=True):
            print(f"  {name}: {rates(probability(fitted, facts) >= fitted.yes, part)}")
        print(f"  places left out of the fit in turn: {rates_elsewhere(everything)}")


Evidence = list[tuple[Float[np.ndarray, "P 3"], Rows]]


def fit(parts: Evidence, without: str = "") -> Calibration:
    """From the pairs of which no image shows the place `without`."""
    chosen = [(part.places != without).all(1) & part.used for _, part in parts]
    facts = np.concatenate([facts[rows] for (facts, _), rows in zip(parts, chosen, strict=True)])
    true = np.concatenate([part.true[rows] for (_, part), rows in zip(parts, chosen, strict=True)])
    bias, *weights = (float(number) for number in logistic_fit(facts, true))
    fitted = Calibration(bias, (weights[0], weights[1], weights[2]), 0.5, 0.5)
    sure = probability(fitted, facts)
    # Between what false pairs reach and what true pairs fall below, or the other way round, lies "unsure".
    chance, truth = float(np.quantile(sure[~true], 1 - FALSE_YES)), float(np.quantile(sure[true], FALSE_NO))
    return replace(fitted, yes=max(chance, truth), no=min(chance, truth))


def probability(calibration: Calibration, facts: Float[np.ndarray, "P 3"]) -> Float[np.ndarray, " P"]:
    return sigmoid(calibration.bias + facts @ calibration.weights)


def rates(says_yes: Bool[np.ndarray, " P"], part: Rows) -> str:
    wrong, right = says_yes[~part.true], says_yes[part.verifiable]
    return (
        f"{wrong.mean():.1%} of {len(wrong)} false pairs called one place, "
        f"{right.mean():.1%} of {len(right)} verifiable kept"
    )


def rates_elsewhere(parts: Evidence) -> str:
    """Every pair judged by numbers that no pair of its places had a part in; a false pair has two."""
    wrong: list[bool] = []
    right: list[bool] = []
    for left_out in np.unique(np.concatenate([part.places for _, part in parts])):
        fitted = fit(parts, left_out)
        for facts, part in parts:
            there = (part.places == left_out).any(1)
            says_yes = probability(fitted, facts) >= fitted.yes
            wrong += says_yes[there & ~part.true].tolist()
            right += says_yes[there & part.verifiable].tolist()
    return f"{np.mean(wrong):.1%} of {len(wrong)} judgements of false pairs, {np.mean(right):.1%} of {len(right)} kept"


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
