"""Where training photographs come from: plain folders, listed as scenes.

A scene is a tuple of photographs that show the same pixels under different light; a single photograph is a
scene of one. Nothing is opened here. Whether a scene is for training or validation follows from a hash of its
name, so that adding photographs moves none of the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lisrd.errors import InputError

Scene = tuple[Path, ...]
Split = Literal["train", "val", "all"]

_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"))
_VIDIT_LIGHTS = 40


@dataclass(frozen=True, slots=True)
class Source:
    """The scenes of one folder that belong to one split."""

    name: str
    scenes: tuple[Scene, ...]

    def __len__(self) -> int:
        return len(self.scenes)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Sources with the shares in which samples are drawn from them; the weights need not sum to 1.

    Raises InputError when there is no source, or a weight is not positive.
    """

    parts: tuple[tuple[Source, float], ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("the training mixture has no source: name at least one folder of images")
        for source, weight in self.parts:
            if not weight > 0:
                raise InputError(
                    f"source {source.name}: weight {weight} must be above 0; leave it out instead"
                )

    def draw(self, rng: np.random.Generator) -> Scene:
        """A source by weight, then any of its scenes."""
        weights = np.array([weight for _, weight in self.parts])
        source, _ = self.parts[rng.choice(len(weights), p=weights / weights.sum())]
        return source.scenes[rng.integers(len(source.scenes))]


def image_folder(
    root: Path | str, split: Split = "all", *, val_share: float = 0.04, validation: Sequence[str] = ()
) -> Source:
    """Every image below `root`, each a scene of its own; `train2014/` and `val2014/` are split as COCO is.

    Without that layout, `val_share` of the files are for validation, or those whose path below `root` is in
    `validation`. Raises InputError when no image is left, or a name in `validation` is not an image.
    """
    root = _existing(root)
    scenes: dict[str, Scene]
    if (root / "train2014").is_dir() and (root / "val2014").is_dir():
        _refuse_names(root, validation, "val2014/")
        parts = {"train": ["train2014"], "val": ["val2014"], "all": ["train2014", "val2014"]}[split]
        scenes = {str(path): (path,) for part in parts for path in _images_below(root / part)}
        return _source(root, scenes, "all", val_share, ())
    scenes = {path.relative_to(root).as_posix(): (path,) for path in _images_below(root)}
    return _source(root, scenes, split, val_share, validation)


def scene_folder(
    root: Path | str,
    split: Split = "all",
    *,
    val_share: float = 0.04,
    validation: Sequence[str] = (),
    pattern: str = "*",
) -> Source:
    """The folders in `root`, each one scene whose images (those that match `pattern`) are pixel aligned.

    `val_share` of the scenes are for validation, or those named in `validation`. Raises InputError when no
    image is left, or a name in `validation` is not a scene.
    """
    root = _existing(root)
    folders = {folder.name: folder for folder in sorted(root.iterdir()) if folder.is_dir()}
    scenes = {name: tuple(sorted(filter(_is_image, f.glob(pattern)))) for name, f in folders.items()}
    return _source(
        root, {name: scene for name, scene in scenes.items() if scene}, split, val_share, validation
    )


def multi_illumination(root: Path | str, split: Split = "all", *, validation: Sequence[str] = ()) -> Source:
    """Multi-Illumination Images in the Wild: `train/<scene>/dir_*`, and `test/` for validation.

    Raises InputError when no image is left, or `validation` names others.
    """
    _refuse_names(Path(root), validation, "test/")
    parts = {"train": ["train"], "val": ["test"], "all": ["train", "test"]}[split]
    sources = [scene_folder(Path(root) / part, pattern="dir_*") for part in parts]
    return Source(str(root), tuple(scene for source in sources for scene in source.scenes))


def vidit(
    root: Path | str, split: Split = "all", *, val_share: float = 0.04, validation: Sequence[str] = ()
) -> Source:
    """VIDIT: 40 lights of each scene, consecutive when the files are sorted by name.

    `val_share` of the scenes are for validation, or those named in `validation`; a scene has the name of its first
    file, without the ending. Raises InputError when the number of images is not a multiple of 40, or a name in
    `validation` is not a scene.
    """
    root = _existing(root)
    images = _images_below(root)
    if len(images) % _VIDIT_LIGHTS:
        raise InputError(
            f"{root}: {len(images)} images are not whole VIDIT scenes of {_VIDIT_LIGHTS} lights; complete the"
            " folder, or sort the images into scene folders and read it as kind 'scenes'"
        )
    starts = range(0, len(images), _VIDIT_LIGHTS)
    scenes = {images[start].stem: tuple(images[start : start + _VIDIT_LIGHTS]) for start in starts}
    return _source(root, scenes, split, val_share, validation)


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One source of a mixture: `kind` is images, scenes, multi-illumination or vidit.

    `path` is below the root. `validation` names the scenes kept for validation; without it `val_share` of
    them are, by a hash of the name. COCO and Multi-Illumination have folders for validation, and take no names.
    """

    kind: str = "images"
    path: str = "."
    weight: float = 1.0
    val_share: float = 0.04
    validation: tuple[str, ...] = ()


def build_mixture(root: Path | str, configs: Sequence[SourceConfig], split: Split = "train") -> Mixture:
    """The sources below `root`; without any, every image below it, as single photographs."""
    sources = [(_build(Path(root), config, split), config.weight) for config in configs or (SourceConfig(),)]
    return Mixture(tuple(sources))


def _build(root: Path, config: SourceConfig, split: Split) -> Source:
    share, names = config.val_share, config.validation
    readers: dict[str, Callable[[Path], Source]] = {
        "images": lambda path: image_folder(path, split, val_share=share, validation=names),
        "scenes": lambda path: scene_folder(path, split, val_share=share, validation=names),
        "multi-illumination": lambda path: multi_illumination(path, split, validation=names),
        "vidit": lambda path: vidit(path, split, val_share=share, validation=names),
    }
    if config.kind not in readers:
        raise InputError(f"unknown kind of source {config.kind!r}: use one of {', '.join(readers)}")
    return readers[config.kind](root / config.path)


def _source(
    root: Path, scenes: dict[str, Scene], split: Split, val_share: float, validation: Sequence[str]
) -> Source:
    if not scenes:
        raise InputError(f"{root}: no images found (looked for {', '.join(sorted(_SUFFIXES))})")
    missing = sorted(set(validation) - set(scenes))
    if missing:
        raise InputError(f"{root}: nothing named {missing[0]!r} for validation; there are: {_some(scenes)}")
    held_out = _held_out(list(scenes), val_share, validation)
    names = [name for name in scenes if split == "all" or (name in held_out) == (split == "val")]
    if not names:
        raise InputError(
            f"{root}: none of its {len(scenes)} scenes is in the split '{split}';"
            f" change val_share ({val_share}) or name the validation scenes"
        )
    return Source(str(root), tuple(scenes[name] for name in names))


def _held_out(names: Sequence[str], val_share: float, validation: Sequence[str]) -> set[str]:
    """The scenes for validation; at least one of two or more, so that small folders can be trained on too."""
    if validation:
        return set(validation)
    place = {name: _place(name) for name in names}
    held_out = {name for name in names if place[name] < val_share}
    if not held_out and val_share > 0 and len(names) > 1:
        held_out = {min(names, key=place.__getitem__)}
    return held_out


def _refuse_names(root: Path, validation: Sequence[str], folder: str) -> None:
    if validation:
        raise InputError(f"{root}: {folder} is for validation; leave out the names in validation")


def _place(name: str) -> float:
    """Between 0 and 1, always the same for one name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def _existing(root: Path | str) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of training images; check --data and the source's path")
    return root


def _images_below(root: Path) -> list[Path]:
    return sorted(filter(_is_image, root.rglob("*")))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def _some(names: Iterable[str], count: int = 6) -> str:
    listed = list(names)
    return ", ".join(listed[:count]) + (", ..." if len(listed) > count else "")
