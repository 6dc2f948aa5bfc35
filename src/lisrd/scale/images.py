"""Which images a command is about, and the names they go by in every file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lisrd.errors import InputError
from lisrd.text_files import read_lines

#: Files of a folder that count as images.
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".jp2", ".avif")
)


@dataclass(frozen=True, slots=True)
class NamedImage:
    """`name` is the path below the root, with "/" on every system."""

    name: str
    path: Path


def find_images(images: Path | str | Sequence[Path | str], root: Path | None = None) -> list[NamedImage]:
    """The images of a folder and its subfolders, of a text file with one path per line, or of a list; sorted by name.

    Names are relative to `root`. Without one it is the folder, the folder of the text file, or what the paths of the
    list have in common. Lines that are empty or start with "#" do not count; hidden files do not either.

    Raises:
        InputError: nothing there, no image, or a path outside the root.
    """
    if isinstance(images, str | Path):
        source = Path(images)
        paths, root = (_in_folder(source), root or source) if source.is_dir() else _in_list(source, root)
    else:
        paths = [Path(path) for path in images]
        if not paths:
            raise InputError("the list of images is empty; give at least one")
        root = root or _common_folder(paths)
    named = {_name(path, root): path for path in paths}
    return [NamedImage(name, named[name]) for name in sorted(named)]


def _in_folder(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not found:
        raise InputError(f"{folder} holds no images; its files should end with {', '.join(sorted(SUFFIXES))}")
    return found


def _in_list(source: Path, root: Path | None) -> tuple[list[Path], Path]:
    if not source.exists():
        raise InputError(
            f"{source} does not exist; give a folder of images or a text file with one path per line"
        )
    if source.suffix.lower() in SUFFIXES:
        return [source], root or source.parent
    lines = [line.strip() for line in read_lines(source)]
    root = root or source.parent
    paths = [root / line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise InputError(f"{source} names no image; write one path per line")
    return paths, root


def _common_folder(paths: list[Path]) -> Path:
    try:
        return Path(os.path.commonpath([path.absolute().parent for path in paths]))
    except ValueError:  # different drives
        raise InputError("the images have no folder in common; give a `root` and paths below it") from None


def _name(path: Path, root: Path) -> str:
    try:
        return path.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        raise InputError(f"{path} lies outside {root}; give a root that holds all images") from None
