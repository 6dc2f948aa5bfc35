"""Detectors: where to describe an image."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lisrd.errors import InputError
from lisrd.types import Keypoints

DETECTORS = ("sift", "disk", "aliked-n16", "aliked-n16rot", "keynet", "dog")


@runtime_checkable
class Detector(Protocol):
    """Images in, keypoints out: strongest first, ragged batches padded."""

    def __call__(self, images: Float[Tensor, "B 3 H W"], max_keypoints: int | None = None) -> Keypoints: ...


def build_detector(name: str = "sift", **options: Any) -> Detector:
    """The detector of this name (`DETECTORS`) with its options; `NAME=PATH` takes its weights from a file.

    Raises `InputError` for an unknown name or option, and for weights that are not to be had.
    """
    kind, _, path = name.partition("=")
    if path:
        options["weights"] = path
    builder = _builder(kind)
    try:
        inspect.signature(builder).bind(**options)
    except TypeError as error:
        raise InputError(f"detector {kind!r}: {error}") from None
    return builder(**options)


def _builder(kind: str) -> Callable[..., Detector]:
    """Imports happen here, so that SIFT does not wait for kornia."""
    if kind == "sift":
        from lisrd.detect.sift import SIFT

        return SIFT
    if kind not in DETECTORS:
        near = difflib.get_close_matches(kind, DETECTORS, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(DETECTORS)}"
        raise InputError(f"unknown detector {kind!r}; {advice}")
    from lisrd.detect import kornia

    match kind:
        case "disk":
            return kornia.build_disk
        case "keynet":
            return kornia.build_keynet
        case "dog":
            return kornia.build_dog
        case _:
            return partial(kornia.build_aliked, kind)
