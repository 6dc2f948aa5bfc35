"""The ablation of docs/geometry.md on real pairs: python -m benchmarks.geometry_ablation ROOT --out DIR [...]

ROOT holds `hpatches_style` and `rotated_webcam`. DIR keeps features and, for each describer, the numbers of every
pair: a run that was stopped goes on where it was. With new weights delete `DIR/*/features/*/NAME`, and they alone
are measured; after a change of the stage itself delete `DIR/*/scores`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lisrd.evaluate import evaluate
from lisrd.evaluate.cache import file_name, sha256
from lisrd.evaluate.identity import describer_digest, detector_digest
from lisrd.whole_file import whole_file

#: Folder of ROOT, its layout, and the parts that become columns.
DATA = (("hpatches_style", "hpatches"), ("rotated_webcam", "rdnim"))
PARTS = ("day", "night", "viewpoint", "illumination")

Row = dict[str, Any]


def ablation(
    root: Path, describers: Sequence[str], detectors: Sequence[str], out: Path, limit: int | None
) -> Iterator[Row]:
    """Rows of `lisrd.evaluate.geometry_rows`, each with its `detector`; `limit` is of the webcam pairs."""
    for detector in detectors:
        for describer in describers:
            for folder, layout in DATA:
                among = limit if layout == "rdnim" else None
                measured = _kept(root / folder, layout, describer, detector, out / folder, among)
                for row in measured["rows"]:
                    if row["part"] in PARTS:
                        yield {**row, "detector": detector}


def _kept(
    root: Path, layout: str, describer: str, detector: str, out: Path, limit: int | None
) -> dict[str, Any]:
    """`rows`, the numbers of all `pairs`, and the `seconds` of CPU they took; measured unless DIR has them."""
    digest = sha256(describer_digest(describer), detector_digest(detector), limit)
    file = out / "scores" / f"{file_name(describer)}-{digest[:16]}.json"
    if not file.exists():
        start = time.process_time()
        document = evaluate(
            root,
            layout,
            [describer],
            detector,
            out=out,
            limit=limit,
            report=False,
            progress=False,
            geometry="ablation",
        )
        pairs = [_stages_of(pair, describer) for pair in document["pairs"]]
        seconds = time.process_time() - start
        file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as partial:
            partial.write_text(
                json.dumps({"rows": document["geometry"], "pairs": pairs, "seconds": seconds}, indent=1)
            )
    return dict(json.loads(file.read_text()))


def _stages_of(pair: dict[str, Any], describer: str) -> dict[str, Any]:
    stages = (
        pair["scores"].get(describer, {}).get("geometry", {})
    )  # a pair whose truth is broken has no scores
    return {"name": pair["name"], "part": pair["part"], "geometry": stages}


def ablation_table(rows: Sequence[Row]) -> str:
    """Per describer and estimate: shares within 1 / 3 / 5 px (the interval of 3), and the errors of correct matches.

    Of these the mean of the pairs' medians, and the median of all pairs together.
    """
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        names = (row[key].partition("=")[0] for key in ("detector", "describer", "estimate"))
        cells.setdefault(tuple(names), {})[row["part"]] = _cell(row)
    pairs = {row["part"]: row["pairs"] for row in rows}
    parts = [part for part in PARTS if part in pairs]
    header = ["keypoints", "describer", "estimate", *(f"{part}, {pairs[part]} pairs" for part in parts)]
    lines = [header, ["---"] * len(header)]
    lines += [[*names, *(of_parts.get(part, "") for part in parts)] for names, of_parts in cells.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Row) -> str:
    low, high = row["interval"]["accuracy_3"]
    shares = " / ".join(f"{100 * row[f'accuracy_{t}']:.0f}" for t in (1, 3, 5))
    known = (row["median_error"], row["error_of_all"])  # None without a correct match
    errors = " / ".join("-" if error is None else f"{error:.2f}" for error in known)
    return f"{shares} ({100 * low:.0f}-{100 * high:.0f}); {errors}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.geometry_ablation", description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="keep features and scores here")
    parser.add_argument("--describers", nargs="+", default=["root-sift", "pyramid"], metavar="NAME")
    parser.add_argument("--detectors", nargs="+", default=["sift"], metavar="NAME")
    parser.add_argument("--limit", type=int, help="so many webcam pairs, spread evenly")
    options = parser.parse_args(arguments)
    rows = ablation(options.root, options.describers, options.detectors, options.out, options.limit)
    print(ablation_table(list(rows)))


if __name__ == "__main__":
    main()
