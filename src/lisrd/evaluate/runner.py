"""The evaluation from end to end: data set, predict, score, summarise, report."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lisrd.errors import InputError
from lisrd.evaluate.bins import binned_scores
from lisrd.evaluate.cache import FeatureCache, file_name
from lisrd.evaluate.datasets import load_pairs
from lisrd.evaluate.datasets.records import EvaluationPair
from lisrd.evaluate.extremes import extreme_pictures
from lisrd.evaluate.geometry_rows import geometry_rows
from lisrd.evaluate.identity import describer_digest, detector_digest
from lisrd.evaluate.methods import Method, base_of, check_invariances, expand_parts, parse_method
from lisrd.evaluate.pair_matcher import forget_files
from lisrd.evaluate.pictures import Picture
from lisrd.evaluate.predict import Failures, Predictor, image_jobs
from lisrd.evaluate.score import PairResult, Scorer
from lisrd.evaluate.selection import selection_analysis
from lisrd.evaluate.stages import STAGES, GeometryRows
from lisrd.evaluate.summary import summarise
from lisrd.evaluate.workers import run_all
from lisrd.verify import Steps
from lisrd.whole_file import whole_file

#: Problems that come from the inputs; the others are a method's failures on sound inputs.
BROKEN_INPUT = ("image", "ground truth", "describer")


def evaluate(
    root: str | Path,
    layout: str,
    describers: Sequence[str],
    detector: str = "sift",
    max_keypoints: int = 1000,
    out: str | Path | None = None,
    workers: int = 1,
    limit: int | None = None,
    report: bool = True,
    progress: bool = True,
    geometry: GeometryRows = "off",
    **options: Any,
) -> dict[str, Any]:
    """Compare describers on the pairs of a data set, on the same keypoints (DESIGN section 9's `rows`).

    `layout` is one of `lisrd.evaluate.datasets.LAYOUTS` and `options` are its own; `describers` are names as
    in `lisrd.evaluate.methods`. `out` keeps features (a later run goes on from them), `results.json` and, with
    `report`, `report.html` and `report.md`; without it nothing is left on disk. `limit` takes that many
    pairs, spread evenly over the data set. `geometry` adds rows of the geometry stage, see `STAGES`.

    Returns `rows`, `geometry` (rows of its own), `pairs` (scores of every pair), `problems` (each with its
    `kind`; `BROKEN_INPUT` are the data's), `curves` (over rotation and light), `selection` (what was chosen and
    what it gained, per bank), `settings`, `seconds` and `files`.
    Raises `InputError` for unknown names, an absent data set, or features in `out` that something else made.
    """
    forget_files()
    names, digests = _checked_names(describers, detector, max_keypoints)
    stages = _stages(geometry)
    pairs = _spread(load_pairs(root, layout, **options), limit)
    settings = {
        "root": str(root),
        "layout": layout,
        "detector": detector,
        "max_keypoints": max_keypoints,
        **{name: str(value) if isinstance(value, Path) else value for name, value in options.items()},
    }
    with _feature_folder(out) as features:
        cache = FeatureCache(features / file_name(detector))
        start = time.perf_counter()
        predictor = Predictor(cache, detector, digests)
        failures = _predict(pairs, names, predictor, workers, progress)
        predicted = time.perf_counter()
        methods = _methods(names, cache, pairs, failures)
        scorer = Scorer(cache, tuple(methods), max_keypoints, failures, stages)
        results = run_all(scorer, pairs, workers, "score", progress)
        seconds = {"predict": predicted - start, "score": time.perf_counter() - predicted}
        document = _document(results, [method.name for method in methods], settings, seconds)
        if out is None:
            return document
        banks = document["selection"]
        pictures = extreme_pictures(pairs, results, methods, banks, cache, max_keypoints) if report else None
        return _written(document, Path(out), pictures)


def _checked_names(
    describers: Sequence[str], detector: str, max_keypoints: int
) -> tuple[list[str], dict[str, str]]:
    """The names once each, and what they stand for; a wrong name should not wait for all the others' work."""
    if not describers:
        raise InputError("no describers to evaluate; name some, for instance root-sift")
    if max_keypoints < 1:
        raise InputError(f"max_keypoints is {max_keypoints}; it must be at least 1")
    bases = dict.fromkeys(base for name in describers for base in parse_method(name).bases)
    digests = {base: describer_digest(base) for base in bases} | {detector: detector_digest(detector)}
    return list(dict.fromkeys(describers)), digests


def _stages(geometry: str) -> dict[str, Steps]:
    if geometry not in STAGES:
        raise InputError(f"geometry is {geometry!r}; use {', '.join(STAGES)}")
    return STAGES[geometry]


def _spread(pairs: list[EvaluationPair], limit: int | None) -> list[EvaluationPair]:
    if limit is None or limit >= len(pairs):
        return pairs
    if limit < 1:
        raise InputError(f"limit is {limit}; it must be at least 1")
    return [pairs[k * len(pairs) // limit] for k in range(limit)]


@contextmanager
def _feature_folder(out: str | Path | None) -> Iterator[Path]:
    if out is not None:
        yield Path(out) / "features"
        return
    with tempfile.TemporaryDirectory(prefix="lisrd-features-") as folder:
        yield Path(folder)


def _predict(
    pairs: Sequence[EvaluationPair],
    names: Sequence[str],
    predictor: Predictor,
    workers: int,
    progress: bool,
) -> Failures:
    sound = [pair for pair in pairs if pair.broken is None]
    jobs = image_jobs(sound, [parse_method(name) for name in names])
    failures = Failures()
    for failed in run_all(predictor, jobs, workers, "predict", progress):
        failures.merge(failed)
    return failures


def _methods(
    names: Sequence[str], cache: FeatureCache, pairs: Sequence[EvaluationPair], failures: Failures
) -> list[Method]:
    keys = {image.key for pair in pairs if pair.broken is None for image in (pair.image0, pair.image1)}
    invariances = {}
    for base in dict.fromkeys(base_of(name) for name in names):
        described = (k for k in keys if k not in failures.images and (base, k) not in failures.features)
        key = min(described, default=None)
        invariances[base] = cache.invariances(base, key) if key else ()
    methods = [parse_method(name) for name in expand_parts(names, invariances)]
    check_invariances([method for method in methods if invariances[method.base]], invariances)
    return methods


def _document(
    results: Sequence[PairResult],
    describers: Sequence[str],
    settings: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    problems = [asdict(problem) for result in results for problem in result.problems]
    pairs = [
        {"name": r.name, "scene": r.scene, "part": r.part, "change": r.change, "scores": r.scores}
        for r in results
    ]
    return {
        "rows": summarise(results, describers),
        "geometry": geometry_rows(results, describers),
        "problems": problems,
        "curves": binned_scores(results, describers),
        "selection": selection_analysis(results, describers),
        "settings": {**settings, "describers": list(describers)},
        "seconds": seconds,
        "pairs": pairs,
        "files": {},
    }


def _written(document: dict[str, Any], out: Path, pictures: Sequence[Picture] | None) -> dict[str, Any]:
    out.mkdir(parents=True, exist_ok=True)
    document["files"] = {"results": str(out / "results.json"), "features": str(out / "features")}
    if pictures is not None:
        from lisrd.evaluate.report import write_report  # loads matplotlib, which scoring alone need not

        document["files"] |= write_report(document, out, pictures)
    with whole_file(out / "results.json") as partial:
        partial.write_text(json.dumps(document, indent=1, allow_nan=False))
    return document
