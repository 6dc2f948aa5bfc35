"""`python -m benchmarks.gpu`: describing, matching and training on one GPU, beside what it can do at most.

Seconds are medians of CUDA events around single calls, megabytes the peak of the device's memory over the input. Every
case stands for itself: one that fails leaves its error in `results_gpu.json`, which is written after every case, and of
which `RESULTS_GPU.md` is made.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.direct import DirectObjective, match_direct, match_plain, selection_weights_direct
from benchmarks.floors import count_operations, map_bytes
from benchmarks.gpu_report import write_report
from benchmarks.inputs import feature_pair, given_keypoints, image, triplets
from benchmarks.matching import plain_pair
from benchmarks.peers import PEERS
from benchmarks.timing import Run
from benchmarks.training import Data, Step
from lisrd.describe.describer import NetworkDescriber
from lisrd.describe.network import PyramidNetwork
from lisrd.match import Policy, match, scorer
from lisrd.match.gpu import Tile, nearest_on_gpu
from lisrd.match.nearest import Nearest, mutual, nearest_in_tiles
from lisrd.match.scorer import PairScorer
from lisrd.train.data.dataset import DataConfig, collate
from lisrd.train.data.dice import sample_generators
from lisrd.train.data.triplets import Triplets
from lisrd.train.objective import TripletObjective
from lisrd.types import Keypoints, LocalFeatures

_HERE = Path(__file__).resolve().parent
GROUPS = ("ceilings", "describe", "train", "match", "triton", "tiles")
_PEERS = ("paper", "aliked_n16", "disk", "xfeat", "hardnet")
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
_ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the inputs are."""

    image: tuple[int, int] = (640, 480)
    keypoints: int = 1000
    images: tuple[int, ...] = (1, 8, 32)
    matched: tuple[int, ...] = (2048, 4096, 8192, 16384, 32768)
    tiles: tuple[int, ...] = (4096, 16384)
    training: tuple[int, int, int] = (320, 240, 512)  # width, height, keypoints
    triplets: tuple[int, ...] = (8, 32)
    square: int = 8192
    copied: int = 1 << 30  # bytes


#: Seconds instead of minutes: whether it runs, not how fast.
QUICK = Sizes((96, 64), 32, (1, 2), (64, 130), (130,), (96, 64, 16), (2,), 64, 1 << 16)


@dataclass(frozen=True, slots=True)
class Work:
    """What is timed, on inputs that lie on the device; `operations` and `bytes` are those it must at least do."""

    run: Run
    items: int = 0  # images or triplets
    operations: float = 0.0
    bytes: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """`unit` names the ceiling of its products."""

    group: str
    name: str
    unit: str  # "bfloat16", "float32", "tf32"; "3 x tf32" multiplies three times
    prepare: Callable[[], Work]


