"""Which run a checkpoint belongs to: only the same one may go on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lisrd
from lisrd.errors import InputError
from lisrd.processes import process_count
from lisrd.train.config import to_table
from lisrd.train.launch import precision_here

#: What of [run] changes the weights; budgets may be raised, and a run be saved more or less often.
_SHAPING = ("batch_size", "precision")


def run_identity(config: Any, seed: int) -> dict[str, Any]:
    """What a checkpoint must share with the run that continues it."""
    table = json.loads(json.dumps(to_table(config)))
    run = {key: value for key, value in table.pop("run").items() if key in _SHAPING}
    return {
        "version": lisrd.__version__,
        "seed": seed,
        "process_count": process_count(),  # each takes its share of a step's samples
        "precision": precision_here(config.run.precision),
        "config": {**table, "run": run},
    }


def refuse_other_run(path: Path, saved: dict[str, Any], identity: dict[str, Any]) -> None:
    """Raises InputError, with what differs, when `saved`, the metadata of the checkpoint, is of another run."""
    for key, value in identity.items():
        if saved.get(key) != value:
            raise InputError(
                f"{path} was made with another {key} ({_difference(saved.get(key), value)}); "
                "use the same one, or another --out directory, with --init to start from exported weights"
            )


def _difference(old: Any, new: Any) -> str:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f"{old} there, {new} here"
    differing = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
    return ", ".join(f"{k}: {_difference(old.get(k), new.get(k))}" for k in differing)
