"""What a describer or detector is, as one hash, without loading a network: the first part of a cache's key.

The machine's precision is not part of it: features predicted on another machine remain valid here.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import lisrd
from lisrd.errors import InputError
from lisrd.evaluate.cache import sha256

#: Describers whose numbers come from a file of weights that the package brings.
BUNDLED = ("pyramid", "pyramid-small", "paper", "lisrd-sift")


@cache
def source_digest(name: str) -> str:
    """SHA-256 of the name, this package's version, and the bytes of the weights it uses.

    Raises `InputError` where a file that the name gives is missing.
    """
    kind, _, paths = name.partition("=")
    files = paths.split(",") if paths else []
    if kind.endswith(".safetensors"):
        files.append(kind)
    elif kind in BUNDLED:
        from lisrd.describe.weights import fingerprint

        return sha256(name, lisrd.__version__, fingerprint(kind))
    return sha256(name, lisrd.__version__, *(_file_digest(Path(path)) for path in files))


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path after '='") from None