class Meter:
    """Times callables on a device, by its events or, without a GPU, by the clock."""

    def __init__(self, device: torch.device, seconds: float, rounds: int = _ROUNDS) -> None:
        self.device, self.seconds, self.rounds = device, seconds, rounds
        self.is_gpu = device.type == "cuda"

    def measure(self, run: Run) -> dict[str, Any]:
        """Median, fastest and number of calls; megabytes over what is allocated before the first."""
        before = torch.cuda.memory_allocated() if self.is_gpu else 0
        run()  # compiles, chooses algorithms, allocates workspaces
        if self.is_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        times, begun = [self._once(run)], time.perf_counter()
        peak = torch.cuda.max_memory_allocated() - before if self.is_gpu else None
        while len(times) < self.rounds or (time.perf_counter() - begun < self.seconds and len(times) < 200):
            times.append(self._once(run))
        megabytes = None if peak is None else peak / 2**20
        return {
            "seconds": median(times),
            "fastest": min(times),
            "calls": len(times),
            "megabytes_over_input": megabytes,
        }

    def _once(self, run: Run) -> float:
        if not self.is_gpu:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000

    def busy_share(self, run: Run, steps: int = 10) -> dict[str, float]:
        """Share of the wall time of `steps` calls in which a kernel or a copy runs on the GPU."""
        if not self.is_gpu:
            return {}
        wall = self._wall(run, steps)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            traced = self._wall(run, steps)
        on_gpu = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        busy = _union([(e.time_range.start, e.time_range.end) for e in on_gpu]) / 1e6
        return {
            "gpu_busy_share": busy / wall,
            "gpu_busy_share_while_traced": busy / traced,
            "kernels_per_step": len(on_gpu) / steps,
            "busy_seconds_per_step": busy / steps,
            "wall_seconds_per_step": wall / steps,
        }

    def _wall(self, run: Run, steps: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            run()
        torch.cuda.synchronize()
        return time.perf_counter() - start


def _union(intervals: list[tuple[float, float]]) -> float:
    """The length of what the intervals cover."""
    covered, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered


# --- Ceilings


def ceiling_cases(sizes: Sizes, meter: Meter) -> Iterator[Case]:
    """A copy within the device's memory, and square products of random numbers."""
    yield Case("ceilings", "copy", "", partial(_copy, sizes.copied, meter.device))
    for unit in ("bfloat16", "tf32", "float32"):
        yield Case("ceilings", f"product {sizes.square}^3", unit, partial(_square, sizes.square, unit, meter))


def _copy(count: int, device: torch.device) -> Work:
    source = torch.rand(count // 4, device=device)
    target = torch.empty_like(source)
    return Work(lambda: target.copy_(source), bytes=2 * source.nbytes)


def _square(side: int, unit: str, meter: Meter) -> Work:
    dtype = torch.bfloat16 if unit == "bfloat16" else torch.float32
    left, right = (torch.randn(side, side, device=meter.device).to(dtype) for _ in range(2))

    def run() -> Tensor:
        with tf32(unit == "tf32"):
            return left @ right

    return Work(run, operations=2 * side**3)


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether float32 products and convolutions may be those of TF32; torch allows it for convolutions alone."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


# --- Describing


def describing_cases(sizes: Sizes, meter: Meter) -> Iterator[Case]:
    """`pyramid` in each precision, then its peers, at given keypoints."""
    kinds = (("bfloat16", "bfloat16"), ("float32", "tf32"), ("float32", "float32"))
    for count in sizes.images:
        images = "1 image" if count == 1 else f"{count} images"
        for precision, unit in kinds:
            prepare = partial(_pyramid, sizes, meter, count, precision, unit)
            yield Case("describe", f"pyramid, {images}", unit, prepare)
        for name, words, build in PEERS:
            if name in _PEERS:
                prepare = partial(_peer, sizes, meter, count, build)
                yield Case("describe", f"{words.partition(',')[0]}, {images}", "tf32", prepare)


def _images(sizes: Sizes, count: int, device: torch.device) -> tuple[Tensor, Keypoints]:
    images = image(*sizes.image).expand(count, -1, -1, -1).contiguous()
    one = given_keypoints(sizes.keypoints, *sizes.image)
    values = {
        f.name: getattr(one, f.name).expand(count, *getattr(one, f.name).shape[1:]) for f in fields(one)
    }
    return images.to(device), Keypoints(**values).to(device)


def _pyramid(sizes: Sizes, meter: Meter, count: int, precision: str, unit: str) -> Work:
    network = PyramidNetwork()
    describer = NetworkDescriber("pyramid", network, "random", meter.device, precision)  # type: ignore[arg-type]
    images, keypoints = _images(sizes, count, meter.device)

    def run() -> LocalFeatures:
        with contextlib.nullcontext() if unit == "tf32" else tf32(False):
            return describer.describe(images, keypoints)

    features = run()
    operations, traffic = pyramid_floor(sizes)
    written = sum(t.nbytes for t in (getattr(features, f.name) for f in fields(features)) if _is_tensor(t))
    size = describer.precision.itemsize / torch.bfloat16.itemsize
    return Work(run, count, count * operations, count * traffic * size + written)


@lru_cache(maxsize=1)
def pyramid_floor(sizes: Sizes) -> tuple[float, float]:
    """Operations of one image, and the bytes of the encoder's maps in bfloat16: counted on the CPU."""
    describer = NetworkDescriber("pyramid", PyramidNetwork(), "random", precision="float32")
    # The counters know no fused convolutions, and these do the same operations.
    describer.network = PyramidNetwork().eval().requires_grad_(False).fold(torch.float32)
    images, keypoints = _images(sizes, 1, torch.device("cpu"))
    operations = count_operations(lambda: describer.describe(images, keypoints))
    traffic = map_bytes(describer.network.encoder, lambda: describer.network(images))
    return operations, traffic / 2  # counted in float32


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _peer(sizes: Sizes, meter: Meter, count: int, build: Callable[[Tensor, Keypoints], Run]) -> Work:
    images, keypoints = _images(sizes, count, meter.device)
    with meter.device:  # networks are built where they will run
        torch.manual_seed(0)
        run = build(images, keypoints)
    operations = 0.0
    with contextlib.suppress(Exception):  # some operators of peers have no formula
        operations = count_operations(run)
    return Work(run, count, operations, images.nbytes)


# --- Matching


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


# --- Training


class GpuStep(Step):
    """A step on the device of its batch."""

    def run(self) -> float:
        loss = self._loss()
        loss.backward()
        self.network.zero_grad()
        return loss.item()

    def _loss(self) -> Tensor:
        lower = self.dtype != torch.float32
        with torch.autocast(self.batch.images.device.type, self.dtype if lower else None, enabled=lower):
            return self.objective(self.network, self.batch)["loss"]


class GpuDirectStep(GpuStep):
    """With 1024-d meta descriptors of every keypoint, and all N x V x N similarities."""

    def _loss(self) -> Tensor:
        with patch("lisrd.train.objective.selection_weights", selection_weights_direct):
            return super()._loss()


_STEPS: tuple[tuple[str, type[GpuStep], type[TripletObjective]], ...] = (
    ("training step", GpuStep, TripletObjective),
    ("direct training step", GpuDirectStep, DirectObjective),
)


def training_cases(sizes: Sizes, meter: Meter) -> Iterator[Case]:
    """Forward, all losses and backward; then with the augmentation of its images, which is also measured alone."""
    for batch in sizes.triplets:
        for words, kind, objective in _STEPS:
            for unit in ("bfloat16", "float32"):
                prepare = partial(_step, sizes, meter, batch, unit, kind, objective)
                yield Case("train", f"{words}, batch {batch}", unit, prepare)
        for unit, with_step in (("", False), ("bfloat16", True)):
            words = "augmentation and training step" if with_step else "augmentation"
            prepare = partial(_augmented, sizes, meter, batch, with_step)
            yield Case("train", f"{words}, batch {batch}", unit, prepare)


def _step(
    sizes: Sizes, meter: Meter, batch: int, unit: str, kind: type[GpuStep], objective: type[TripletObjective]
) -> Work:
    inputs = _moved(triplets(batch, *sizes.training), meter.device)
    run = _built(kind, inputs, unit, objective, meter).run
    facts = {"loss": run(), **(meter.busy_share(run) if (kind, unit) == (GpuStep, "bfloat16") else {})}
    return Work(run, batch, facts=facts)


def _built(
    kind: type[GpuStep], inputs: Triplets, unit: str, objective: type[TripletObjective], meter: Meter
) -> GpuStep:
    with meter.device:
        return kind(inputs, getattr(torch, unit), objective=objective)


def _augmented(sizes: Sizes, meter: Meter, batch: int, with_step: bool) -> Work:
    """Samples lie on the device, as the trainer's loader would have brought them."""
    data, samples = _samples(sizes.training, batch)
    samples = {name: value.to(meter.device) for name, value in samples.items()}

    def augment() -> Triplets:
        return data.augmenter(samples, sample_generators(0, batch * next(data.steps), batch))

    step = _built(GpuStep, augment(), "bfloat16", TripletObjective, meter)

    def run() -> object:
        step.batch = augment()
        return step.run() if with_step else step.batch

    run()
    return Work(run, batch, facts=meter.busy_share(run) if with_step else {})


@lru_cache(maxsize=2)
def _samples(size: tuple[int, int, int], batch: int) -> tuple[Data, dict[str, Tensor]]:
    width, height, count = size
    with TemporaryDirectory() as directory:
        data = Data(Path(directory), batch, DataConfig(height=height, width=width, num_keypoints=count))
        return data, collate([data.dataset.sample(i) for i in range(batch)])


def _moved(batch: Triplets, device: torch.device) -> Triplets:
    return replace(batch, **{f.name: getattr(batch, f.name).to(device) for f in fields(batch)})


# --- The run


_CASES: dict[str, Callable[[Sizes, Meter], Iterator[Case]]] = {
    "ceilings": ceiling_cases,
    "describe": describing_cases,
    "train": training_cases,
    "match": matching_cases,
    "triton": triton_cases,
    "tiles": tile_cases,
}


def measured(case: Case, meter: Meter) -> dict[str, Any]:
    """The row of a case, or its error."""
    row: dict[str, Any] = {"group": case.group, "name": case.name, "unit": case.unit}
    begun = time.perf_counter()
    try:
        work = case.prepare()
        row |= meter.measure(work.run) | work.facts
        row |= {"operations": work.operations, "bytes": work.bytes}
        if work.items:
            row["items_per_second"] = work.items / row["seconds"]
    except Exception as error:  # the others are still worth measuring
        row["error"] = f"{type(error).__name__}: {error}"[:600]
    row["spent"] = round(time.perf_counter() - begun, 2)
    return row


def add_shares(rows: list[dict[str, Any]]) -> None:
    """To every row the share of the ceilings that it reaches: the longer of its two floors over its time."""
    ceilings = {row["unit"]: row for row in rows if row["group"] == "ceilings" and "seconds" in row}
    for row in rows:
        known = "seconds" in row and (row.get("operations") or row.get("bytes"))
        times = 3 if row["unit"].startswith("3 x") else 1
        product, copy = ceilings.get(row["unit"].removeprefix("3 x ")), ceilings.get("")
        if known and product and copy:
            by_operations = times * row["operations"] * product["seconds"] / (product["operations"] or 1)
            by_bytes = row["bytes"] * copy["seconds"] / copy["bytes"]
            row["floor_by"] = "operations" if by_operations > by_bytes else "bytes"
            row["share_of_ceiling"] = max(by_operations, by_bytes) / row["seconds"]


def machine(device: torch.device) -> dict[str, str]:
    """Names and versions that a figure depends on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    found = {"device": name, "python": platform.python_version(), "torch": torch.__version__}
    for package in ("triton", "kornia"):
        with contextlib.suppress(Exception):
            found[package] = __import__(package).__version__
    return found


def measure(options: argparse.Namespace) -> None:
    """Writes `results_gpu.json` after every case."""
    device = torch.device(options.device)
    meter = Meter(device, 0.0 if options.quick else options.seconds_per_case, 1 if options.quick else _ROUNDS)
    sizes = QUICK if options.quick else Sizes()
    options.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"machine": machine(device), "rows": []}
    begun = time.perf_counter()
    for case in chain.from_iterable(_CASES[group](sizes, meter) for group in options.only):
        if time.perf_counter() - begun > options.budget:
            print(f"the budget of {options.budget} s is spent before {case.name}", file=sys.stderr)
            break
        results["rows"].append(measured(case, meter))
        add_shares(results["rows"])
        (options.out / "results_gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        print("{name} ({unit}): {spent} s".format(**results["rows"][-1]), file=sys.stderr, flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=_HERE, help="folder of results_gpu.json, RESULTS_GPU.md")
    parser.add_argument("--report", action="store_true", help="only RESULTS_GPU.md, of the results in --out")
    parser.add_argument("--device", default="cuda", help="cpu: whether it runs, with --quick")
    parser.add_argument("--seconds-per-case", type=float, default=0.15, help="of timed calls")
    parser.add_argument("--budget", type=float, default=90.0, help="seconds after which no case is begun")
    parser.add_argument("--only", choices=GROUPS, nargs="+", default=GROUPS)
    parser.add_argument("--quick", action="store_true", help="tiny inputs: does it run?")
    options = parser.parse_args(arguments)
    if not options.report:
        measure(options)
    results = json.loads((options.out / "results_gpu.json").read_text())
    write_report(results, options.out / "RESULTS_GPU.md")


if __name__ == "__main__":
    main()
