"""Matches of a list of image pairs in one file; resumed after any interruption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import h5py

from lisrd.errors import InputError
from lisrd.match import Policy, match
from lisrd.scale.extract import Progress
from lisrd.scale.layout import match_datasets, names_to_pair, read_features
from lisrd.scale.lookahead import prepared_ahead
from lisrd.scale.pairs import Pair, read_pairs
from lisrd.scale.store import ResumableStore, open_h5
from lisrd.types import LocalFeatures

#: Images whose features are kept in memory; the pairs of an image usually follow each other. 64 images of the
#: pyramid are 0.3 GB.
_CACHED_IMAGES = 64


@dataclass(slots=True)
class MatchReport:
    """How many pairs were matched now, how many had been before, and which could not be, with the reason."""

    matched: int = 0
    skipped: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)


def match_pairs(
    features: Path,
    pairs: Path | Sequence[Pair],
    output: Path,
    policy: Policy = Policy(),
    on_progress: Progress | None = None,
    *,
    part_seconds: float = 60.0,
) -> MatchReport:
    """Match the pairs of a file or list into `output`, in hloc's layout (`lisrd.scale.layout`).

    A pair in both directions is matched in the one that comes first. Pairs that `output` has already, in either
    direction, are skipped; those of images without features are reported as broken. A killed run loses at most
    `part_seconds` of work.

    Raises:
        InputError: files that are missing, a list that is malformed, a policy that does not fit the features, or an
            `output` made with other features or another policy.
    """
    wanted = _unique(read_pairs(pairs) if isinstance(pairs, str | Path) else pairs)
    with open_h5(features) as file:
        config = {"kind": "matches", "features": _features_config(file), "policy": asdict(policy)}
        with ResumableStore(output, config, part_seconds) as store:
            return _match_missing(file, wanted, store, policy, on_progress)


def _match_missing(
    file: h5py.File,
    wanted: dict[str, Pair],
    store: ResumableStore,
    policy: Policy,
    on_progress: Progress | None,
) -> MatchReport:
    missing = {
        key: pair
        for key, pair in wanted.items()
        if key not in store and names_to_pair(*reversed(pair)) not in store
    }
    report = MatchReport(skipped=len(wanted) - len(missing), broken=_without_features(file, missing))
    broken = {pair for pair, _ in report.broken}
    described = [(key, pair) for key, pair in missing.items() if " ".join(pair) not in broken]

    @lru_cache(_CACHED_IMAGES)
    def features_of(name: str) -> LocalFeatures:
        return read_features(file, name)

    def prepare(item: tuple[str, Pair]) -> tuple[LocalFeatures, LocalFeatures]:
        return features_of(item[1][0]), features_of(item[1][1])

    for (key, _), prepared in prepared_ahead(prepare, described):
        matches = match(*prepared.result(), policy)
        attributes = {"invariances": matches.invariances, "turn": matches.turn}
        store.write(key, match_datasets(matches), attributes)
        report.matched += 1
        if on_progress:
            on_progress(report.skipped + report.matched + len(report.broken), len(wanted))
    return report


def _without_features(file: h5py.File, pairs: dict[str, Pair]) -> list[tuple[str, str]]:
    absent = {name for name in {name for pair in pairs.values() for name in pair} if name not in file}
    return [
        (" ".join(pair), f"no features of {', '.join(missing)}; extract them first")
        for pair in pairs.values()
        if (missing := [name for name in pair if name in absent])
    ]


def _unique(pairs: Sequence[Pair]) -> dict[str, Pair]:
    """Pairs by their groups, each in one direction."""
    unique: dict[str, Pair] = {}
    for name0, name1 in pairs:
        key, reverse = names_to_pair(name0, name1), names_to_pair(name1, name0)
        stored = unique.get(key) or unique.get(reverse)
        if stored is None:
            unique[key] = (name0, name1)
        elif {*stored} != {name0, name1}:
            raise InputError(
                f"pairs {' '.join(stored)} and {name0} {name1} have the same group {key} in hloc's layout, where "
                "'/' becomes '-': rename a folder or an image"
            )
    return unique


def _features_config(file: h5py.File) -> dict[str, Any]:
    config = file.attrs.get("config")
    if config is None:
        raise InputError(
            f"{file.filename} was not made by `lisrd extract`; matching needs its meta descriptors"
        )
    return json.loads(config)
