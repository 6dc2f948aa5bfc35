"""A part: some records in an HDF5 file of their own, which appears under its name when it is whole.

HDF5 keeps no journal: a process that dies while writing can leave the whole file unreadable. A part is written under
another name, flushed, and renamed; without its rename it never happened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np

from lisrd.errors import InputError

_UNFINISHED = "unfinished record"


class RecordSink(Protocol):
    """Where records go: the store of a whole output, or one part of it."""

    def write(
        self, name: str, datasets: Mapping[str, np.ndarray], attributes: Mapping[str, Any] | None = None
    ) -> None: ...


class PartWriter:
    """Writes records to `temporary` until it is published; `config` says what makes them.

    Every call raises InputError where the system cannot write.
    """

    def __init__(self, temporary: Path, config: str) -> None:
        self._temporary = temporary
        with write_errors(temporary):
            self._file = h5py.File(temporary, "w")
            self._file.attrs["config"] = config

    def write(
        self, name: str, datasets: Mapping[str, np.ndarray], attributes: Mapping[str, Any] | None = None
    ) -> None:
        """A group `name` of these datasets; "/" in the name makes groups in groups."""
        with write_errors(self._temporary):
            group = self._file.create_group(_UNFINISHED)
            group.attrs.update(attributes or {})
            for key, values in datasets.items():
                group[key] = values
            parent = name.rpartition("/")[0]
            if parent:
                self._file.require_group(parent)
            self._file.move(_UNFINISHED, name)

    def publish(self, path: Path) -> None:
        """End the part and give it its name; a record whose writing failed is left out."""
        with write_errors(self._temporary):
            if _UNFINISHED in self._file:
                del self._file[_UNFINISHED]
            self._file.close()
            publish(self._temporary, path)

    def discard(self) -> None:
        """End the part as if it had never been."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """What HDF5 and the system raise while `path` is written becomes one `InputError` with the system's reason.

    HDF5 tells a full disk as OSError when it writes and as RuntimeError when it closes.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        told = re.search("error message = '([^']+)'", str(error))
        reason = told[1] if told else getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot write {path}: {reason}; what was finished before is kept, run again to go on"
        ) from None


def publish(temporary: Path, path: Path) -> None:
    """Flush to the disk, then rename: after a power cut there is the whole file or none."""
    with temporary.open("rb+") as written:
        os.fsync(written.fileno())
    os.replace(temporary, path)
