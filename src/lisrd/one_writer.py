"""Outputs that grow over hours have one writer at a time; a second process is told so instead of spoiling both."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from lisrd.errors import InputError


def claim(lock: Path, output: Path) -> sqlite3.Connection:
    """Claims `output` by the file `lock`, which is made where there is none; closing what comes back frees it.

    SQLite's file lock works on every system, and the system releases it when the process dies.

    Raises:
        InputError: another process has claimed it, or the system cannot write there.
    """
    connection = None
    try:
        connection = sqlite3.connect(lock, timeout=0, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.DatabaseError as error:
        if connection:
            connection.close()
        if error.sqlite_errorname != "SQLITE_BUSY":
            raise InputError(f"{output} cannot be written: {lock}: {error}; choose another place") from None
        raise InputError(
            f"{output} is being written by another process: wait for it, or choose another output"
        ) from None
    return connection
