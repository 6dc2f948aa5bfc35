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

    @property
    def is_utf8(self) -> bool:
        """Whether files of ours can hold the name."""
        try:
            self.name.encode()
        except UnicodeEncodeError:  # Linux's names are bytes: what is not UTF-8 becomes lone surrogates
            return False
        return True


def find_images(images: Path | str | Sequence[Path | str], root: Path | None = None) -> list[NamedImage]:
    """The images of a folder and its subfolders, of a text file with one path per line, or of a list; sorted by name.

    Names are relative to `root`, by default `image_root`. Lines that are empty or start with "#" do not count; hidden
    files do not either.

    Raises:
        InputError: nothing there, no image, or a path outside the root.
    """
    paths, found_root = _paths_and_root(images, root)
    named = {_name(path, found_root): path for path in paths}
    return [NamedImage(name, named[name]) for name in sorted(named)]


def image_root(images: Path | str | Sequence[Path | str]) -> Path:
    """The folder, the folder of the text file where all its images are below it, or else what the paths have in common.

    Raises like `find_images`.
    """
    return _paths_and_root(images, None)[1]


def _paths_and_root(images: Path | str | Sequence[Path | str], root: Path | None) -> tuple[list[Path], Path]:
    if isinstance(images, str | Path):
        source = Path(images)
        return (_in_folder(source), root or source) if source.is_dir() else _in_list(source, root)
    paths = [Path(path) for path in images]
    if not paths:
        raise InputError("the list of images is empty; give at least one")
    return paths, root or _common_folder(paths)


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
    folder = root or source.parent
    paths = [folder / line for line in lines if line and not line.startswith("#")]
    if not paths:
        raise InputError(f"{source} names no image; write one path per line")
    if root is None and not all(_absolute(path).is_relative_to(_absolute(folder)) for path in paths):
        return paths, _common_folder(paths)
    return paths, folder


def _common_folder(paths: list[Path]) -> Path:
    try:
        return Path(os.path.commonpath([_absolute(path).parent for path in paths]))
    except ValueError:  # different drives
        raise InputError("the images have no folder in common; bring them onto one drive") from None


def _name(path: Path, root: Path) -> str:
    try:
        return _absolute(path).relative_to(_absolute(root)).as_posix()
    except ValueError:
        raise InputError(f"{path} lies outside {root}; give a root that holds all images") from None


def _absolute(path: Path) -> Path:
    """Without "..", which a name cannot hold."""
    return Path(os.path.abspath(path))
