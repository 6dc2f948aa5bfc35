"""Matches of a list of image pairs in one file; resumed after any interruption."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import h5py

from lisrd.errors import InputError
from lisrd.match import Policy, match
from lisrd.scale.layout import match_datasets, names_to_pair, read_features
from lisrd.scale.pairs import Pair, read_pairs
from lisrd.scale.store import ResumableStore, open_h5
from lisrd.scale.work import Broken, Engine, LocalEngine, Progress, Record, carry_out, in_batches
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
    engine: Engine = LocalEngine(),
) -> MatchReport:
    """Match the pairs of a file or list into `output`, in hloc's layout (`lisrd.scale.layout`).

    A pair in both directions is matched in the one that comes first. Pairs that `output` has already, in either
    direction, are skipped; those of images without features are reported as broken. A killed run loses at most
    `part_seconds` of work. `engine` says who does the work; the result is the same to the last bit.

    Raises:
        InputError: files that are missing, a list that is malformed, a policy that does not fit the features, or an
            `output` made with other features or another policy.
    """
    wanted = _unique(read_pairs(pairs) if isinstance(pairs, str | Path) else pairs)
    with open_h5(features) as file:
        config = {"kind": "matches", "features": _features_config(file), "policy": asdict(policy)}
        with ResumableStore(output, config, part_seconds) as store:
            missing = {key: pair for key, pair in wanted.items() if not _in_store(store, pair)}
            skipped = len(wanted) - len(missing)
            absent = _without_features(file, missing)
            described = [pair for pair in missing.values() if pair not in absent]

            def advance(done: int) -> None:
                if on_progress:
                    on_progress(skipped + len(absent) + done, len(wanted))

            work = PairWork(Path(features).absolute(), policy)
            matched, broken = carry_out(work, in_batches(described, 1), engine, store, advance)
    listed = [(" ".join(pair), reason) for pair, reason in absent.items()]
    return MatchReport(matched, skipped, listed + broken)


class PairWork:
    """Matches pairs of images whose features lie in a file, which every process opens for itself."""

    def __init__(self, features: Path, policy: Policy) -> None:
        self._features = features
        self._policy = policy
        self._read: Callable[[str], LocalFeatures] = lru_cache(_CACHED_IMAGES)(
            partial(read_features, features)
        )

    def __reduce__(self) -> tuple[type[PairWork], tuple[Path, Policy]]:
        return PairWork, (self._features, self._policy)  # another process fills a cache of its own

    def __call__(self, batch: Sequence[Pair]) -> list[Record | Broken]:
        return [self._matched(pair) for pair in batch]

    def name_of(self, item: Pair) -> str:
        return " ".join(item)

    def _matched(self, pair: Pair) -> Record:
        matches = match(self._read(pair[0]), self._read(pair[1]), self._policy)
        attributes = {"invariances": matches.invariances, "turn": matches.turn}
        return Record(names_to_pair(*pair), match_datasets(matches), attributes)


def _in_store(store: ResumableStore, pair: Pair) -> bool:
    """In either direction."""
    return names_to_pair(*pair) in store or names_to_pair(*reversed(pair)) in store


def _without_features(file: h5py.File, pairs: dict[str, Pair]) -> dict[Pair, str]:
    """Pairs that cannot be matched, with the reason."""
    absent = {name for name in {name for pair in pairs.values() for name in pair} if name not in file}
    return {
        pair: f"no features of {', '.join(missing)}; extract them first"
        for pair in pairs.values()
        if (missing := [name for name in pair if name in absent])
    }


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
