"""What a describer or detector is, as one hash, without loading a network: the first part of a cache's key.

The machine's precision is not part of it: features predicted on another machine remain valid here.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import lisrd
from lisrd.describe.describer import DESCRIBERS, DESCRIBERS_WITH_PATH, build_describer, split_path
from lisrd.describe.octaves import split_octaves
from lisrd.detect import DETECTORS, build_detector
from lisrd.errors import InputError
from lisrd.evaluate.cache import file_sha256, sha256

#: Describers without a file of weights: their numbers are decided by this package's code.
CODE_ONLY = ("root-sift", "upright-root-sift")


def describer_digest(name: str) -> str:
    """SHA-256 of the name, this package's version, and the bytes of the weights it uses.

    Raises `InputError` for an unknown name and for weights that are not there.
    """
    whole, octaves = split_octaves(name)
    if octaves != (0,):
        return sha256(name, describer_digest(whole))
    kind, paths = split_path(name)
    if kind in DESCRIBERS_WITH_PATH and paths:
        return _digest(name, paths.split(","))
    if kind in CODE_ONLY:
        return _digest(name, ())
    if kind in DESCRIBERS or kind.endswith(".safetensors"):
        from lisrd.describe.weights import fingerprint

        return sha256(name, lisrd.__version__, fingerprint(kind))
    build_describer(name)  # raises, with the nearest known name
    raise AssertionError(f"{name} can be built, but its weights are not known here")


def detector_digest(name: str) -> str:
    """As `describer_digest`; options of detectors are their defaults here."""
    kind, _, path = name.partition("=")
    if kind not in DETECTORS:
        build_detector(name)  # raises, with the nearest known name
    return _digest(name, [path] if path else ())


def _digest(name: str, files: Iterable[str]) -> str:
    for path in files:
        if not Path(path).is_file():
            raise InputError(f"'{name}': there is no file {path}; check the path after '='")
    return sha256(name, lisrd.__version__, *(file_sha256(Path(path)) for path in files))
