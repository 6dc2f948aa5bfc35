"""Images in and out: whatever the user brings becomes RGB float32 in [0, 1], or an error that says why not.

Alpha is dropped, not composited: the colours under it are what the camera saw, and an invented background
would have keypoints of its own. Sixteen bits are scaled to eight (65535 -> 255), never clipped. Only the
first frame of an animation or of a multi-page file is read.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from lisrd.errors import InputError
from lisrd.types import ImageLike
from lisrd.whole_file import whole_file

#: Larger images are refused before they are decoded. It lies above any single-shot camera and below the 179
#: megapixels at which Pillow itself refuses.
MAX_PIXELS = 170_000_000

#: Formats that are decoded; Pillow's others are for other things than photographs, and EPS runs an external program.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "PPM", "BMP", "GIF", "JPEG2000", "AVIF", "TGA")

#: Interpolation in float32 overshoots [0, 1] by a rounding error; more than this is another range.
_RANGE_TOLERANCE = 1e-5


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """RGB of an image file, turned upright by its EXIF tag.

    Raises `InputError` for a file that is missing, empty, not an image, truncated, or beyond `MAX_PIXELS`.
    """
    path = Path(path)
    _check_file(path)
    try:
        with Image.open(path, formats=_formats()) as image:
            return _upright_rgb(image)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Image.UnidentifiedImageError:
        raise InputError(f"{path} is not an image that Pillow can read; convert it to PNG or JPEG") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} is too large to decode ({error}); resize it first") from None
    except PermissionError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}; check its permissions") from None
    except Exception as error:  # on broken bytes decoders raise OSError, SyntaxError, struct.error, ...
        raise InputError(f"{path} is broken or truncated ({error}); copy or download it again") from error


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB or (H, W) grey as the path's suffix says; the file appears whole or not at all.

    Raises `InputError` for an array of another kind, an unknown suffix, or a place that cannot be written.
    """
    path = Path(path)
    image_format = Image.registered_extensions().get(path.suffix.lower())
    if image_format not in Image.SAVE:
        raise InputError(f"{path}: unknown image suffix {path.suffix!r}; use .png, .jpg or .webp")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a directory; create it before writing {path.name}")
    if image.dtype != np.uint8:
        raise InputError(f"{path}: only uint8 images are written, not {image.dtype}; scale to 0..255 first")
    if image.ndim != 2 and image.shape[2:] != (3,):
        raise InputError(f"{path}: an image is (H, W, 3) or (H, W), not {image.shape}")
    with whole_file(path) as partial:
        Image.fromarray(image).save(partial, format=image_format)


def as_image(image: ImageLike) -> Float[Tensor, "B 3 H W"]:
    """RGB float32 in [0, 1] of a path, a PIL image, an array (H, W[, C]), or a tensor ([B,] C, H, W).

    C is 1 (grey), 3, or 4 (alpha, dropped); uint8 is divided by 255, floats must lie in [0, 1] already. The
    batch is 1 unless the tensor brings its own; a tensor stays on its device. Raises `InputError` for any
    other type, dtype, shape or range.
    """
    match image:
        case str() | Path():
            tensor = _channels_first(read_image(image))
        case Image.Image():
            tensor = _channels_first(_upright_rgb(image))
        case np.ndarray():
            tensor = _channels_first(image)
        case Tensor():
            tensor = image[None] if image.ndim == 2 else image
        case _:
            raise InputError(f"{type(image).__name__} is no image; give a path, PIL image, array or tensor")
    return _rgb(_unit_range(_batched(tensor)))


def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow decodes: AVIF came late, and codecs may be left out of a build."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a directory; give the path of one image")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); copy or download it again")


def _upright_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(f"{width} x {height} pixels are more than {MAX_PIXELS:,}; resize it first")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        return np.repeat(_eight_bits(np.asarray(upright))[..., None], 3, axis=2)
    if upright.mode == "F":
        raise InputError("holds floats of unknown range; scale it to 8 or 16 bits")
    if upright.mode == "P":  # Pillow warns where a palette with transparency goes to RGB directly
        upright = upright.convert("RGBA")
    return np.array(upright.convert("RGB"))


def _eight_bits(values: np.ndarray) -> UInt8[np.ndarray, "H W"]:
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise InputError(f"values {values.min()}..{values.max()} exceed 16 bits; scale it to 8 or 16 bits")
    return np.round(values / 257.0).astype(np.uint8)


def _channels_first(array: np.ndarray) -> Tensor:
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise InputError(f"image of dtype {array.dtype}; use uint8 (0..255) or float (0..1)")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise InputError(f"array of shape {array.shape}; arrays are (H, W) or (H, W, 3), channels last")
    # A copy: torch takes neither what is not writeable nor negative strides, which one pixel may have too.
    return torch.from_numpy(array.transpose(2, 0, 1).copy(order="C"))


def _batched(tensor: Tensor) -> Tensor:
    batch = tensor[None] if tensor.ndim == 3 else tensor
    if batch.ndim != 4 or batch.shape[1] not in (1, 3, 4):
        raise InputError(
            f"tensor of shape {tuple(tensor.shape)}; tensors are (3, H, W) or (B, 3, H, W), channels first"
        )
    if 0 in batch.shape:
        raise InputError(f"image of shape {tuple(tensor.shape)} has no pixels")
    return batch


def _unit_range(batch: Tensor) -> Float[Tensor, "B C H W"]:
    if batch.dtype == torch.uint8:
        return batch.float() / 255
    if not batch.is_floating_point():
        raise InputError(f"image of dtype {batch.dtype}; use uint8 (0..255) or float (0..1)")
    low, high = (value.item() for value in torch.aminmax(batch))
    if not (math.isfinite(low) and math.isfinite(high)):  # NaN is the least and the greatest of all
        raise InputError("image contains NaN or infinite values; replace them first")
    if high > 1 + _RANGE_TOLERANCE:
        advice = "it looks like 0..255, divide by 255" if high <= 255 and low >= 0 else "rescale it"
        raise InputError(f"float image has values up to {high:g}; floats must lie in [0, 1]: {advice}")
    if low < -_RANGE_TOLERANCE:
        raise InputError(f"float image has values down to {low:g}; floats must lie in [0, 1]: rescale it")
    return batch.float().clamp(0, 1)


def _rgb(batch: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3 H W"]:
    return batch.repeat(1, 3, 1, 1) if batch.shape[1] == 1 else batch[:, :3]
