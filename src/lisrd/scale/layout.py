"""Features and matches as HDF5 groups in the layout of hloc (Sarlin et al., CVPR 2019), which its tools read.

Features: a group per image, named by its path below the root. hloc reads

    keypoints    N x 2 float32, x and y, (0, 0) the centre of the top-left pixel
    descriptors  V*D x N, `LocalFeatures.flat()` transposed: plain nearest neighbours see uniform fusion
    scores       N
    image_size   width, height

and we, beside these, meta_descriptors (V x T x T x C), scales and oris (N) and turned descriptors where there are any,
and `selection`, the bytes of a JSON text: hloc hands datasets to a matcher, but no attributes. The same settings are
attributes of the group, for people to read.

Matches: a group per pair, `names_to_pair`, with matches0 (N0 int32, -1 where there is none), matching_scores0 (N0),
and invariance_weights (S x V), one row for each entry of matches0 that is not -1, in their order.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from lisrd.errors import InputError
from lisrd.scale.store import open_h5, record_names
from lisrd.types import LocalFeatures, Matches, Selection

_TURNED = ("turned_descriptors", "turned_meta_descriptors")


def feature_datasets(
    features: LocalFeatures, half: bool = True, keep_turns: bool = True
) -> dict[str, np.ndarray]:
    """The datasets of one image. `half` stores everything but places and scores in float16."""
    one = features.select(0).to("cpu")
    dtype = torch.float16 if half else torch.float32
    datasets = {
        "keypoints": one.keypoints[0].float(),
        "scores": one.keypoint_scores[0].float(),
        "image_size": one.image_size[0].int(),
        "descriptors": one.flat()[0].T.to(dtype),
        "meta_descriptors": one.meta_descriptors[0].to(dtype),
        "selection": selection_bytes(one.selection),
        "scales": None if one.scales is None else one.scales[0].float(),
        "oris": None if one.oris is None else one.oris[0].float(),
    }
    if keep_turns and one.turned_descriptors is not None and one.turned_meta_descriptors is not None:
        datasets |= {name: getattr(one, name)[0].to(dtype) for name in _TURNED}
    return {name: value.detach().numpy() for name, value in datasets.items() if value is not None}


def features_from_datasets(datasets: Mapping[str, np.ndarray | Tensor]) -> LocalFeatures:
    """The features, a batch of one in float32. float16 would be hundreds of times slower on a CPU.

    Raises:
        InputError: datasets of another extractor, which have no meta descriptors.
    """
    for name in ("keypoints", "descriptors", "meta_descriptors", "selection"):
        if name not in datasets:
            raise InputError(f"features without {name!r} are not ours; extract them with `lisrd extract`")
    stored = {
        name: torch.as_tensor(values)[None].float()
        for name, values in datasets.items()
        if name != "selection"
    }
    selection = selection_from_bytes(datasets["selection"])
    num_invariances = len(selection.invariances)
    descriptors = stored["descriptors"].mT.unflatten(2, (num_invariances, -1)) * num_invariances**0.5
    return LocalFeatures(
        keypoints=stored["keypoints"],
        keypoint_scores=stored["scores"],
        descriptors=descriptors,
        meta_descriptors=stored["meta_descriptors"],
        image_size=stored["image_size"],
        mask=torch.ones_like(stored["scores"], dtype=torch.bool),
        selection=selection,
        scales=stored.get("scales"),
        oris=stored.get("oris"),
        turned_descriptors=stored.get("turned_descriptors"),
        turned_meta_descriptors=stored.get("turned_meta_descriptors"),
    )


def selection_bytes(selection: Selection) -> Tensor:
    """The selection as the UTF-8 bytes of a JSON text."""
    return torch.tensor(list(json.dumps(asdict(selection)).encode()), dtype=torch.uint8)


def selection_from_bytes(values: np.ndarray | Tensor) -> Selection:
    """What `selection_bytes` wrote, also after its numbers were made floats."""
    try:
        content = dict(json.loads(bytes(torch.as_tensor(values).to(torch.uint8).tolist())))
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return Selection(**fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"a selection of another version, or a damaged one ({error}); extract again"
        ) from None


def selection_attributes(selection: Selection) -> dict[str, Any]:
    """The selection as attributes of a group; what is not set is left out."""
    return {name: value for name, value in asdict(selection).items() if value is not None}


def read_features(file: h5py.File | Path | str, name: str) -> LocalFeatures:
    """The features of one image, a batch of one.

    Raises:
        InputError: no such file or image, or features of another extractor.
    """
    if not isinstance(file, h5py.File):
        with open_h5(Path(file)) as opened:
            return read_features(opened, name)
    if name not in file:
        near = difflib.get_close_matches(name, list(record_names(file)), n=1)
        hint = f"did you mean {near[0]}?" if near else "extract it first"
        raise InputError(f"{file.filename} has no features of {name}; {hint}")
    try:
        stored = {key: item[()] for key, item in file[name].items() if isinstance(item, h5py.Dataset)}
        return features_from_datasets(stored)
    except (
        InputError,
        LookupError,
        RuntimeError,
    ) as error:  # of our checks, or of arrays that do not fit together
        raise InputError(f"{file.filename}, {name}: {error}") from None


def names_to_pair(name0: str, name1: str) -> str:
    """The group of a pair: slashes in names become hyphens."""
    return f"{name0.replace('/', '-')}/{name1.replace('/', '-')}"


def stored_direction(path: Path | str, pair: tuple[str, str]) -> tuple[str, str]:
    """The pair or its reverse, whichever a matches file has.

    Raises:
        InputError: no such file, or the pair in neither direction.
    """
    with open_h5(Path(path)) as file:
        for names in (pair, pair[::-1]):
            if names_to_pair(*names) in file:
                return names
    raise InputError(f"{path} has no matches of {' and '.join(pair)}; match them with `lisrd match-pairs`")


def read_matches(path: Path | str, name0: str, name1: str, num_keypoints1: int) -> Matches:
    """The matches of one pair; image 1 has `num_keypoints1` keypoints, which a matches file does not tell.

    Raises:
        InputError: no such file, or no such pair in it in this direction.
    """
    with open_h5(Path(path)) as file:
        key = names_to_pair(name0, name1)
        if key not in file:
            raise InputError(
                f"{path} has no matches of {name0} and {name1}; match them with `lisrd match-pairs`"
            )
        matches0, scores, weights = (
            torch.from_numpy(file[key][name][()])
            for name in ("matches0", "matching_scores0", "invariance_weights")
        )
        attributes = dict(file[key].attrs)
    index0 = torch.nonzero(matches0 != -1)[:, 0]
    return Matches(
        torch.stack([index0, matches0[index0].long()], dim=1),
        scores[index0].float(),
        weights.float(),
        (len(matches0), num_keypoints1),
        tuple(attributes["invariances"]),
        attributes["turn"].item(),
    )


def match_datasets(matches: Matches) -> dict[str, np.ndarray]:
    """The datasets of one pair; scores and weights in float16, as hloc does."""
    matches0, _ = matches.padded()
    scores0 = matches.scores.new_zeros(matches.num_keypoints[0])
    scores0[matches.matches[:, 0]] = matches.scores
    order = matches.matches[:, 0].argsort()
    datasets = {
        "matches0": matches0.int(),
        "matching_scores0": scores0.half(),
        "invariance_weights": matches.invariance_weights[order].half(),
    }
    return {name: value.detach().cpu().numpy() for name, value in datasets.items()}
