"""`lisrd train --val`: the network in training, on pairs of photographs with known homographies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lisrd.errors import InputError
from lisrd.evaluate import evaluate
from lisrd.evaluate.datasets import load_pairs
from lisrd.train.export import export_network

_MAX_KEYPOINTS = 512
_CHOICES = {"": "soft", "mean": "mean", "hard": "hard", "oracle": "oracle"}


class RealPairs:
    """Precision at 3 px, per cent, by part of a data set in the layout of RDNIM or HPatches.

    Scores are those of every invariance alone, and of what choosing among them gives; `limit` pairs, spread over the
    data set, keep the look short.
    """

    def __init__(self, root: Path, directory: Path, limit: int) -> None:
        """Raises InputError where there are no pairs: before the training, not at its first validation."""
        self.root, self.limit = root, limit
        self.layout = "rdnim" if (root / "references").is_dir() else "hpatches"
        self.weights = directory / "validated.safetensors"
        if not load_pairs(root, self.layout):
            raise InputError(f"{root} has no pairs; --val wants a folder in the layout of RDNIM or HPatches")

    def __call__(self, network: Any) -> dict[str, dict[str, float]]:
        """Scores by name for every part, as `real PART`."""
        export_network(network, self.weights, {"validated": str(self.root)})
        parts = {kind.name: kind.name for kind in network.invariances} | _CHOICES
        names = {f"{self.weights}:{part}".rstrip(":"): shown for part, shown in parts.items()}
        document = evaluate(
            self.root,
            self.layout,
            list(names),
            max_keypoints=_MAX_KEYPOINTS,
            limit=self.limit,
            report=False,
            progress=False,
        )
        scores: dict[str, dict[str, float]] = {}
        for row in document["rows"]:
            if row["precision"] is not None:
                by_name = scores.setdefault(f"real {row['part']}", {})
                by_name[names[row["describer"]]] = 100 * row["precision"]
        return scores
