"""Matching, its passes by torch and by Triton, and the kernel's tiles, beside the direct formulation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any
from unittest.mock import patch

import torch

from benchmarks.direct import match_direct, match_plain
from benchmarks.gpu.work import Case, Meter, Sizes, Work
from benchmarks.inputs import feature_pair
from benchmarks.matching import plain_pair
from lisrd.match import Policy, match, scorer
from lisrd.match.gpu import Tile, nearest_on_gpu
from lisrd.match.nearest import Nearest, mutual, nearest_in_tiles
from lisrd.match.scorer import PairScorer
from lisrd.types import LocalFeatures

#: Tiles of the Triton kernel that are tried, the most promising first.
_TILES = (
    Tile(),
    Tile(64, 32, 32, warps=4),
    Tile(64, 64, 32, warps=4),
    Tile(64, 64, 64, warps=4),
    Tile(128, 64, 64),
    Tile(128, 32, 32, warps=4),
    Tile(128, 64, 64, stages=4),
    Tile(64, 128, 64),
    Tile(64, 64, 128, warps=4, stages=2),
    Tile(64, 64, 32, warps=4, stages=2),
    Tile(64, 32, 64, warps=4, stages=4),
)
#: Kernels are compiled for a second or two each: the search for tiles ends after so many.
_SECONDS_FOR_TILES = 20.0


def matching_cases(sizes: Sizes, meter: Meter) -> Iterator[Case]:
    """The pass by torch's operations, whole matching, the direct formulation and plain neighbours."""
    for count in sizes.matched:
        for precision in ("float32", "bfloat16"):
            policy = Policy(precision=precision)  # type: ignore[arg-type]
            prepare = partial(_torch_pass, count, policy, meter)
            yield Case("match", f"torch pass, {count}", precision, prepare)
            prepare = partial(_whole_match, count, policy, meter, "torch")
            yield Case("match", f"match() with turns, torch, {count}", precision, prepare)
        yield Case("match", f"direct formulation, {count}", "float32", partial(_direct, count, meter))
        for dim in (128, 512):
            for unit in ("float32", "bfloat16"):
                prepare = partial(_plain, count, dim, unit, meter)
                yield Case("match", f"plain neighbours {dim}-d, {count}", unit, prepare)


def triton_cases(sizes: Sizes, meter: Meter) -> Iterator[Case]:
    """The Triton kernel as it is chosen, beside torch's matches."""
    for count in sizes.matched:
        for precision in ("float32", "bfloat16"):
            unit = "3 x tf32" if precision == "float32" else precision
            policy = Policy(precision=precision)  # type: ignore[arg-type]
            prepare = partial(_triton_pass, count, policy, Tile(), meter)
            yield Case("triton", f"triton pass, {count}", unit, prepare)
            prepare = partial(_whole_match, count, policy, meter, "triton")
            yield Case("triton", f"match() with turns, triton, {count}", unit, prepare)


def tile_cases(sizes: Sizes, meter: Meter) -> Iterator[Case]:
    """Other tiles of the Triton kernel, until the time for them is spent."""
    begun = time.perf_counter()
    for tile in _TILES:
        for precision, unit in (("float32", "3 x tf32"), ("bfloat16", "bfloat16")):
            for count in sizes.tiles:
                if time.perf_counter() - begun > _SECONDS_FOR_TILES:
                    return
                policy = Policy(precision=precision)  # type: ignore[arg-type]
                prepare = partial(_triton_pass, count, policy, tile, meter)
                yield Case("tiles", f"triton pass, {count}", unit, prepare)


def _words(tile: Tile) -> str:
    return f"{tile.rows} x {tile.columns}, chunk {tile.chunk}, {tile.warps} warps, {tile.stages} stages"


@lru_cache(maxsize=8)
def _pair(count: int) -> tuple[LocalFeatures, LocalFeatures]:
    """Kept on the CPU, where making them takes seconds."""
    return feature_pair(count)


def _pair_on(device: torch.device, count: int, keep_turns: bool = False) -> tuple[LocalFeatures, ...]:
    nothing: dict[str, Any] = (
        {} if keep_turns else dict.fromkeys(("turned_descriptors", "turned_meta_descriptors"))
    )
    return tuple(replace(f, **nothing).to(device) for f in _pair(count))


@torch.no_grad()
def _scorer(count: int, policy: Policy, meter: Meter) -> PairScorer:
    features0, features1 = _pair_on(meter.device, count)
    return PairScorer.of(features0, features1, policy.kinds(features0.invariances), policy)


