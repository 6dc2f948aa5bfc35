"""`python -m benchmarks.precision ROOT`: what each arithmetic changes in the matches of real images, beside float64.

Every arithmetic describes the same keypoints, the common ones of the evaluation; the policy is the default.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import machine
from benchmarks.report import table
from lisrd.adapters.onnx import export_onnx
from lisrd.adapters.onnx.describer import DescriberGraph
from lisrd.adapters.onnx.matcher import MatcherGraph
from lisrd.describe.describer import NetworkDescriber
from lisrd.describe.weights import load_network
from lisrd.detect import build_detector
from lisrd.evaluate.cache import DetectedImage
from lisrd.evaluate.common_pair import CommonPair, common_pair
from lisrd.evaluate.datasets import load_pairs
from lisrd.evaluate.datasets.records import EvaluationImage, EvaluationPair
from lisrd.evaluate.metrics.matching import match_errors, precision, recall
from lisrd.image import as_image
from lisrd.match import Policy, match
from lisrd.types import Keypoints, LocalFeatures

REFERENCE = "float64"


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Features of an image at its keypoints, and (S, 2) matches of two such features, in one arithmetic."""

    name: str
    words: str
    describe: Callable[[Tensor, Keypoints], Any]
    match: Callable[[Any, Any], Tensor]


@dataclass(frozen=True, slots=True)
class Score:
    """One pair in one arithmetic; `equal` is the share of the matches of either that both have."""

    equal: float
    precision: float
    recall: float


def arithmetics(name: str, onnx: Path) -> Iterator[Arithmetic]:
    """The reference first. `onnx` is a folder of `lisrd export-onnx`."""
    double = DescriberGraph(load_network(name)).double()  # type: ignore[arg-type]
    yield Arithmetic(
        REFERENCE,
        "network and matching in float64",
        lambda image, keypoints: _named(double, keypoints, double(image.double(), keypoints.xy.double())),
        _graph_matcher(MatcherGraph(double.network.selection).double()),
    )
    yield Arithmetic("float32", "the default without bfloat16 units", *_torch(name, "float32"))
    yield Arithmetic(
        "float32, convolutions in TF32", "the default on an NVIDIA GPU, emulated", *_convolved_in_tf32(name)
    )
    rounded = NetworkDescriber(name, _moved(load_network(name)), "", precision="float32")
    yield Arithmetic(
        "float32, weights as if rounded to float16",
        "each moved at random by up to half a step: what storing the trained ones may have changed",
        rounded.describe,
        lambda features0, features1: match(features0, features1).matches,
    )
    describe = _torch(name, "float32")[0]
    yield Arithmetic(
        "float32, features kept in float16",
        "what `lisrd extract` and the evaluation store",
        lambda image, keypoints: _stored(describe(image, keypoints)),
        lambda features0, features1: match(features0, features1).matches,
    )
    yield Arithmetic("bfloat16 network", "the default with bfloat16 units", *_torch(name, "bfloat16"))
    low = Policy(precision="bfloat16")
    yield Arithmetic(
        "bfloat16 network and matching",
        'and `Policy(precision="bfloat16")`',
        _torch(name, "bfloat16")[0],
        lambda features0, features1: match(features0, features1, low).matches,
    )
    yield Arithmetic("ONNX", "both files in onnxruntime, float32", *_onnxruntime(onnx))


def _torch(name: str, precision: Any) -> tuple[Callable[..., LocalFeatures], Callable[..., Tensor]]:
    describer = NetworkDescriber(name, load_network(name), "", precision=precision)
    return describer.describe, lambda features0, features1: match(features0, features1).matches


@torch.no_grad()
def _convolved_in_tf32(name: str) -> tuple[Callable[..., LocalFeatures], Callable[..., Tensor]]:
    """As tensor cores do it: factors lose their last 13 bits, and products are summed in float32."""
    describer = NetworkDescriber(name, load_network(name), "", precision="float32")
    # Fused convolutions are no modules that could be listened to.
    network: Any = load_network(name).eval().requires_grad_(False)
    describer.network = network.fold(torch.float32)
    for module in describer.network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.copy_(_cut_to_tf32(module.weight))
            module.register_forward_pre_hook(lambda _, inputs: tuple(map(_cut_to_tf32, inputs)))
    return describer.describe, lambda features0, features1: match(features0, features1).matches


def _cut_to_tf32(values: Tensor) -> Tensor:
    return (values.view(torch.int32) & ~0x1FFF).view(torch.float32)


@torch.no_grad()
def _moved(network: torch.nn.Module) -> torch.nn.Module:
    random = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        # The last kept bit of float16 is 2^-10 of the number's power of two.
        parameter.mul_(1 + 2**-11 * (2 * torch.rand(parameter.shape, generator=random) - 1))
    return network


def _stored(features: LocalFeatures) -> LocalFeatures:
    """Descriptors through float16 and back; keypoints are stored as they are."""
    names = ("descriptors", "meta_descriptors", "turned_descriptors", "turned_meta_descriptors")
    values = {name: getattr(features, name) for name in names}
    return replace(features, **{n: v.half().float() for n, v in values.items() if v is not None})


