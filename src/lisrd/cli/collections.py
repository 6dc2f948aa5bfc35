"""`lisrd extract`, `pairs`, `match-pairs` and `colmap`: whole collections of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from lisrd.cli.console import SOME_BROKEN, JsonOption, answer, words
from lisrd.cli.engine import EngineOption, RayAddressOption, WorkersOption, build_engine
from lisrd.cli.pair import DescriberOption, DetectorOption, DeviceOption, MaxKeypointsOption, PrecisionOption
from lisrd.cli.policy import (
    ForbidOption,
    OnlyOption,
    PriorOption,
    RatioOption,
    SelectionOption,
    TurnOption,
    build_policy,
)
from lisrd.errors import InputError

OutputOption = Annotated[Path, typer.Option("--output", "-o")]


def extract(
    images: Annotated[Path, typer.Argument(help="A folder of images, or a text file with one path a line.")],
    output: OutputOption,
    describer: DescriberOption = "pyramid",
    detector: DetectorOption = "sift",
    max_keypoints: MaxKeypointsOption = 2048,
    keep_turns: Annotated[bool, typer.Option(help="Keep the turned descriptors: 2.5 times the size.")] = True,
    device: DeviceOption = "cpu",
    precision: PrecisionOption = "auto",
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images of one size at once: 1 on a CPU, 8 on a GPU.")
    ] = None,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    json: JsonOption = False,
) -> None:
    """Describe every image into one .h5 file in hloc's layout; go on where an earlier run stopped."""
    from lisrd import scale
    from lisrd.describe import build_describer

    built = build_describer(describer, device, precision)  # type: ignore[arg-type]
    with progress("images") as advance:
        report = scale.extract(
            images,
            output,
            built,
            max_keypoints,
            advance,
            detector=detector,
            keep_turns=keep_turns,
            batch=batch,
            engine=build_engine(engine, workers, ray_address, device),
        )
    text = (
        f"{report.described} described, {report.skipped} there before, {len(report.broken)} broken: {output}"
    )
    answer({**asdict(report), "output": str(output)}, json, text)
    list_broken(report.broken)


def pairs(
    features: Annotated[Path, typer.Argument(help="The .h5 file of `lisrd extract`.")],
    output: OutputOption,
    method: Annotated[str, typer.Option(help="exhaustive, sequential or similar.")] = "similar",
    top_k: Annotated[int, typer.Option(min=1, help="similar: partners of each image.")] = 20,
    overlap: Annotated[int, typer.Option(min=1, help="sequential: how many images ahead.")] = 10,
    json: JsonOption = False,
) -> None:
    """Choose the image pairs to match; `similar` compares whole images by their meta descriptors."""
    from lisrd import scale

    if method == "similar":
        chosen = scale.similar_pairs(features, top_k)
    elif method == "sequential":
        chosen = scale.sequential_pairs(scale.image_names(features), overlap)
    elif method == "exhaustive":
        chosen = scale.exhaustive_pairs(scale.image_names(features))
    else:
        raise InputError(f"--method is {method!r}; use exhaustive, sequential or similar")
    scale.write_pairs(chosen, output)
    answer({"pairs": len(chosen), "output": str(output)}, json, f"{len(chosen)} pairs: {output}")


def match_pairs(
    features: Annotated[Path, typer.Argument(help="The .h5 file of `lisrd extract`.")],
    pairs: Annotated[Path, typer.Argument(help="A line `NAME0 NAME1` for each pair.")],
    output: OutputOption,
    selection: SelectionOption = "soft",
    turn: TurnOption = "auto",
    only: OnlyOption = [],  # noqa: B006
    forbid: ForbidOption = [],  # noqa: B006
    prior: PriorOption = [],  # noqa: B006
    ratio: RatioOption = None,
    engine: EngineOption = "local",
    workers: WorkersOption = None,
    ray_address: RayAddressOption = None,
    json: JsonOption = False,
) -> None:
    """Match the pairs of a list into one .h5 file in hloc's layout; go on where an earlier run stopped."""
    from lisrd import scale

    policy = build_policy(selection, turn, only, forbid, prior, ratio)
    runner = build_engine(engine, workers, ray_address)
    with progress("pairs") as advance:
        report = scale.match_pairs(features, pairs, output, policy, advance, engine=runner)
    text = f"{report.matched} matched, {report.skipped} there before, {len(report.broken)} broken: {output}"
    answer({**asdict(report), "output": str(output)}, json, text)
    list_broken(report.broken)


def colmap(
    images: Annotated[Path, typer.Argument(help="A folder of images.")],
    output: OutputOption,
    describer: DescriberOption = "pyramid",
    detector: DetectorOption = "sift",
    max_keypoints: MaxKeypointsOption = 4096,
    one_camera: Annotated[bool, typer.Option(help="All images of one size are one camera's.")] = False,
    seed: int = 0,
    json: JsonOption = False,
) -> None:
    """Reconstruct a folder of images with COLMAP: features, matches, database, verification, mapping."""
    from lisrd.adapters.colmap import reconstruct
    from lisrd.describe import build_describer

    with progress("images, then pairs") as advance:
        report = reconstruct(
            images,
            output,
            build_describer(describer),
            detector=detector,
            max_keypoints=max_keypoints,
            one_camera=one_camera,
            seed=seed,
            on_progress=advance,
        )
    error = "" if report.reprojection_error is None else f", {report.reprojection_error:.2f} px"
    text = (
        f"{report.registered} of {report.images} images registered, {report.points} points{error}: {output}"
    )
    answer(report.as_dict(), json, text)
    list_broken(report.broken)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, moved by calling it with what is done and all there is."""
    with Progress(console=words) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def list_broken(broken: list[tuple[str, str]]) -> None:
    """Name the broken inputs and end with the exit code that says so."""
    name_broken(broken)
    if broken:
        raise typer.Exit(SOME_BROKEN)


def name_broken(broken: list[tuple[str, str]]) -> None:
    """A line for each on standard error."""
    for name, reason in broken:
        words.print(f"broken: {name}: {reason}", markup=False)
