"""Output files that appear whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from lisrd.errors import InputError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A new, empty file beside `path`, with its suffix, to write to; after the block it takes the place of `path`.

    It is flushed to the disk first: a crash, a full disk, or a second process that writes the same output leaves the
    old content or the new one, never a part and never a mixture. A block that fails leaves nothing. Its permissions
    are those of any new file, whatever the library that wrote it thinks. A symbolic link stays one: the file that it
    points to is replaced.

    Raises:
        InputError: the system cannot write there; the message has its reason.
    """
    path = Path(path)
    with writing(path):
        target = _behind_links(path)
        partial = target.with_name(f".{uuid4().hex}{target.suffix}")
        try:
            partial.touch(exist_ok=False)
            permissions = stat.S_IMODE(partial.stat().st_mode)
            yield partial
            with partial.open("rb+") as written:
                os.fsync(written.fileno())
            partial.chmod(permissions)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says while `path` is written becomes an `InputError` that names it."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _behind_links(path: Path) -> Path:
    target = Path(os.path.realpath(path))
    if target.is_symlink():  # what `realpath` makes of links that point at one another
        raise InputError(f"cannot write {path}: its symbolic links form a loop; remove them")
    if target.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file")
    return target
