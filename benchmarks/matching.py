"""Matching beside the direct formulation and beside plain nearest neighbours; time and memory as N grows."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

from torch import Tensor

from benchmarks.direct import match_direct, match_plain
from benchmarks.inputs import feature_pair, generator, unit
from benchmarks.timing import Comparison, Effort, Run, interleaved
from lisrd.match import Policy, match, scorer
from lisrd.match.passes import choose_pass
from lisrd.types import LocalFeatures, Matches

_SELECTED = "match(), float32: online selection over 4 x 128-d, mutual nearest neighbours"
_TURNED = f"{_SELECTED}; first the choice of the quarter turn"
_DIRECT = "1024-d meta descriptors per keypoint, N x 4 x N tensors, float32; knows no turns"
#: The direct formulation holds three N x 4 x N tensors: 6 GB at 11,000 keypoints.
_DIRECT_UP_TO = 8192


def comparisons(counts: tuple[int, ...]) -> Iterator[Comparison]:
    """Against the direct formulation at each count; at the largest with turns, and against plain neighbours.

    Then what the compiled pass gives over torch's operations, and products of bfloat16 over those of float32.
    """
    for count in counts:
        yield _against_direct(f"match_{count}_vs_direct", _SELECTED, feature_pair(count, keep_turns=False))
    largest = counts[-1]
    turned = feature_pair(largest)
    yield _against_direct(f"match_{largest}_with_turn_vs_direct", _TURNED, turned)
    for dim in (512, 128):
        plain = plain_pair(largest, dim)
        yield Comparison(
            f"match_{largest}_vs_plain_nn{dim}",
            _TURNED,
            f"one product of {dim}-d descriptors, argmax both ways, float32",
            lambda: match(*turned),
            lambda plain=plain: match_plain(*plain),
        )
    upright = feature_pair(largest, keep_turns=False)
    if choose_pass("cpu")[0] != "torch":
        yield Comparison(
            f"match_{largest}_vs_torch_pass",
            _SELECTED,
            "the same matches by torch's operations, tile by tile",
            lambda: match(*upright),
            lambda: _match_by_torch(*upright),
        )
    yield Comparison(
        f"match_{largest}_bfloat16_vs_float32",
        f"Policy(precision='bfloat16'): {_share_changed(upright):.2%} of the matches change",
        "match(), float32",
        lambda: match(*upright, Policy(precision="bfloat16")),
        lambda: match(*upright),
    )


def _match_by_torch(features0: LocalFeatures, features1: LocalFeatures) -> Matches:
    with patch.object(scorer, "choose_pass", lambda device: ("torch", "asked for")):
        return match(features0, features1)


def _share_changed(pair: tuple[LocalFeatures, LocalFeatures]) -> float:
    """Of float32's matches, those that bfloat16 does not find."""
    exact, low = (match(*pair, policy) for policy in (Policy(), Policy(precision="bfloat16")))
    kept = {tuple(m) for m in low.matches.tolist()}
    return sum(tuple(m) not in kept for m in exact.matches.tolist()) / len(exact.matches)


def _against_direct(name: str, ours: str, pair: tuple[LocalFeatures, LocalFeatures]) -> Comparison:
    return Comparison(name, ours, _DIRECT, lambda: match(*pair), lambda: match_direct(*pair))


def plain_pair(count: int, dim: int) -> tuple[Tensor, Tensor]:
    g = generator(dim)
    return unit((count, dim), g), unit((count, dim), g)


def growth(counts: tuple[int, ...], effort: Effort) -> list[dict[str, float]]:
    """Seconds of each matcher at each number of keypoints."""
    few = replace(effort, rounds=min(effort.rounds, 3), seconds=0.0)  # at 32,768 each round takes a minute
    return [{"keypoints": count, **interleaved(_matchers(count), few)} for count in counts]


def _matchers(count: int) -> dict[str, Run]:
    pair = feature_pair(count)
    plain128, plain512 = plain_pair(count, 128), plain_pair(count, 512)
    runs: dict[str, Run] = {
        "ours": lambda: match(*pair),
        "plain_nn512": lambda: match_plain(*plain512),
        "plain_nn128": lambda: match_plain(*plain128),
    }
    if count <= _DIRECT_UP_TO:
        runs["direct"] = lambda: match_direct(*pair)
    return runs


def memory(counts: tuple[int, ...]) -> list[dict[str, float]]:
    """Peak megabytes over the input, each count in a process of its own."""
    rows = []
    for count in counts:
        command = [sys.executable, "-m", "benchmarks.peak_memory", str(count)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows.append(json.loads(output))
    return rows
