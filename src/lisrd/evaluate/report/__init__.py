"""The report of an evaluation: one self-contained HTML page, and the same tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lisrd.evaluate.pictures import Picture
from lisrd.evaluate.report.markdown import markdown_report
from lisrd.evaluate.report.page import html_report

__all__ = ["Picture", "html_report", "markdown_report", "write_report"]


def write_report(document: dict[str, Any], out: Path, pictures: Sequence[Picture] = ()) -> dict[str, str]:
    """Write `out`/report.html and `out`/report.md; returns their paths by name."""
    out.mkdir(parents=True, exist_ok=True)
    page, text = out / "report.html", out / "report.md"
    page.write_text(html_report(document, pictures), encoding="utf-8")
    text.write_text(markdown_report(document), encoding="utf-8")
    return {"html": str(page), "markdown": str(text)}
