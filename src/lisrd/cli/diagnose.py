"""`lisrd diagnose`: which invariances does this collection need?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lisrd.cli.collections import list_broken, name_broken, progress
from lisrd.cli.console import JsonOption, answer, words
from lisrd.cli.engine import EngineOption, RayAddressOption, WorkersOption, build_engine
from lisrd.cli.pair import DescriberOption, DetectorOption, MaxKeypointsOption
from lisrd.errors import InputError
from lisrd.whole_file import writing

if TYPE_CHECKING:
    from lisrd.describe import Describer
    from lisrd.diagnose import Diagnosis
    from lisrd.scale.pairs import Pair

#: Up to here all pairs are matched; beyond, each image with this many of those that look most alike.
_EXHAUSTIVE_IMAGES, _SIMILAR_IMAGES = 40, 10

_LISTED = 20


def diagnose(
    source: Annotated[
        Path, typer.Argument(help="A folder or list of images, or the .h5 of `lisrd extract`.")
    ],
    pairs: Annotated[Path | None, typer.Option(help="A line `NAME0 NAME1` for each pair.")] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Keep features and matches in this folder, to go on."),
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the diagnosis into this .png file.")] = None,
    describer: DescriberOption = "pyramid",
    detector: DetectorOption = "sift",
    max_keypoints: MaxKeypointsOption = 1024,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    json: JsonOption = False,
) -> None:
    """Say which invariances a collection needs: weights over its pairs, turned images, changes of light."""
    from lisrd import scale
    from lisrd.diagnose import advice_on
    from lisrd.diagnose import diagnose as diagnose_files
    from lisrd.diagnose.picture import draw_diagnosis
    from lisrd.view.plot import check_suffix

    if picture:
        check_suffix(picture)
    runner = build_engine(engine, workers, ray_address)
    with _kept_in(output) as folder:
        features, broken = source, []
        if source.suffix != ".h5":
            features = folder / "features.h5"
            built = _choosing(describer)
            with progress("images") as advance:
                extracted = scale.extract(
                    source,
                    features,
                    built,
                    max_keypoints,
                    advance,
                    detector=detector,
                    keep_turns=True,
                    engine=runner,
                )
            broken = extracted.broken
        chosen = _pairs(features, pairs, None if features == source else source)
        with progress("pairs") as advance:
            matched = scale.match_pairs(
                features, chosen, folder / "matches.h5", on_progress=advance, engine=runner
            )
        broken += matched.broken
        unmatched = {name for name, _ in matched.broken}
        either_way = {frozenset(pair) for pair in chosen if " ".join(pair) in unmatched}
        chosen = [pair for pair in chosen if frozenset(pair) not in either_way]
        if not chosen:  # what comes next is the end
            name_broken(broken)
        with progress("evidence") as advance:
            diagnosis = diagnose_files(features, folder / "matches.h5", chosen, advance)
    advice = advice_on(diagnosis)
    if picture and not diagnosis.weights:
        words.print(f"no pair was verified, so there is nothing to draw into {picture}", markup=False)
        picture = None
    if picture:
        draw_diagnosis(diagnosis, picture)
    document = {
        **diagnosis.as_dict(),
        "advice": advice,
        "picture": None if picture is None else str(picture),
        "broken": broken,
    }
    answer(document, json, _text(diagnosis, advice))
    list_broken(broken)


def _choosing(describer: str) -> Describer:
    """The describer of this name. Raises InputError for one without a choice of invariances."""
    from lisrd.describe import build_describer
    from lisrd.describe.describer import described_invariances

    built = build_describer(describer)
    if len(described_invariances(built)) == 1:
        raise InputError(f"{describer} has no invariances to choose from: use pyramid, paper or a bank")
    return built


@contextmanager
def _kept_in(output: Path | None) -> Iterator[Path]:
    """The folder of the files, or one that is gone afterwards."""
    if output is not None:
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="lisrd-") as folder:
        yield Path(folder)


def _pairs(features: Path, pairs: Path | None, images: Path | None) -> list[Pair]:
    """Those of the file, or of all images that were described; `images` says which are still there."""
    from lisrd import scale

    if pairs is not None:
        return scale.read_pairs(pairs)
    names = scale.image_names(features, images)
    if len(names) <= _EXHAUSTIVE_IMAGES:
        return scale.exhaustive_pairs(names)
    return scale.similar_pairs(features, _SIMILAR_IMAGES, names)


def _text(diagnosis: Diagnosis, advice: list[str]) -> str:
    lines = [
        f"{len(diagnosis.images)} images, {len(diagnosis.verified)} of {len(diagnosis.pairs)} pairs verified"
    ]
    if diagnosis.weights:
        lines += ["", f"{'invariance':24}  wins   mean   10 %   50 %   90 %"]
    lines += [
        f"{one.invariance:24} {one.wins:5.0%} {one.mean:6.2f} {one.low:6.2f} {one.median:6.2f} {one.high:6.2f}"
        for one in diagnosis.weights
    ]
    turned = sorted((i for i in diagnosis.images if i.turned), key=lambda i: -abs(i.angle or 0))
    lines += _listed(
        "turned images, degrees clockwise against most of their group",
        [f"{i.angle:7.1f}  +-{i.disagreement:.1f}  {i.name}" for i in turned],
    )
    relit = sorted((i for i in diagnosis.images if i.other_light), key=lambda i: -(i.light_change or 0))
    lines += _listed(
        "images under another light than most of their partners",
        [f"{i.light_change:7.2f}  {i.name}" for i in relit],
    )
    lines += _listed("without a verified pair", [i.name for i in diagnosis.images if not i.verified_pairs])
    return "\n".join([*lines, "", *advice])


def _listed(title: str, rows: list[str]) -> list[str]:
    """The rows under their title, none without rows; the rest of too many is in the JSON document."""
    more = [f"and {len(rows) - _LISTED} more"] if len(rows) > _LISTED else []
    return ["", f"{title}:", *rows[:_LISTED], *more] if rows else []
