"""The command line: every command has --json and the exit codes 0, 2 and 3."""

from __future__ import annotations

import typer

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
    help="Match images whose rotation and light have changed.",
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


def main() -> None:
    """The entry point of `lisrd`."""
    console.run(app)
