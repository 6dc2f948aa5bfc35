"""Rotated Day-Night Image Matching (LISRD, section 4.1): webcam images against a day and a night reference.

ROOT/references/<id>/{day,night}.jpg
ROOT/images/<id>/*.jpg, with the homography from the reference in a .txt of the same name
ROOT/time_stamps/<id>.txt, rows `name date hour minute` (optional: tags of the report)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lisrd.errors import InputError
from lisrd.evaluate.datasets.records import EvaluationImage, EvaluationPair, read_homography, require_folder
from lisrd.text_files import read_lines

LAYOUT = "references/<id>/{day,night}.jpg and images/<id>/*.jpg with a .txt homography beside each"
SOURCE = "the LISRD project page ('RDNIM dataset')"
REFERENCES = ("day", "night")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def rdnim_pairs(root: Path) -> list[EvaluationPair]:
    """Every image with the day reference, then every image with the night reference.

    Raises `InputError` where `root` holds no such images.
    """
    for folder in ("references", "images"):
        require_folder(root / folder, "RDNIM", LAYOUT, SOURCE)
    scenes = sorted(p for p in (root / "images").iterdir() if p.is_dir())
    pairs = [pair for part in REFERENCES for scene in scenes for pair in _scene_pairs(root, scene, part)]
    if not pairs:
        raise InputError(f"no RDNIM images in {root}: it should hold {LAYOUT}; get it from {SOURCE}")
    return pairs


def _scene_pairs(root: Path, scene: Path, part: str) -> list[EvaluationPair]:
    found = [p for s in SUFFIXES if (p := root / "references" / scene.name / f"{part}{s}").is_file()]
    reference = EvaluationImage(found[0] if found else root / "references" / scene.name / f"{part}.jpg")
    taken = _time_stamps(root / "time_stamps" / f"{scene.name}.txt")
    pairs = []
    for path in sorted(p for p in scene.iterdir() if p.suffix.lower() in SUFFIXES):
        H, broken = read_homography(path.with_suffix(".txt"))
        name = f"{scene.name}/{part}-{path.stem}"
        tags = {"reference": part, **taken.get(path.name, {})}
        pairs.append(
            EvaluationPair(name, scene.name, part, reference, EvaluationImage(path), H, None, broken, tags)
        )
    return pairs


def _time_stamps(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        return {}
    rows = [line.split() for line in read_lines(path)]
    return {
        row[0]: {"date": row[1], "hour": int(row[2]) + int(row[3]) / 60}
        for row in rows
        if _is_time_stamp(row)
    }


def _is_time_stamp(row: list[str]) -> bool:
    return len(row) == 4 and row[2].isdecimal() and row[3].isdecimal()
