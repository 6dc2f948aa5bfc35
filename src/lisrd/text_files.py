"""Lists and tables that people write."""

from __future__ import annotations

from pathlib import Path

from lisrd.errors import InputError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text, with or without the mark that Windows puts before it.

    Raises:
        InputError: the file is another kind of file, or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8 (byte {error.start}); save it as one") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
