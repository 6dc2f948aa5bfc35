"""The report as one HTML page that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from lisrd.evaluate.pictures import Picture
from lisrd.evaluate.report.plots import binned_plot, mma_plot
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

#: Problems listed one by one; the JSON holds all of them.
MAX_PROBLEMS = 50

LEGEND = (
    "Shares in per cent, small: 95 % interval. H: homographies within 3 px; AUC: of the corner errors by MAGSAC++; "
    "error: median of the correct matches; ms: describing and matching a pair."
)

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c;
  max-width: 1180px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
h3 { font-size: 1rem; margin-bottom: .2rem; }
nav a { margin-right: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e6e6e6; vertical-align: top; }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
td small { display: block; color: #767676; white-space: nowrap; }
td.best { font-weight: 700; background: #eaf6f1; }
svg { max-width: 100%; height: auto; }
figure { margin: 1rem 0; } figure img { max-width: 100%; display: block; }
figcaption { font-size: 13px; color: #555; }
"""


def html_report(document: dict[str, Any], pictures: Sequence[Picture] = ()) -> str:
    """Tables and curves per part, what selection chose and gained, the extreme pairs, and what went wrong."""
    sections = {part: _part_section(document, part) for part in parts_of(document)}
    sections |= {"over what changed": _curves_section(document)}
    labels = labels_of(document["settings"]["describers"])
    for bank, found in document["selection"].items():
        sections[f"selection of {labels[bank]}"] = _selection_section(bank, found)
    sections |= {"pairs": _pictures_section(pictures), "problems": _problems_section(document)}
    present = [(title, body) for title, body in sections.items() if body]
    links = " ".join(f'<a href="#s{k}">{escape(title)}</a>' for k, (title, _) in enumerate(present))
    bodies = "\n".join(
        f'<section id="s{k}"><h2>{escape(title)}</h2>\n{body}</section>'
        for k, (title, body) in enumerate(present)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>LISRD evaluation</title><style>{STYLE}</style></head><body>\n<h1>Evaluation</h1>"
        f"<p>{escape(settings_line(document))}</p>\n<nav>{links}</nav>\n{bodies}\n</body></html>\n"
    )


def _part_section(document: dict[str, Any], part: str) -> str:
    rows = rows_of(document, part)
    pairs, excluded = rows[0]["pairs"], rows[0]["excluded"]
    detector = rows[0].get("repeatability")
    about = f"{pairs} pairs" + (f", {excluded} excluded" if excluded else "")
    if detector is not None:
        about += f"; the detector repeats {100 * detector:.0f} % of its keypoints, the bound of any recall"
    table = _number_table(rows, columns_of(rows), ["label"])
    estimates = _geometry_table(geometry_rows_of(document, part))
    return f"<p>{about}. {LEGEND}</p>{table}{estimates}{mma_plot(rows)}"


def _geometry_table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    table = _number_table(rows, GEOMETRY_COLUMNS, ["label", "estimate"])
    return f"<h3>Geometry</h3><p>{escape(GEOMETRY_LEGEND)}</p>{table}"


def _number_table(rows: Sequence[dict[str, Any]], columns: Sequence[Column], names: Sequence[str]) -> str:
    """Rows named by `names`, then a number of each column."""
    formatted = [cells_of(rows, column) for column in columns]
    body = [
        [*(_td(escape(row[name])) for name in names), *(_number(column[k]) for column in formatted)]
        for k, row in enumerate(rows)
    ]
    titles = ["describer", "estimate"][: len(names)]
    return _table([*titles, *(column.title for column in columns)], body)


def _curves_section(document: dict[str, Any]) -> str:
    labels = labels_of(document["settings"]["describers"])
    plots = ((curve["label"], binned_plot(curve, labels)) for curve in document["curves"].values())
    return "".join(f"<h3>Over the {escape(label)}</h3>{plot}" for label, plot in plots if plot)


def _selection_section(bank: str, found: dict[str, Any]) -> str:
    known = {"chosen": "invariance chosen", "best_single": "best single descriptor", "weights": "mean weight"}
    names = list(found["weights"])
    shares = [
        [_td(escape(name)), *(_td(f"{100 * found[key].get(name, 0):.0f} %") for key in known if key in found)]
        for name in names
    ]
    table = _table(["descriptor", *(title for key, title in known.items() if key in found)], shares)
    sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in gain_sentences(found))
    turns = f"<li>quarter turns chosen: {escape(share_text(found['turns']))}</li>"
    return f"<ul>{sentences}{turns}</ul>{table}<h3>Per scene</h3>{_scene_table(bank, found['scenes'])}"


def _scene_table(bank: str, scenes: Sequence[dict[str, Any]]) -> str:
    titles = {bank: "selection", f"{bank}:mean": "mean", f"{bank}:oracle": "oracle"}
    known = [name for name in titles if name in scenes[0]]
    rows = []
    for scene in scenes:
        numbers = [f"{100 * scene[name]:.1f}" for name in known]
        words = [scene["scene"], scene["part"], str(scene["pairs"]), *numbers, share_text(scene["chosen"])]
        rows.append([_td(escape(word)) for word in words])
    return _table(["scene", "part", "pairs", *(f"precision, {titles[n]}" for n in known), "chosen"], rows)


def _pictures_section(pictures: Sequence[Picture]) -> str:
    return "".join(
        f'<figure><h3>{escape(p.title)}</h3><img alt="{escape(p.title)}" src="{p.data_url}">'
        f"<figcaption>{escape(p.caption)}; green: correct, orange: wrong</figcaption></figure>"
        for p in pictures
    )


def _problems_section(document: dict[str, Any]) -> str:
    problems = document["problems"]
    if not problems:
        return "<p>None.</p>"
    counts = _table(
        ["kind", "times", "in the means"], [[_td(escape(v)) for v in row] for row in problem_counts(document)]
    )
    listed = "".join(
        f"<li>{escape(p['kind'])}: {escape(p['pair'])}"
        f"{escape(', ' + p['describer'] if p['describer'] else '')}: {escape(p['what'])}</li>"
        for p in problems[:MAX_PROBLEMS]
    )
    more = len(problems) - MAX_PROBLEMS
    rest = f"<p>{more} more are in results.json.</p>" if more > 0 else ""
    return f"{counts}<ul>{listed}</ul>{rest}"


def _number(cell: Any) -> str:
    interval = f"<small>{cell.interval}</small>" if cell.interval else ""
    return (
        f'<td class="best">{cell.text}{interval}</td>' if cell.is_best else f"<td>{cell.text}{interval}</td>"
    )


def _td(html: str) -> str:
    return f"<td>{html}</td>"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
