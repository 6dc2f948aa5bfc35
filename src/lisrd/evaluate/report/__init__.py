"""The report of an evaluation: one self-contained HTML page, the same tables as Markdown, its curves as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lisrd.evaluate.pictures import Picture
from lisrd.evaluate.report.markdown import markdown_report
from lisrd.evaluate.report.page import html_report
from lisrd.evaluate.report.plots import binned_png
from lisrd.evaluate.report.words import labels_of
from lisrd.whole_file import whole_file

__all__ = ["Picture", "html_report", "markdown_report", "write_report"]


def write_report(document: dict[str, Any], out: Path, pictures: Sequence[Picture] = ()) -> dict[str, str]:
    """Write `out`/report.html, `out`/report.md, and `out`/AXIS.png for each curve; returns their paths by name."""
    out.mkdir(parents=True, exist_ok=True)
    page, text = out / "report.html", out / "report.md"
    for path, content in ((page, html_report(document, pictures)), (text, markdown_report(document))):
        with whole_file(path) as partial:
            partial.write_text(content, encoding="utf-8")
    return {"html": str(page), "markdown": str(text), **_curves(document, out)}


def _curves(document: dict[str, Any], out: Path) -> dict[str, str]:
    """Pictures of the scores over what changed, for documents that cannot hold the page."""
    labels = labels_of(document["settings"]["describers"])
    written = {}
    for axis, curve in document["curves"].items():
        picture = binned_png(curve, labels)
        if picture is not None:
            path = out / f"{axis}.png"
            with whole_file(path) as partial:
                partial.write_bytes(picture)
            written[axis] = str(path)
    return written
