"""From a module of tensors to an ONNX model, and from a model to its results, by the libraries that do it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lisrd.errors import InputError, MissingExtraError

#: The first with GridSample of any rank, LayerNormalization and AffineGrid; onnxruntime reads it since 1.17.
OPSET = 20

#: The axes that a file leaves open, by the input they belong to; names with 0 and 1 are two inputs.
_OPEN_AXES = {
    "images": {2: "height", 3: "width"},
    "keypoints": {1: "keypoints"},
    "keypoint_scores": {1: "keypoints"},
    "descriptors": {1: "keypoints"},
    "turned_descriptors": {1: "keypoints"},
}


def export_graph(graph: Any, example: Sequence[Tensor], what: str) -> Any:
    """The `onnx.ModelProto` of a module with the names of its `inputs` and `outputs`.

    `example` shows the sizes that are fixed; those of `_OPEN_AXES` stay open.

    Raises:
        InputError: the graph cannot be expressed in ONNX by the installed torch; the message has the reason.
        MissingExtraError: onnx or onnxscript is not installed.
    """
    round_to_integer = _translation_of_round()
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                graph.eval(),
                tuple(example),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_shapes=tuple(_open_axes(name) for name in graph.inputs),
                custom_translation_table={round: round_to_integer},
                verbose=False,
            )
    except Exception as error:  # the exporter raises what it meets, of any type
        raise InputError(f"cannot export {what}: {_reason(error)}") from error
    assert program is not None
    return program.model_proto


def run(model: Any, inputs: Sequence[str], tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """The outputs of an `onnx.ModelProto` for these inputs, by onnxruntime on the CPU.

    Raises MissingExtraError where onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("onnx", "running an ONNX file") from None
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {name: tensor.numpy() for name, tensor in zip(inputs, tensors, strict=True)}
    return session.run(None, feed)


def _open_axes(name: str) -> dict[int, str] | None:
    stem = name.rstrip("01")
    suffix = name.removeprefix(stem)
    return {axis: word + suffix for axis, word in _OPEN_AXES[stem].items()} if stem in _OPEN_AXES else None


def _translation_of_round() -> Any:
    """Python's `round` of a size, for which the exporter has no translation; both round half to even."""
    try:
        import onnx  # noqa: F401
        from onnxscript import opset20 as op
    except ImportError:
        raise MissingExtraError("onnx", "exporting to ONNX") from None
    int64 = 7

    def to_integer(value: Any, digits: None = None) -> Any:
        return op.Cast(op.Round(value), to=int64)

    return to_integer


def _reason(error: BaseException) -> str:
    """The first words of the innermost cause: the exporter wraps it in advice for its developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


@contextmanager
def _silence() -> Iterator[None]:
    """The exporter speaks of optional packages, of its own deprecations, and of axes that share a name on purpose."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
