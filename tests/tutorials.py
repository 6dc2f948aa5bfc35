"""The tutorials of the documentation as programs, and the photographs that they suppose their readers to have."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

from boards import camera, view
from lisrd.evaluate.datasets.preparation import Darken, QuarterTurns, ResizeAndCrop

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
#: The cameras of the photographs for the map, and that of the query, each the world in the camera's frame (4 x 4).
CAMERAS = {
    f"{k}.png": camera((0.3 * (k - 2), 0.08 * (k % 3), 0.05 * k), (1.0 * k, -4.0 * (k - 2), 2.0 * k))
    for k in range(6)
}
QUERY = camera((0.45, 0.1, 0.1), (2.0, -7.0, 10.0))

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(name: str) -> list[tuple[str, str]]:
    """The (language, code) of a tutorial."""
    return _BLOCK.findall((TUTORIALS / f"{name}.md").read_text(encoding="utf-8"))


def configuration_name(code: str) -> str:
    """Where a TOML block is to be saved: its first line says so."""
    title = re.match(r"# (\S+\.toml)\n", code)
    assert title, "a configuration begins with its name"
    return title[1]


def as_program(name: str) -> str:
    """Python source that does in the working folder what a tutorial says, with the commands in a shell."""
    parts = ["import pathlib, subprocess"]
    for language, code in blocks(name):
        if language == "sh":
            parts.append(f"subprocess.run({code!r}, shell=True, check=True)")
        elif language == "toml":
            parts.append(f"pathlib.Path({configuration_name(code)!r}).write_text({code!r})")
        else:
            assert language == "python", f"{name}.md has a block of {language!r}, which nobody runs"
            parts.append(code)
    return "\n".join(parts)


def write_photographs(name: str, folder: Path) -> None:
    """What the reader of a tutorial has."""
    WRITERS[name](folder)


def _two_photographs(folder: Path) -> None:
    """One scene, the second time turned by a quarter and one stop darker on average."""
    old, _ = ResizeAndCrop(320, 240)(skimage.data.astronaut())
    new, _ = Darken(1.0)(QuarterTurns(1)(old)[0])
    Image.fromarray(old).save(folder / "old.jpg", quality=95)
    Image.fromarray(new).save(folder / "new.jpg", quality=95)


def _place_and_query(folder: Path) -> None:
    (folder / "photographs").mkdir()
    for name, T in CAMERAS.items():
        Image.fromarray(view(T)).save(folder / "photographs" / name)
    Image.fromarray(view(QUERY)).save(folder / "query.jpg", quality=95)


def _training_images(folder: Path) -> None:
    (folder / "photographs").mkdir()
    sources = (skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea())
    for k, photograph in enumerate(sources * 4):
        cut = photograph[10 * k : 10 * k + 180, 10 * k : 10 * k + 240]
        Image.fromarray(np.ascontiguousarray(cut)).save(folder / "photographs" / f"{k}.png")
    _two_photographs(folder)


WRITERS = {"match": _two_photographs, "localise": _place_and_query, "train": _training_images}
