"""The ONNX files in onnxruntime beside what they were exported from, in torch, on as many threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from benchmarks.describing import pyramid_describer
from benchmarks.inputs import feature_pair, given_keypoints, image
from benchmarks.timing import Comparison
from lisrd.adapters.onnx.describer import DescriberGraph
from lisrd.adapters.onnx.matcher import MatcherGraph
from lisrd.adapters.onnx.program import export_graph
from lisrd.describe.network import PyramidNetwork
from lisrd.match import match


def comparisons(width: int, height: int, count: int, matched: int) -> Iterator[Comparison]:
    """One row for the describer, one for the matcher of `matched` x `matched` keypoints."""
    torch_describer, graph = pyramid_describer("float32"), DescriberGraph(PyramidNetwork())
    images, keypoints = image(width, height), given_keypoints(count, width, height)
    example = image(100, 76), given_keypoints(9, 100, 76).xy
    yield Comparison(
        "describe_onnx_vs_torch",
        f"describer.onnx in onnxruntime, float32; {width} x {height}, {count} keypoints",
        "pyramid in torch, float32, with meta descriptors and turns",
        runner(graph, example, (images, keypoints.xy)),
        lambda: torch_describer.describe(images, keypoints),
    )
    features, few = feature_pair(matched), feature_pair(12)
    matcher = MatcherGraph(features[0].selection)
    yield Comparison(
        f"match_{matched}_onnx_vs_torch",
        "matcher.onnx in onnxruntime: turn, selection, mutual nearest neighbours, all similarities at once",
        "match(), float32, the same with memory that grows with N",
        runner(matcher, matcher_inputs(matcher, *few), matcher_inputs(matcher, *features)),
        lambda: match(*features),
    )


def runner(graph: Any, example: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> Callable[[], object]:
    """Runs the exported graph on `inputs`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    model = export_graph(graph, example, "the benchmark's graph").SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {name: tensor.numpy() for name, tensor in zip(graph.inputs, inputs, strict=True)}
    return lambda: session.run(None, feed)


def matcher_inputs(graph: MatcherGraph, *features: Any) -> tuple[Tensor, ...]:
    """The features of image 0 and image 1 in the matcher's order."""
    return tuple(getattr(features[int(name[-1])], name[:-1]) for name in graph.inputs)
