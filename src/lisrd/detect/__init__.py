"""Detectors: where to describe an image."""

from __future__ import annotations

import difflib
from typing import Any, Protocol

from jaxtyping import Float
from torch import Tensor

from lisrd.errors import InputError
from lisrd.types import Keypoints

DETECTORS = ("sift",)


class Detector(Protocol):
    """Images in, keypoints out: strongest first, ragged batches padded."""

    def __call__(self, images: Float[Tensor, "B 3 H W"], max_keypoints: int | None = None) -> Keypoints: ...


def build_detector(name: str = "sift", **options: Any) -> Detector:
    """The detector of this name (`DETECTORS`) with its options.

    Raises `InputError` for an unknown name or option.
    """
    from lisrd.detect.sift import SIFT

    if name != "sift":
        near = difflib.get_close_matches(name, DETECTORS, n=1) or DETECTORS
        raise InputError(
            f"unknown detector {name!r}; did you mean {near[0]!r}? Known: {', '.join(DETECTORS)}"
        )
    try:
        return SIFT(**options)
    except TypeError as error:
        raise InputError(f"detector {name!r}: {error}") from None
