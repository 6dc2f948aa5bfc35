"""HDF5 files that survive being killed at any moment.

Nothing is ever written into a file that counts. Records go to a part beside the output (`lisrd.scale.parts`), and at
the end all parts are merged into a copy of the output that replaces it:

    OUTPUT.parts/lock         locked while a process writes
    OUTPUT.parts/writing.tmp  the part being written
    OUTPUT.parts/00000.h5     a finished part
    OUTPUT                    whole, or not there yet

A killed run loses the records since its last finished part, `part_seconds` of work at most. Other processes may put
parts of their own there (`lisrd.scale.ray_engine`), under names that are no numbers.
"""

from __future__ import annotations

import json
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from lisrd.errors import InputError
from lisrd.one_writer import claim
from lisrd.scale.parts import PartWriter, publish, write_errors

#: Changes when the content of the files does.
FORMAT = 1


class ResumableStore:
    """Named records of arrays, written once each; use it in a `with` block.

    `config` says what makes the records; a file or parts with another one are refused.

    Raises:
        InputError: the output was made with another config, is no file of ours, is a folder, or is being written by
            another process.
    """

    def __init__(self, output: Path, config: Mapping[str, Any], part_seconds: float = 60.0) -> None:
        self.output = Path(output)
        if self.output.is_dir():
            raise InputError(f"{output} is a folder; give a file, for instance features.h5")
        self.folder = self.output.with_name(f"{self.output.name}.parts")
        self.config = json.dumps({"format": FORMAT, **config}, sort_keys=True)
        self._part_seconds = part_seconds
        self._in_parts: set[str] = set()
        self._merged: h5py.File | None = None
        self._part: PartWriter | None = None

    def __enter__(self) -> ResumableStore:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.output} cannot be written: {error.strerror}; choose another place"
            ) from None
        self._claim = claim(self.folder / "lock", self.output)
        try:
            self._open()
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._merged is not None:
                self._merged.close()
            self._finish_part()  # also after Ctrl-C: what is whole is kept
            if kind is None:
                self._merge()
        finally:
            self._unlock()

    def __contains__(self, name: str) -> bool:
        with _h5_errors(self.output):
            return name in self._in_parts or (self._merged is not None and name in self._merged)

    def write(
        self, name: str, datasets: Mapping[str, np.ndarray], attributes: Mapping[str, Any] | None = None
    ) -> None:
        """A group `name` of these datasets; "/" in the name makes groups in groups."""
        if self._part is None:
            self._part = PartWriter(self.folder / "writing.tmp", self.config)
            self._part_started = time.monotonic()
        self._part.write(name, datasets, attributes)
        self._in_parts.add(name)
        if time.monotonic() - self._part_started >= self._part_seconds:
            self._finish_part()

    def _open(self) -> None:
        for left in self.folder.glob("*.tmp"):  # by a writer that was killed
            left.unlink()
        if self.output.exists():
            self._merged = self._checked(self.output)
        for part in self._parts():
            with self._checked(part) as file:
                self._in_parts.update(record_names(file))

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob("*.h5"))

    def _checked(self, path: Path) -> h5py.File:
        file = open_h5(path)
        with _h5_errors(path):
            stored = file.attrs.get("config")
        if stored != self.config:
            file.close()
            raise InputError(f"{path} {_difference(stored, self.config)}; delete it or choose another output")
        return file

    def _finish_part(self) -> None:
        if self._part is None:
            return
        part, self._part = self._part, None
        numbers = [int(path.stem) for path in self._parts() if path.stem.isdigit()]
        part.publish(self.folder / f"{max(numbers, default=-1) + 1:05d}.h5")

    def _merge(self) -> None:
        parts = self._parts()
        if not parts and self.output.exists():
            return
        temporary = self.folder / "merging.tmp"
        try:
            with write_errors(self.output):
                self._merge_into(temporary, parts)
                publish(temporary, self.output)
        finally:
            temporary.unlink(missing_ok=True)  # it would fill a full disk further
        for part in parts:
            part.unlink()

    def _merge_into(self, temporary: Path, parts: Sequence[Path]) -> None:
        if self.output.exists():
            shutil.copyfile(self.output, temporary)
        with h5py.File(temporary, "a") as merged:
            merged.attrs["config"] = self.config
            for part in parts:
                _copy_records(part, merged)

    def _unlock(self) -> None:
        if not self._parts():  # otherwise the next run finds them here
            shutil.rmtree(self.folder, ignore_errors=True)  # once it is free, this is another's folder
        self._claim.close()


def record_names(file: h5py.File) -> Iterator[str]:
    """The groups that hold datasets, whatever their depth; each once, though a damaged file may link in circles."""
    waiting = [(name, group) for name, group in reversed(file.items()) if isinstance(group, h5py.Group)]
    seen = set()
    while waiting:
        name, group = waiting.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen:
            continue
        seen.add(place)
        children = list(group.items())
        if any(isinstance(child, h5py.Dataset) for _, child in children):
            yield name
        waiting += [
            (f"{name}/{key}", child) for key, child in reversed(children) if isinstance(child, h5py.Group)
        ]


def open_h5(path: Path) -> h5py.File:
    """The file, for reading. Raises InputError where there is none, or another kind of file."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; check the path")
    with _h5_errors(path):
        return _ReadFile(path)


class _ReadFile(h5py.File):
    """Damage shows wherever HDF5 runs into it, so the `with` block of a file as a whole reports it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r")
        self._errors = _h5_errors(path)

    def __enter__(self) -> _ReadFile:
        self._errors.__enter__()
        return super().__enter__()

    def __exit__(self, *raised: Any) -> bool | None:
        super().__exit__(*raised)
        return self._errors.__exit__(*raised)


@contextmanager
def _h5_errors(path: Path) -> Iterator[None]:
    """What HDF5 raises becomes an `InputError` that names the file; it has no class of its own for its errors."""
    try:
        yield
    except Exception as error:
        if "h5py" not in traceback.extract_tb(error.__traceback__)[-1].filename:
            raise
        raise InputError(
            f"{path} is no HDF5 file, or a damaged one ({error}); delete it and run again"
        ) from None


def _difference(stored: Any, expected: str) -> str:
    try:
        old, new = dict(json.loads(stored)), json.loads(expected)
    except (TypeError, ValueError):
        return "was not made by this command"
    key = next((key for key in sorted({*old, *new}) if old.get(key) != new.get(key)), "format")
    return f"was made with {key} {old.get(key)!r}, not {new.get(key)!r}"


def _copy_records(part: Path, merged: h5py.File) -> None:
    with h5py.File(part, "r") as source:
        for name in record_names(source):
            if name not in merged:  # there already, if the last run was killed right after merging
                source.copy(name, merged, name)
