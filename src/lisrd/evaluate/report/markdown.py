"""The tables of an evaluation as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lisrd.evaluate.report.tables import (
    GEOMETRY_COLUMNS,
    Column,
    cells_of,
    columns_of,
    geometry_rows_of,
    parts_of,
    rows_of,
)
from lisrd.evaluate.report.words import (
    GEOMETRY_LEGEND,
    gain_sentences,
    labels_of,
    problem_counts,
    settings_line,
    share_text,
)


def markdown_report(document: dict[str, Any]) -> str:
    """Tables per part with 95 % intervals, the selection analysis, and what went wrong."""
    sections = [f"# Evaluation\n\n{settings_line(document)}"]
    sections += [_part_section(document, part) for part in parts_of(document)]
    labels = labels_of(document["settings"]["describers"])
    sections += [_selection_section(labels[bank], found) for bank, found in document["selection"].items()]
    sections.append(_problem_section(document))
    return "\n\n".join(sections) + "\n"


def _part_section(document: dict[str, Any], part: str) -> str:
    rows = rows_of(document, part)
    section = f"## {part}: {rows[0]['pairs']} pairs\n\n{_number_table(rows, columns_of(rows), ['label'])}"
    estimates = geometry_rows_of(document, part)
    if estimates:
        table = _number_table(estimates, GEOMETRY_COLUMNS, ["label", "estimate"])
        section += f"\n\n{GEOMETRY_LEGEND}\n\n{table}"
    return section


def _number_table(rows: Sequence[dict[str, Any]], columns: Sequence[Column], names: Sequence[str]) -> str:
    """Rows named by `names`, then a number of each column with its interval, the best ones bold."""
    formatted = [cells_of(rows, column) for column in columns]
    lines = []
    for k, row in enumerate(rows):
        cells = [column[k] for column in formatted]
        texts = (f"**{cell.text}**" if cell.is_best else cell.text for cell in cells)
        ends = (f" ({cell.interval})" if cell.interval else "" for cell in cells)
        named = [row[name] for name in names]
        lines.append([*named, *(text + end for text, end in zip(texts, ends, strict=True))])
    titles = ["describer", "estimate"][: len(names)]
    return _table([*titles, *(column.title for column in columns)], lines)


def _selection_section(bank: str, found: dict[str, Any]) -> str:
    lines = [f"* chosen: {share_text(found['chosen'])}", f"* turns: {share_text(found['turns'])}"]
    if "best_single" in found:
        lines.append(f"* best single descriptor: {share_text(found['best_single'])}")
    lines += [f"* {sentence}" for sentence in gain_sentences(found)]
    return f"## Selection of {bank}\n\n" + "\n".join(lines)


def _problem_section(document: dict[str, Any]) -> str:
    counts = problem_counts(document)
    if not counts:
        return "## Problems\n\nNone."
    return "## Problems\n\n" + _table(["kind", "times", "in the means"], counts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