def _onnxruntime(folder: Path) -> tuple[Callable[..., dict[str, Tensor]], Callable[..., Tensor]]:
    import onnxruntime

    describer, matcher = (
        onnxruntime.InferenceSession(str(folder / f"{p}.onnx")) for p in ("describer", "matcher")
    )
    names = [output.name for output in describer.get_outputs()]
    inputs = [argument.name for argument in matcher.get_inputs()]

    def describe(image: Tensor, keypoints: Keypoints) -> dict[str, Tensor]:
        outputs = describer.run(None, {"images": image.numpy(), "keypoints": keypoints.xy.numpy()})
        found = dict(zip(names, map(torch.from_numpy, outputs), strict=True))
        return {"keypoints": keypoints.xy, "keypoint_scores": keypoints.scores, **found}

    def matches(*features: dict[str, Tensor]) -> Tensor:
        feed = {name: features[int(name[-1])][name[:-1]].numpy() for name in inputs}
        return torch.from_numpy(matcher.run(["matches"], feed)[0])

    return describe, matches


def _named(graph: DescriberGraph, keypoints: Keypoints, outputs: Sequence[Tensor]) -> dict[str, Tensor]:
    at = {"keypoints": keypoints.xy.double(), "keypoint_scores": keypoints.scores.double()}
    return at | dict(zip(graph.outputs, outputs, strict=True))


def _graph_matcher(graph: MatcherGraph) -> Callable[..., Tensor]:
    return lambda *features: graph(*(features[int(n[-1])][n[:-1]] for n in graph.inputs))[0]


@lru_cache(maxsize=8)
def detected(image: EvaluationImage, detector: str) -> tuple[Tensor, DetectedImage]:
    """The prepared image and its keypoints."""
    pixels, transform = image.read()
    tensor = as_image(pixels)
    keypoints = build_detector(detector)(tensor).select(0)
    return tensor, DetectedImage(keypoints, (tensor.shape[3], tensor.shape[2]), transform, 0.0, "")


@torch.no_grad()
def scores_of(pair: EvaluationPair, chosen: Sequence[Arithmetic], max_keypoints: int) -> list[Score]:
    """One score for each arithmetic, of which the first is the reference."""
    (image0, detected0), (image1, detected1) = (detected(i, "sift") for i in (pair.image0, pair.image1))
    common = common_pair(pair, detected0, detected1, max_keypoints)
    keypoints0 = _at(detected0.keypoints, common.index0)
    keypoints1 = _at(detected1.keypoints, common.index1)
    found = [a.match(a.describe(image0, keypoints0), a.describe(image1, keypoints1)) for a in chosen]
    return [_score(matches, found[0], common) for matches in found]


def _at(keypoints: Keypoints, index: Tensor) -> Keypoints:
    xy, scores = keypoints.xy[:, index], keypoints.scores[:, index]
    return Keypoints(xy, scores, torch.ones_like(scores, dtype=torch.bool))


def _score(matches: Tensor, reference: Tensor, common: CommonPair) -> Score:
    assert common.H_0to1 is not None
    assert common.partners0 is not None
    errors = match_errors(common.keypoints0, common.keypoints1, matches, common.H_0to1)
    return Score(equal_share(matches, reference), precision(errors), recall(matches, common.partners0))


def equal_share(matches: Tensor, reference: Tensor) -> float:
    """Matches that both have over those that either has; 1 where neither has any."""
    ours, theirs = ({tuple(pair) for pair in m.tolist()} for m in (matches, reference))
    return len(ours & theirs) / len(ours | theirs) if ours | theirs else 1.0


def report(chosen: Sequence[Arithmetic], scores: Sequence[Sequence[Score]]) -> str:
    """Means over the pairs, and the change against the reference in percentage points."""
    columns = list(zip(*scores, strict=True))
    means = [
        (fmean(s.equal for s in c), fmean(s.precision for s in c), fmean(s.recall for s in c))
        for c in columns
    ]
    rows = []
    for arithmetic, column, (equal, right, found) in zip(chosen, columns, means, strict=True):
        changes = (f"{100 * (a - b):+.3f}" for a, b in ((right, means[0][1]), (found, means[0][2])))
        worst = min(score.equal for score in column)
        rows.append(
            (
                arithmetic.name,
                arithmetic.words,
                f"{100 * equal:.2f} %",
                f"{100 * worst:.2f} %",
                f"{right:.4f}",
                f"{found:.4f}",
                *changes,
            )
        )
    header = (
        "arithmetic",
        "what",
        "equal matches",
        "worst pair",
        "precision",
        "recall",
        "precision, points",
        "recall, points",
    )
    return table(header, rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("root", type=Path, help="a data set with homographies")
    parser.add_argument("--layout", default="hpatches", help="of the data set, as in `lisrd evaluate`")
    parser.add_argument("--describer", default="pyramid", help="a bundled network or a .safetensors file")
    parser.add_argument("--onnx", type=Path, help="folder of `lisrd export-onnx`; exported now if left out")
    parser.add_argument("--pairs", type=int, help="so many, evenly spread over the data set")
    parser.add_argument("--max-keypoints", type=int, default=1000)
    options = parser.parse_args(arguments)
    pairs = [pair for pair in load_pairs(options.root, options.layout) if pair.H_0to1 is not None]
    step = len(pairs) / min(options.pairs or len(pairs), len(pairs))
    pairs = [pairs[int(k * step)] for k in range(round(len(pairs) / step))]
    with tempfile.TemporaryDirectory() as folder:
        onnx = options.onnx or export_onnx(options.describer, folder).describer.parent
        chosen = list(arithmetics(options.describer, onnx))
        scores = [scores_of(pair, chosen, options.max_keypoints) for pair in pairs]
    print(f"{machine()['cpu']}, torch {torch.__version__}, {len(pairs)} pairs\n\n{report(chosen, scores)}")


if __name__ == "__main__":
    main()
