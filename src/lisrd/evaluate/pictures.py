"""Matches drawn on their images, for the best and the worst pairs of the report."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

#: Pixels of the pictures' height: enough to see, small enough for a page that holds everything.
HEIGHT = 260
RIGHT, WRONG = (0, 158, 115), (213, 94, 0)
#: More lines than this hide the images; they are thinned evenly.
MAX_LINES = 150


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG, and what it shows."""

    title: str
    caption: str
    jpeg: bytes

    @property
    def data_url(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def draw_matches(
    image0: UInt8[np.ndarray, "H0 W0 3"],
    image1: UInt8[np.ndarray, "H1 W1 3"],
    points0: Float[np.ndarray, "S 2"],
    points1: Float[np.ndarray, "S 2"],
    correct: Bool[np.ndarray, " S"],
) -> bytes:
    """Both images beside each other as JPEG, correct matches green over wrong ones in orange."""
    left, scale0 = _to_height(image0)
    right, scale1 = _to_height(image1)
    canvas = np.hstack([left, right])
    ends0 = (points0 + 0.5) * scale0 - 0.5
    ends1 = (points1 + 0.5) * scale1 - 0.5 + [left.shape[1], 0]
    for kind, colour in ((False, WRONG), (True, RIGHT)):
        for k in _thinned(np.flatnonzero(correct == kind), MAX_LINES):
            start, end = (tuple(int(v) for v in p.round()) for p in (ends0[k], ends1[k]))
            cv2.line(canvas, start, end, colour, 1, cv2.LINE_AA)
    done, jpeg = cv2.imencode(".jpg", canvas[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    assert done, "OpenCV always encodes uint8 as JPEG"
    return jpeg.tobytes()


def _to_height(image: UInt8[np.ndarray, "H W 3"]) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    scale = HEIGHT / image.shape[0]
    size = round(image.shape[1] * scale), HEIGHT
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _thinned(indices: np.ndarray, most: int) -> np.ndarray:
    step = max(1, -(-len(indices) // most))
    return indices[::step]
