"""Files of tensors: safetensors written whole or not at all, and other people's pickles read without running them."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lisrd.errors import InputError
from lisrd.whole_file import whole_file

#: First bytes of what `torch.save` writes: a zip archive, or in old versions a pickle that begins with a number. One
#: byte is not enough to tell: a safetensors file begins with the length of its header, in little-endian.
_TORCH_SAVED = (b"PK\x03\x04", b"\x80\x02\x8a\x0a")


def save_atomically(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """A safetensors file, whole or not at all. Raises InputError where it cannot be written."""
    with whole_file(path) as partial:
        try:
            save_file(tensors, partial, metadata)
        except SafetensorError as error:  # what the system says, in its own words
            raise InputError(f"cannot write {path}: {error}") from None


def read_header(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, without its tensors. Raises InputError like `read_tensors`."""
    return _read(path, with_tensors=False)[1]


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        InputError: no such file, a damaged one, or a file of another format.
    """
    return _read(path, with_tensors=True)


def _read(path: Path, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    start = _first_bytes(path)
    if start.startswith(_TORCH_SAVED):
        raise InputError(
            f"{path} was written by torch.save and is not read as it is: turn a published checkpoint into "
            "safetensors with `lisrd convert IN.pth -o OUT.safetensors`"
        )
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if with_tensors else ()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is no safetensors file, or a damaged one ({error}): download, convert or export it again"
        ) from None


def read_pickled_tensors(path: Path) -> dict[str, Any]:
    """The dictionary that `torch.save` wrote, if it holds plain values and tensors alone; nothing in it is run.

    Raises:
        InputError: no such file, a damaged one, another format, or Python objects inside.
    """
    if not _first_bytes(path).startswith(_TORCH_SAVED):
        raise InputError(f"{path} is no checkpoint of torch.save; give a .pth file, or download it again")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} is damaged or holds Python objects beside tensors: it is refused, because loading such objects "
            "can run code. Save its state dict alone, from a source that you trust"
        ) from None
    except Exception as error:  # on damaged bytes torch's unpickler raises whatever its opcodes run into
        raise InputError(f"{path} is damaged ({_first_line(error)}); download it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; a dictionary of parameters is needed")
    return content


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal. Raises InputError where there is no file."""
    _first_bytes(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {what}; give the path of a file of weights")
    with path.open("rb") as file:
        return file.read(4)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
