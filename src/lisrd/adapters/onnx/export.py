"""Networks and their selection as ONNX files, checked against torch before they are written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import lisrd
from lisrd.adapters.onnx.describer import DescriberGraph
from lisrd.adapters.onnx.matcher import MatcherGraph
from lisrd.adapters.onnx.program import export_graph, run
from lisrd.describe.describer import DESCRIBERS_WITH_PATH
from lisrd.describe.field import MIN_SIDE
from lisrd.describe.network import PyramidNetwork
from lisrd.describe.paper import PaperNetwork
from lisrd.describe.weights import Network, fingerprint, load_network
from lisrd.errors import InputError
from lisrd.whole_file import whole_file, writing

FORMAT = "lisrd-onnx-1"

#: The largest difference from torch that a file may have.
TOLERANCE = 1e-4

#: (height, width) and number of keypoints of what is exported, and of what checks it: with padding and without.
_EXPORTED, _CHECKED = ((75, 101), 9), ((96, 64), 40)

_NO_NETWORKS = ("root-sift", "upright-root-sift", *DESCRIBERS_WITH_PATH)


@dataclass(frozen=True, slots=True)
class ExportedFiles:
    """The two files, and how far their outputs were from torch's when they were checked."""

    describer: Path
    matcher: Path
    largest_difference: float


def export_onnx(name: str, directory: str | Path) -> ExportedFiles:
    """Write `describer.onnx` and `matcher.onnx` of a bundled network, or of a `.safetensors` file, into `directory`.

    Raises:
        InputError: the describer is no network, it cannot be exported, or what came out differs from torch; the
            message says why, and nothing is written.
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
    """
    network = _load(name)
    describer, matcher = DescriberGraph(network), MatcherGraph(network.selection)
    models: dict[str, Any] = {}
    largest = 0.0
    for part, graph in {"describer": describer, "matcher": matcher}.items():
        what = f"the {part} of {name}"
        models[part] = export_graph(graph, _inputs(part, describer, *_EXPORTED), what)
        largest = max(largest, _check(models[part], graph, _inputs(part, describer, *_CHECKED), what))
        _describe(models[part], _metadata(part, name, network))
    paths = {part: Path(directory) / f"{part}.onnx" for part in models}
    with writing(Path(directory)):
        Path(directory).mkdir(parents=True, exist_ok=True)
    with ExitStack() as files:  # both are written before either takes its place: they belong together
        partials = {part: files.enter_context(whole_file(path)) for part, path in paths.items()}
        for part, partial in partials.items():
            partial.write_bytes(models[part].SerializeToString())
    return ExportedFiles(**paths, largest_difference=largest)


def _load(name: str) -> Network:
    if name.partition("=")[0] in _NO_NETWORKS:
        raise InputError(
            f"cannot export {name}: it describes by code outside of a network of this package, which ONNX cannot hold; "
            "export pyramid, or the .safetensors file of a pyramid or paper network"
        )
    network = load_network(name)
    if not isinstance(network, PyramidNetwork | PaperNetwork):
        raise InputError(
            f"cannot export {name}: it holds a {type(network).__name__}, which has no descriptors of its own; export "
            "pyramid, or the .safetensors file of a pyramid or paper network"
        )
    return network


@torch.no_grad()
def _inputs(part: str, describer: DescriberGraph, size: tuple[int, int], count: int) -> tuple[Tensor, ...]:
    """An image of noise with keypoints; for the matcher, random unit vectors in the shapes of its features."""
    random = torch.Generator().manual_seed(count)
    height, width = size
    image = torch.rand((1, 3, height, width), generator=random)
    keypoints = torch.rand((1, count, 2), generator=random) * torch.tensor([width - 1.0, height - 1.0])
    if part == "describer":
        return image, keypoints
    sides = []
    for xy in (keypoints, keypoints[:, 2:]):  # different numbers in the two images
        image_size, *features = describer(image, xy)
        # A network on noise gives nearly equal descriptors, among which the last bit of a number would choose.
        vectors = [F.normalize(torch.randn(f.shape, generator=random), dim=-1) for f in features]
        sides.append((xy, torch.rand(xy.shape[:2], generator=random), image_size, *vectors))
    return (*sides[0][:5], *sides[1])


def _check(model: Any, graph: Any, inputs: Sequence[Tensor], what: str) -> float:
    """The largest difference between torch and onnxruntime. Raises InputError where it is above `TOLERANCE`."""
    with torch.no_grad():
        expected = [tensor.numpy() for tensor in graph(*inputs)]
    found = run(model, graph.inputs, inputs)
    largest = 0.0
    for name, ours, theirs in zip(graph.outputs, expected, found, strict=True):
        same_shape = ours.shape == theirs.shape
        difference = float(np.abs(ours - theirs).max(initial=0)) if same_shape else np.inf
        if not difference <= TOLERANCE:
            raise InputError(
                f"cannot export {what}: in onnxruntime its {name} differ from torch's by {difference:.2g}; another "
                "version of torch, onnxscript or onnxruntime may translate it rightly"
            )
        largest = max(largest, difference)
    return largest


def _metadata(part: str, name: str, network: Network) -> dict[str, str]:
    kind = "paper" if isinstance(network, PaperNetwork) else "pyramid"
    return {
        "format": FORMAT,
        "part": part,
        "describer": Path(name).name,
        "network": kind,
        "config": json.dumps(asdict(network.config)),
        "selection": json.dumps(asdict(network.selection)),
        "weights_sha256": fingerprint(name),
        "smallest_side": str(MIN_SIDE),
        "lisrd": lisrd.__version__,
    }


def _describe(model: Any, metadata: dict[str, str]) -> None:
    from onnx.helper import set_model_props

    set_model_props(model, metadata)
