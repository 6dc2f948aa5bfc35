"""What stands in the tables, the same for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lisrd.evaluate.methods import split_name
from lisrd.evaluate.report.words import labels_of


@dataclass(frozen=True, slots=True)
class Column:
    """One number of a row: `percent` with its interval, or a plain number."""

    key: str
    title: str
    percent: bool = False
    digits: int = 1
    best: str = ""  # "high" or "low": which one is emphasised


@dataclass(frozen=True, slots=True)
class Cell:
    """A formatted number; `interval` is empty where there is none."""

    text: str
    interval: str = ""
    is_best: bool = False


COLUMNS = (
    Column("precision", "precision", percent=True, best="high"),
    Column("recall", "recall", percent=True, best="high"),
    Column("homography_accuracy", "H, RANSAC", percent=True, best="high"),
    Column("homography_accuracy_magsac", "H, MAGSAC++", percent=True, best="high"),
    Column("homography_auc_1", "AUC 1 px", percent=True, best="high"),
    Column("homography_auc_3", "AUC 3 px", percent=True, best="high"),
    Column("homography_auc_5", "AUC 5 px", percent=True, best="high"),
    Column("pose_auc_5", "pose AUC 5°", percent=True, best="high"),
    Column("pose_auc_10", "pose AUC 10°", percent=True, best="high"),
    Column("pose_auc_20", "pose AUC 20°", percent=True, best="high"),
    Column("median_error", "error, px", digits=2, best="low"),
    Column("num_matches", "matches", digits=0),
    Column("num_correct", "correct", digits=0, best="high"),
    Column("num_inliers", "inliers", digits=0),
    Column("milliseconds", "ms", digits=0),
)

#: Of the rows of the geometry stage, each an estimate of one describer's matches.
GEOMETRY_COLUMNS = (
    *(Column(f"accuracy_{t}", f"within {t} px", percent=True, best="high") for t in (1, 3, 5)),
    *(Column(f"auc_{t}", f"AUC {t} px", percent=True, best="high") for t in (1, 3, 5)),
    Column("median_error", "error, px", digits=2, best="low"),
    Column("error_of_all", "of all matches, px", digits=2, best="low"),
    Column("num_correct", "correct", digits=0, best="high"),
)


def parts_of(document: dict[str, Any]) -> list[str]:
    """The parts in the order of their rows; a data set of one part is shown once, not again as `all`."""
    parts = list(dict.fromkeys(row["part"] for row in document["rows"]))
    return parts[:1] if len(parts) == 2 else parts


def rows_of(document: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """The rows of a part, each with a short `label` and the time per pair in milliseconds."""
    labels = labels_of(document["settings"]["describers"])
    rows = (row for row in document["rows"] if row["part"] == part)
    return [{**row, "label": labels[row["describer"]], "milliseconds": _milliseconds(row)} for row in rows]


def geometry_rows_of(document: dict[str, Any], part: str) -> list[dict[str, Any]]:
    """The rows of the geometry stage for a part, each with the `label` of its describer; none where not asked for."""
    labels = labels_of(document["settings"]["describers"])
    rows = (row for row in document["geometry"] if row["part"] == part)
    return [{**row, "label": labels[row["describer"]]} for row in rows]


def columns_of(rows: Sequence[dict[str, Any]]) -> list[Column]:
    """The columns for which the ground truth of this data set defines a number."""
    return [column for column in COLUMNS if any(row.get(column.key) is not None for row in rows)]


def cells_of(rows: Sequence[dict[str, Any]], column: Column) -> list[Cell]:
    """One column, formatted, its best number marked (the oracle looks at the truth and does not compete)."""
    competing = [row[column.key] for row in rows if row.get(column.key) is not None and not _is_oracle(row)]
    best = {"high": max, "low": min}[column.best](competing, default=None) if column.best else None
    return [_cell(row, column, None if _is_oracle(row) else best) for row in rows]


def _cell(row: dict[str, Any], column: Column, best: float | None) -> Cell:
    value = row.get(column.key)
    if value is None:
        return Cell("–")
    scale = 100 if column.percent else 1
    interval = row["interval"].get(column.key)
    ends = (
        f"{scale * interval[0]:.{column.digits}f}–{scale * interval[1]:.{column.digits}f}" if interval else ""
    )
    return Cell(f"{scale * value:.{column.digits}f}", ends, value == best)


def _is_oracle(row: dict[str, Any]) -> bool:
    return "oracle" in split_name(row["describer"])[1:]


def _milliseconds(row: dict[str, Any]) -> float | None:
    describe, match = row.get("seconds_describe"), row.get("seconds_match")
    return None if describe is None or match is None else 1000 * (describe + match)
