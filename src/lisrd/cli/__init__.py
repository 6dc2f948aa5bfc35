"""The command line: every command has --json and the exit codes 0, 2 and 3."""

from __future__ import annotations

from typing import Annotated

import typer

import lisrd
from lisrd.cli import console
from lisrd.cli.collections import colmap, extract, match_pairs, pairs
from lisrd.cli.diagnose import diagnose
from lisrd.cli.evaluation import evaluate
from lisrd.cli.export import export_onnx
from lisrd.cli.learning import train
from lisrd.cli.pair import match
from lisrd.cli.serve import serve
from lisrd.cli.tools import convert, info

app = typer.Typer(
    name="lisrd",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for command in (
    match,
    extract,
    pairs,
    match_pairs,
    colmap,
    diagnose,
    train,
    evaluate,
    convert,
    export_onnx,
    info,
    serve,
):
    app.command(command.__name__.replace("_", "-"))(command)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"lisrd {lisrd.__version__}")
        raise typer.Exit


@app.callback()
def _whole(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Match images whose rotation and light have changed."""


def main() -> None:
    """What `lisrd_command` starts once everything is imported."""
    console.run(app)
