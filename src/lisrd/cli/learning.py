"""`lisrd train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lisrd.cli.console import JsonOption, answer, words


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; see configs/.")],
    data: Annotated[Path, typer.Option(help="Folder that the sources' paths are below.")],
    out: Annotated[Path, typer.Option(help="Checkpoints, metrics and validation go here.")],
    steps: Annotated[
        int | None, typer.Option(min=0, help="Stop after this step; 0 only validates and exports.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time, over all sessions.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint in --out.")
    ] = False,
    init: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights to start from: a bundled name or a file; given several times, their mean."
        ),
    ] = None,
    val: Annotated[
        Path | None, typer.Option(help="Real pairs to validate on: a folder as RDNIM's or HPatches'.")
    ] = None,
    val_pairs: Annotated[int, typer.Option(min=1, help="How many of them.")] = 40,
    seed: int = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 1,
    export: Annotated[Path | None, typer.Option(help="Write the averaged weights here at the end.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Draw what the network would see, and stop.")] = None,
    json: JsonOption = False,
) -> None:
    """Train descriptors and their selection on your own images."""
    from lisrd.cli.real_pairs import RealPairs
    from lisrd.train.data.sheet import draw_sheet
    from lisrd.train.export import export_network
    from lisrd.train.run import build_trainer

    progress = _progress()
    task = progress.add_task("training", total=1.0)

    def show(row: dict[str, float]) -> None:
        scores = [kind["soft"] for kind in trainer.last_validation.values()]
        score = f"  validation {sum(scores) / len(scores):.0f} %" if scores else ""
        text = (
            f"step {row['step']}  loss {row['loss']:.3f}{score}  {row['samples_per_second']:.1f} triplets/s"
        )
        progress.update(task, completed=row["spent"], description=text)

    trainer = build_trainer(
        config,
        data,
        out,
        steps=steps,
        minutes=minutes,
        seed=seed,
        workers=workers,
        resume=resume,
        on_step=show,
        init=init or (),
        real_pairs=RealPairs(val, out, val_pairs) if val else None,
    )
    if sheet:
        draw_sheet(trainer.preview(), sheet)
        answer({"sheet": str(sheet)}, json, f"sheet: {sheet}")
        return
    with progress:
        network = trainer.fit()
    if not trainer.is_main:  # one of several processes answers
        return
    if export:
        export_network(network, export, trainer.provenance())
    scores = trainer.last_validation
    document = {"step": trainer.progress.step, "out": str(out), "validation": scores, "export": export}
    answer(document, json, f"{trainer.progress.step} steps; checkpoints and metrics in {out}")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=words)
