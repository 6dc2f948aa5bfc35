"""`lisrd train` and `lisrd evaluate`."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lisrd.cli.console import SOME_BROKEN, JsonOption, answer, file_errors, words
from lisrd.errors import InputError


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; see configs/.")],
    data: Annotated[Path, typer.Option(help="Folder that the sources' paths are below.")],
    out: Annotated[Path, typer.Option(help="Checkpoints, metrics and validation go here.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Stop after this step.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this time, over all sessions.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the newest checkpoint in --out.")
    ] = False,
    init: Annotated[
        str | None, typer.Option(help="Weights that a new run starts from: a bundled name or a file.")
    ] = None,
    seed: int = 0,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read images.")] = 1,
    export: Annotated[Path | None, typer.Option(help="Write the averaged weights here at the end.")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Draw what the network would see, and stop.")] = None,
    json: JsonOption = False,
) -> None:
    """Train descriptors and their selection on your own images."""
    from lisrd.train.data.sheet import draw_sheet
    from lisrd.train.export import export_network
    from lisrd.train.run import build_trainer

    progress = _progress()
    task = progress.add_task("training", total=1.0)

    def show(row: dict[str, float]) -> None:
        text = f"step {row['step']}  loss {row['loss']:.3f}  {row['samples_per_second']:.1f} triplets/s"
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
        init=init,
    )
    if sheet:
        with file_errors("the sheet", sheet):
            draw_sheet(trainer.preview(), sheet)
        answer({"sheet": str(sheet)}, json, f"sheet: {sheet}")
        return
    with progress:
        network = trainer.fit()
    if export:
        export_network(network, export, trainer.provenance())
    scores = trainer.last_validation
    document = {"step": trainer.progress.step, "out": str(out), "validation": scores, "export": export}
    answer(document, json, f"{trainer.progress.step} steps; checkpoints and metrics in {out}")


def evaluate(
    root: Annotated[str, typer.Argument(help="Data set folder; or `compare` and two result files.")],
    others: Annotated[list[Path] | None, typer.Argument(help="With compare: A.json B.json.")] = None,
    layout: Annotated[str, typer.Option(help="hpatches, rdnim, pairs, poses or sweep.")] = "hpatches",
    describers: Annotated[str, typer.Option(help="Names, separated by commas.")] = "pyramid,root-sift",
    detector: str = "sift",
    max_keypoints: Annotated[int, typer.Option(min=1)] = 1000,
    out: Annotated[Path | None, typer.Option(help="Features, scores and the report go here.")] = None,
    workers: Annotated[int, typer.Option(min=1)] = 1,
    json: JsonOption = False,
) -> None:
    """Measure describers on a data set, or compare two results."""
    if root == "compare":
        from lisrd.evaluate import compare

        if not others or len(others) != 2:
            raise InputError("compare needs two result files: lisrd evaluate compare A.json B.json")
        document = compare(others[0], others[1])
        answer(document, json, json_format.dumps(document, indent=2))
        return
    from lisrd.evaluate import BROKEN_INPUT
    from lisrd.evaluate import evaluate as run_evaluation

    document = run_evaluation(
        Path(root),
        layout=layout,
        describers=split_describers(describers),
        detector=detector,
        max_keypoints=max_keypoints,
        out=out,
        workers=workers,
    )
    answer(document, json, _table(document["rows"]))
    broken = [problem for problem in document["problems"] if problem["kind"] in BROKEN_INPUT]
    for problem in broken:
        words.print(f"broken: {problem}", markup=False)
    if broken:
        raise typer.Exit(SOME_BROKEN)


def split_describers(text: str) -> list[str]:
    """Names at commas; a part that is no name (the second path of lisrd-aliked) stays with the one before."""
    names: list[str] = []
    for part in text.split(","):
        if names and names[-1].startswith("lisrd-aliked=") and "," not in names[-1]:
            names[-1] += f",{part}"
        elif part.strip():
            names.append(part.strip())
    return names


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'describer':<40} {'part':<13} {'pairs':>5} {'precision':>9} {'recall':>7} {'homography':>10}"]
    for row in rows:
        shares = [row.get(name) for name in ("precision", "recall", "homography_accuracy")]
        shown = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
        lines.append(
            f"{row['describer']:<40} {row['part']:<13} {row['pairs']:>5} {shown[0]:>9} {shown[1]:>7} {shown[2]:>10}"
        )
    return "\n".join(lines)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=words)
