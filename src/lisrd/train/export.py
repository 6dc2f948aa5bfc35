"""Finished weights: the averaged network as one float16 file that says where it comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from torch import nn

from lisrd.describe.weights import save_weights


def export_network(network: nn.Module, path: Path, provenance: dict[str, Any]) -> None:
    """Write `network` in float16, with its recipe, data, steps and the commit of the code in the metadata."""
    save_weights(path, network, {**provenance, "commit": _commit()}, half=True)


def _commit() -> str:
    """The commit of the source tree that trains, "unknown" for an installed package."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