def _pass_floor(parts: PairScorer) -> tuple[float, float]:
    """Products of the descriptors and of the 9 numbers for the meta descriptors; inputs read and neighbours written."""
    (V, N0, D), N1, K = parts.descriptors0.shape, parts.counts[1], parts.thin0.shape[2]
    read = sum(t.nbytes for t in (parts.descriptors0, parts.descriptors1, parts.thin0, parts.thin1))
    return 2 * N0 * N1 * V * (D + K), read + 12 * (N0 + N1)


def _by_torch(parts: PairScorer) -> Nearest:
    return nearest_in_tiles(parts.similarity_tile, parts.counts, (parts.block, parts.block), False)


def _by_triton(parts: PairScorer, tile: Tile) -> Nearest:
    operands = parts.descriptors0, parts.descriptors1, parts.thin0, parts.thin1, parts.bias.flatten()
    return nearest_on_gpu(*operands, parts.sharp, tile)


def _torch_pass(count: int, policy: Policy, meter: Meter) -> Work:
    parts = _scorer(count, policy, meter)
    facts = _beside_float32(_by_torch(parts), count, meter) if policy.precision != "float32" else {}
    parts.buffers = [one.new_empty(0) for one in parts.buffers]  # they count as the pass's own memory
    return Work(torch.no_grad()(partial(_by_torch, parts)), 0, *_pass_floor(parts), facts)


def _triton_pass(count: int, policy: Policy, tile: Tile, meter: Meter) -> Work:
    parts = _scorer(count, policy, meter)
    # Kernels read contiguous rows; of features they are views.
    parts.descriptors0, parts.descriptors1 = parts.descriptors0.contiguous(), parts.descriptors1.contiguous()
    facts = _beside_float32(_by_triton(parts, tile), count, meter)
    facts |= {"sharp": parts.sharp, "tile": _words(tile)}
    return Work(partial(_by_triton, parts, tile), 0, *_pass_floor(parts), facts)


def _beside_float32(found: Nearest, count: int, meter: Meter) -> dict[str, Any]:
    """How neighbours differ from those of torch's float32 pass, and how much similarity the changed ones lose."""
    exact = _scorer(count, Policy(), meter)
    expected = _by_torch(exact)
    lost = _lost(exact, found, expected)
    pairs, wanted = ({tuple(p) for p in mutual(n).tolist()} for n in (found, expected))
    return {
        "changed_rows": float((found.index1 != expected.index1).double().mean()),
        "changed_columns": float((found.index0 != expected.index0).double().mean()),
        "changed_matches": len(wanted - pairs) / max(1, len(wanted)),
        "largest_loss": lost,
        "largest_error": float((found.best1[:, 0] - expected.best1[:, 0]).abs().max()),
    }


@torch.no_grad()
def _lost(exact: PairScorer, found: Nearest, expected: Nearest) -> float:
    """The most that the similarity of a changed row falls short, by float32 products of single pairs."""
    rows = (found.index1 != expected.index1).nonzero()[:, 0]
    if not len(rows):
        return 0.0
    ours, theirs = (exact.at(torch.stack([rows, n.index1[rows]], 1))[0] for n in (found, expected))
    return float((theirs - ours).max())


def _whole_match(count: int, policy: Policy, meter: Meter, chosen: str) -> Work:
    features0, features1 = _pair_on(meter.device, count, keep_turns=True)

    def run() -> object:
        with patch.object(scorer, "choose_pass", lambda device: (chosen, "asked for")):
            return match(features0, features1, policy)

    tile = {"tile": _words(Tile())} if chosen == "triton" else {}
    return Work(run, facts={"matches": len(run()), **tile})  # type: ignore[arg-type]


def _direct(count: int, meter: Meter) -> Work:
    features0, features1 = _pair_on(meter.device, count)

    run = partial(match_direct, features0, features1)
    found = {tuple(p) for p in run().tolist()}
    wanted = {tuple(p) for p in match(features0, features1).matches.tolist()}
    (_, _, V, D), C = features0.descriptors.shape, features0.meta_descriptors.shape[-1]
    facts = {"changed_matches": len(wanted - found) / max(1, len(wanted))}
    return Work(run, 0, 2 * count**2 * V * (D + C), 2 * features0.descriptors.nbytes, facts)


def _plain(count: int, dim: int, unit: str, meter: Meter) -> Work:
    dtype = getattr(torch, unit)
    left, right = (d.to(meter.device, dtype) for d in plain_pair(count, dim))
    return Work(partial(match_plain, left, right), 0, 2 * count**2 * dim, 2 * left.nbytes)
