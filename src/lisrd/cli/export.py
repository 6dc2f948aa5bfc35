"""`lisrd export-onnx`: a describer and its matcher for use without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lisrd.cli.console import JsonOption, answer
from lisrd.cli.pair import DescriberOption


def export_onnx(
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder of the two files.")],
    describer: DescriberOption = "pyramid",
    json: JsonOption = False,
) -> None:
    """Write describer.onnx and matcher.onnx, checked against torch; about half a minute."""
    from lisrd.adapters import onnx

    files = onnx.export_onnx(describer, output)
    document = {
        "describer": str(files.describer),
        "matcher": str(files.matcher),
        "largest_difference": files.largest_difference,
    }
    text = f"wrote {files.describer} and {files.matcher}; within {files.largest_difference:.1g} of torch"
    answer(document, json, text)
