"""What the user can mend. Every error says what was wrong, where, and what to do."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input or usage: the command line turns it into one line and exit code 2."""


class MissingExtraError(ImportError):
    """A feature needs an optional dependency."""

    def __init__(self, extra: str, what: str) -> None:
        super().__init__(f"{what} needs the extra '{extra}': pip install 'lisrd[{extra}]'")
