"""Which pairs of images to match: all, neighbours in a sequence, a list, or those that look alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.errors import InputError
from lisrd.invariance import invariances
from lisrd.scale.images import find_images
from lisrd.scale.layout import selection_from_bytes
from lisrd.scale.store import open_h5, record_names
from lisrd.text_files import read_lines
from lisrd.types import Selection
from lisrd.whole_file import whole_file

Pair = tuple[str, str]

#: Rows of the similarity matrix of images that are held at a time.
_BLOCK = 1024


def image_names(features: Path, images: Path | None = None) -> list[str]:
    """The images of a features file, sorted; of them those that `images` has, see `find_images`.

    A folder may have lost some since they were described.
    """
    with open_h5(features) as file:
        names = sorted(record_names(file))
    if images is None:
        return names
    there = {image.name for image in find_images(images)}
    return [name for name in names if name in there]


def exhaustive_pairs(names: Sequence[str]) -> list[Pair]:
    """Every image with every other."""
    return list(combinations(names, 2))


def sequential_pairs(names: Sequence[str], overlap: int = 10) -> list[Pair]:
    """Every image with the `overlap` images that follow it, as in a video."""
    if overlap < 1:
        raise InputError(f"overlap is {overlap}; every image needs at least 1 image that follows it")
    return [(name, later) for i, name in enumerate(names) for later in names[i + 1 : i + 1 + overlap]]


def similar_pairs(features: Path, top_k: int = 20, names: Sequence[str] | None = None) -> list[Pair]:
    """Every image with the `top_k` most similar ones, by their meta descriptors (`similarity_in_turns`).

    `names` are the images to pair, by default all of the file.

    Raises:
        InputError: the describer gives no meta descriptors (V = 1), or `top_k` is below 1.
    """
    if top_k < 1:
        raise InputError(f"top_k is {top_k}; every image needs at least 1 partner")
    names = image_names(features) if names is None else names
    if not names:
        return []
    tiles = tile_descriptors(features, names)
    pairs: set[Pair] = set()
    for start in range(0, len(names), _BLOCK):
        similarity = similarity_in_turns(tiles[start : start + _BLOCK], tiles)
        rows = torch.arange(len(similarity))
        similarity[rows, rows + start] = -torch.inf  # not with itself
        best = similarity.topk(min(top_k, len(names) - 1)).indices
        for row, partners in enumerate(best.tolist(), start):
            pairs.update((names[min(row, other)], names[max(row, other)]) for other in partners)
    return sorted(pairs)


def similarity_in_turns(
    tiles0: Float[Tensor, "M0 W T T C"], tiles1: Float[Tensor, "M1 W T T C"]
) -> Float[Tensor, "M0 M1"]:
    """Similarity of images, tile by tile, in the quarter turn in which they are most alike.

    The descriptors of a turned image do not change, but their tiles stand at other places.
    """
    flat1 = tiles1.flatten(1)
    turned0 = (tiles0.rot90(turn, (2, 3)).flatten(1) for turn in range(4))
    return torch.stack([flat0 @ flat1.T for flat0 in turned0]).amax(0)


def tile_descriptors(features: Path, names: Sequence[str]) -> Float[Tensor, "M W T T C"]:
    """For each image the meta descriptors of the kind that is invariant to everything, together of unit length.

    Describers without it give those of their rotation invariant kinds, or of all where they do not say which are. The
    network's take 37 KB of memory for each image. `docs/many_images.md` says what they find, and what was tried.
    """
    rows = []
    with open_h5(features) as file:
        for name in names:
            selection = selection_from_bytes(file[name]["selection"][()])
            if len(selection.invariances) == 1:
                raise InputError(
                    f"{features} was made by {selection.invariances[0]}, which has no meta descriptors: "
                    "use exhaustive or sequential pairs, or extract with another describer"
                )
            meta_descriptors = torch.from_numpy(file[name]["meta_descriptors"][()])
            rows.append(meta_descriptors[_most_invariant(selection)])
    tiles = torch.stack(rows).float()
    return tiles / torch.linalg.vector_norm(tiles, dim=(1, 2, 3, 4), keepdim=True).clamp_min(1e-12)


def _most_invariant(selection: Selection) -> list[int]:
    names = selection.invariances
    to_everything = invariances()[-1].name
    if to_everything in names:
        return [names.index(to_everything)]
    variant = selection.rotation_variant or (False,) * len(names)
    return [v for v, is_variant in enumerate(variant) if not is_variant]


def write_pairs(pairs: Iterable[Pair], path: Path) -> None:
    """One pair a line, the names separated by a space; by a tab where a name has spaces, which hloc cannot read.

    Raises:
        InputError: a name that a line cannot hold, or a place that cannot be written.
    """
    lines = [_line(pair) for pair in pairs]
    with whole_file(path) as partial:  # a shorter list would look like a whole one
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _line(pair: Pair) -> str:
    line = f"{pair[0]}\t{pair[1]}" if " " in "".join(pair) else f"{pair[0]} {pair[1]}"
    if line.splitlines() != [line] or tuple(_names(line)) != pair:
        raise InputError(
            f"{pair[0]!r} and {pair[1]!r} cannot stand in a list of pairs; rename the images, without tabs, line "
            "breaks, or '#' at the start"
        )
    return line


def _names(line: str) -> list[str]:
    """What a line names; nothing on empty lines and in comments."""
    names = line.split("\t") if "\t" in line else line.split()
    return [] if line.lstrip().startswith("#") else names


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a file that `write_pairs` or hloc wrote; empty lines and those that start with "#" do not count.

    Raises:
        InputError: no such file, or a line that is no pair of different names.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; write it with `lisrd pairs`")
    pairs = []
    for number, line in enumerate(read_lines(path), 1):
        names = _names(line)
        if not names:
            continue
        if len(names) != 2 or names[0] == names[1]:
            raise InputError(
                f"{path}, line {number}: {line!r} is no pair; write two names with a space between"
            )
        pairs.append((names[0], names[1]))
    return pairs
