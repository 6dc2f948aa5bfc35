"""Loops that numba compiles, where it is installed (the extra `fast`)."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache


def is_installed(module: str) -> bool:
    """Whether it could be imported; it is not loaded."""
    return importlib.util.find_spec(module) is not None


@cache
def obstacle_to(module: str) -> str:
    """Why a module of compiled loops is not there; empty where it is. Loads it."""
    if not is_installed("numba"):
        return (
            "numba is not installed; pip install 'lisrd[fast]' makes matching, refining and training faster"
        )
    try:
        importlib.import_module(module)
    except Exception as error:  # a NumPy that numba does not know, or nowhere to keep what is compiled
        words = str(error).partition("\n")[0]
        return f"numba is of no use here ({type(error).__name__}: {words})"
    return ""
