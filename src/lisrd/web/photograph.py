"""An upload becomes pixels, or a sentence that tells the visitor why not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lisrd.coordinates import scale_transform
from lisrd.errors import InputError
from lisrd.image import read_image
from lisrd.web.limits import MEGABYTE, Limits

#: Pillow knows dozens of formats, some by way of other programs; these are what cameras and browsers write.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")


@dataclass(frozen=True, slots=True)
class Photograph:
    """What is matched: the photograph itself, or a copy whose longer side is the limit."""

    pixels: UInt8[np.ndarray, "h w 3"]
    size: tuple[int, int]  # (width, height) of the upload, upright

    @property
    def is_reduced(self) -> bool:
        return self.matched_size != self.size

    @property
    def matched_size(self) -> tuple[int, int]:
        """(width, height) of `pixels`."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def to_upload(self) -> Float[Tensor, "3 3"]:
        """Pixels of the copy to pixels of the upload."""
        scale_x, scale_y = (whole / part for whole, part in zip(self.size, self.matched_size, strict=True))
        return scale_transform(scale_x, scale_y, torch.float64)


def read_photograph(path: Path, name: str, limits: Limits) -> Photograph:
    """The upload `path`, called `name` in every message: the visitor does not know the server's paths.

    Raises:
        InputError: no image of `FORMATS`, too many bytes or pixels, broken, or no longer there.
    """
    _check_header(path, name, limits)
    try:
        pixels = read_image(path)
    except InputError as error:
        if isinstance(error.__cause__, MemoryError):  # no fault of the file
            raise error.__cause__ from None
        raise InputError(str(error).replace(str(path), name)) from None
    height, width = pixels.shape[:2]
    factor = limits.max_side / max(width, height)
    if factor < 1:
        reduced = max(1, round(width * factor)), max(1, round(height * factor))
        pixels = cv2.resize(pixels, reduced, interpolation=cv2.INTER_AREA)
    return Photograph(pixels, (width, height))


def _check_header(path: Path, name: str, limits: Limits) -> None:
    """Everything that can be refused before a pixel is decoded."""
    try:
        size = path.stat().st_size
    except OSError:
        minutes = round(limits.keep_seconds / 60)
        raise InputError(
            f"{name} is no longer here: uploads are kept for {minutes} minutes; drop it again"
        ) from None
    if size > limits.upload:
        raise InputError(
            f"{name} has {size / MEGABYTE:.0f} MB; the limit is {limits.upload // MEGABYTE} MB: save it smaller"
        )
    try:
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise InputError(_too_many_pixels(name, "", limits)) from None
    except MemoryError:
        raise
    except Exception:  # decoders raise what they like on broken headers
        raise InputError(
            f"{name} is not an image that this page reads; use JPEG, PNG, WebP or TIFF"
        ) from None
    if width * height > limits.max_pixels:
        raise InputError(_too_many_pixels(name, f" ({width} × {height})", limits))


def _too_many_pixels(name: str, size: str, limits: Limits) -> str:
    return (
        f"{name} has too many pixels{size}; the limit is {limits.max_pixels / 1e6:.0f} megapixels: resize it"
    )
