"""The caller's own keypoints, in the forms that libraries hand them around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from lisrd.detect.lafs import keypoints_from_lafs
from lisrd.detect.sift import from_cv2
from lisrd.errors import InputError
from lisrd.types import Keypoints

GivenKeypoints = Keypoints | Tensor | np.ndarray | Sequence[cv2.KeyPoint] | Sequence[Sequence[float]]


def given_keypoints(given: GivenKeypoints, width: int, height: int) -> Keypoints:
    """Keypoints from (x, y) pixels (N, 2) or (B, N, 2), kornia's frames (B, N, 2, 3), or `cv2.KeyPoint`s.

    Their order is kept. (0, 0) is the centre of the top-left pixel of the `width` x `height` image. Raises
    `InputError` for other shapes, for values that are not finite, and for the first keypoint outside.
    """
    keypoints = given.to(torch.float32) if isinstance(given, Keypoints) else _converted(given)
    _check_inside(keypoints, width, height)
    return keypoints


def _converted(given: Any) -> Keypoints:
    if not isinstance(given, Tensor | np.ndarray):
        given = list(given)
        if all(isinstance(keypoint, cv2.KeyPoint) for keypoint in given):
            return from_cv2(given)
    tensor = _float_tensor(given)
    shape = tuple(tensor.shape)
    if tensor.numel() == 0 and len(shape) == 2:
        return Keypoints.from_xy(tensor.reshape(0, 2))
    if len(shape) == 4 and shape[2:] == (2, 3):
        return keypoints_from_lafs(tensor)
    if len(shape) in (2, 3) and shape[-1] == 2:
        return Keypoints.from_xy(tensor)
    raise InputError(
        f"keypoints of shape {shape}; they are (N, 2) or (B, N, 2), x then y, or frames (B, N, 2, 3)"
    )


def _float_tensor(given: Any) -> Tensor:
    try:
        if not isinstance(given, Tensor):  # copied: torch takes no view whose columns are swapped
            given = torch.from_numpy(np.array(given, np.float32, order="C"))
    except (TypeError, ValueError):
        raise InputError("keypoints are not numbers; give (x, y) pixels or cv2.KeyPoint objects") from None
    return given.float()


def _check_inside(keypoints: Keypoints, width: int, height: int) -> None:
    real = keypoints.xy[keypoints.mask]
    if not real.isfinite().all():
        first = int((~real.isfinite().all(dim=1)).nonzero()[0])
        raise InputError(f"keypoint {first} is {tuple(real[first].tolist())}; remove what is not finite")
    outside = ~_inside(real, width, height)
    if outside.any():
        first = int(outside.nonzero()[0])
        swapped = _inside(real.flip(1), width, height).all()
        advice = "they fit as (row, column): swap the columns" if swapped else "remove or rescale them"
        raise InputError(
            f"keypoint {first} at {tuple(real[first].tolist())} lies outside the {width} x {height} image "
            f"({int(outside.sum())} of {len(real)} do); {advice}"
        )


def _inside(xy: Tensor, width: int, height: int) -> Tensor:
    """Pixels are areas: the image reaches half a pixel beyond the outer centres."""
    return ((xy >= -0.5) & (xy <= xy.new_tensor([width - 0.5, height - 0.5]))).all(dim=1)
