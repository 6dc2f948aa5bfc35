"""hloc (Sarlin et al., CVPR 2019): an extractor and a matcher for its pipelines.

Without touching hloc, in the script that runs the pipeline:

    from hloc import extract_features, match_features
    from lisrd.adapters import hloc as lisrd_hloc
    lisrd_hloc.register()
    features = extract_features.main(extract_features.confs["lisrd"], images, outputs, as_half=False)
    match_features.main(match_features.confs["lisrd"], pairs, features, matches=matches)

Or as files of hloc's: `hloc/extractors/lisrd.py` and `hloc/matchers/lisrd.py` with these lines each, and the entries of
`EXTRACTOR_CONFS` and `MATCHER_CONFS` in hloc's dictionaries.

    from lisrd.adapters.hloc import ExtractorParts       # MatcherParts for the matcher
    from ..utils.base_model import BaseModel
    class LISRD(ExtractorParts, BaseModel): pass

The files of `lisrd.scale` have hloc's layout and need none of this. `as_half=False` because hloc's float16 moves
keypoints beyond x = 1024 by up to half a pixel.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import Tensor

from lisrd.describe import build_describer
from lisrd.detect import build_detector
from lisrd.errors import MissingExtraError
from lisrd.match import Policy, match
from lisrd.scale.layout import feature_datasets, features_from_datasets, match_datasets

EXTRACTOR_CONFS: dict[str, dict[str, Any]] = {
    "lisrd": {
        "output": "feats-lisrd-n2048-r1600",
        "model": {"name": "lisrd", "describer": "pyramid", "detector": "sift", "max_keypoints": 2048},
        "preprocessing": {"grayscale": False, "resize_max": 1600},
    },
    "lisrd-small": {
        "output": "feats-lisrd-small-n2048-r1024",
        "model": {"name": "lisrd", "describer": "pyramid-small", "detector": "sift", "max_keypoints": 2048},
        "preprocessing": {"grayscale": False, "resize_max": 1024},
    },
}

MATCHER_CONFS: dict[str, dict[str, Any]] = {
    "lisrd": {"output": "matches-lisrd", "model": {"name": "lisrd", "selection": "soft", "turn": "auto"}},
    "lisrd-upright": {"output": "matches-lisrd-upright", "model": {"name": "lisrd", "turn": "off"}},
}


class ExtractorParts:
    """What an extractor of hloc's is besides its `BaseModel`; see the top of this file."""

    default_conf: ClassVar[dict[str, Any]] = {
        "describer": "pyramid",
        "detector": "sift",
        "max_keypoints": 2048,
        "keep_turns": True,
    }
    required_inputs: ClassVar[list[str]] = ["image"]

    def _init(self, conf: Mapping[str, Any]) -> None:
        self._describer = build_describer(conf["describer"])
        self._detector = build_detector(conf["detector"])
        self._max_keypoints = conf["max_keypoints"]
        self._keep_turns = conf["keep_turns"]

    def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """hloc's datasets of one image, and ours; hloc scales keypoints back to the size of the file."""
        image = data["image"].cpu()
        keypoints = self._detector(image, self._max_keypoints)
        features = self._describer.describe(image, keypoints, self._keep_turns)
        datasets = feature_datasets(features, half=False, keep_turns=self._keep_turns)
        return {name: torch.from_numpy(values)[None] for name, values in datasets.items()}


class MatcherParts:
    """What a matcher of hloc's is besides its `BaseModel`; see the top of this file."""

    default_conf: ClassVar[dict[str, Any]] = {
        "selection": "soft",
        "turn": "auto",
        "ratio": None,
        "min_similarity": None,
    }
    required_inputs: ClassVar[list[str]] = [
        f"{name}{i}" for i in "01" for name in ("keypoints", "descriptors", "meta_descriptors", "selection")
    ]

    def _init(self, conf: Mapping[str, Any]) -> None:
        self._policy = Policy(
            selection=conf["selection"],
            turn=conf["turn"],
            ratio=conf["ratio"],
            min_similarity=conf["min_similarity"],
        )

    def _forward(self, data: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """hloc's matches0 and matching_scores0, a batch of one."""
        datasets = match_datasets(match(_features(data, "0"), _features(data, "1"), self._policy))
        return {name: torch.from_numpy(values)[None] for name, values in datasets.items()}


def register() -> None:
    """Make the confs and the modules "lisrd" known to the installed hloc. Raises MissingExtraError without hloc."""
    try:
        from hloc import extract_features, match_features
        from hloc.utils.base_model import BaseModel
    except ImportError:
        raise MissingExtraError(
            "sfm", "hloc's adapter (hloc itself is installed from its repository)"
        ) from None
    extract_features.confs.update(EXTRACTOR_CONFS)
    match_features.confs.update(MATCHER_CONFS)
    for folder, parts in (("extractors", ExtractorParts), ("matchers", MatcherParts)):
        name = f"hloc.{folder}.lisrd"  # hloc imports the module that a conf names and takes the class defined there
        module = ModuleType(name)
        module.LISRD = type("LISRD", (parts, BaseModel), {"__module__": name})  # type: ignore[attr-defined]
        sys.modules[name] = module


def _features(data: Mapping[str, Tensor], suffix: str) -> Any:
    datasets = {
        name.removesuffix(suffix): value[0]
        for name, value in data.items()
        if name.endswith(suffix) and not name.startswith("image0") and not name.startswith("image1")
    }
    return features_from_datasets(datasets)
