"""The same input, machine and seed give the same bits: features, matches, geometry, training losses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lisrd.match import match
from lisrd.model import LISRD, MatchedPair
from lisrd.verify import estimate
from test_train import config, losses, photographs, trainer  # noqa: F401


def _pair(photograph: np.ndarray, describer: str) -> MatchedPair:
    model = LISRD.from_pretrained(describer)
    image0, image1 = photograph[:160, 40:240], photograph[20:180, 60:260]
    return model.match_images(np.ascontiguousarray(image0), np.ascontiguousarray(image1), max_keypoints=200)


@pytest.mark.parametrize("describer", ["root-sift", "lisrd-sift", "pyramid"])
def test_features_matches_and_geometry_are_the_same_bits(describer: str, photograph: np.ndarray) -> None:
    first, second = _pair(photograph, describer), _pair(photograph, describer)
    for name in ("keypoints", "keypoint_scores", "descriptors", "meta_descriptors"):
        assert torch.equal(getattr(first.features0, name), getattr(second.features0, name)), name
    assert len(first.matches) > 20
    for name in ("matches", "scores", "invariance_weights"):
        assert torch.equal(getattr(first.matches, name), getattr(second.matches, name)), name
    geometries = [estimate(pair.points0, pair.points1) for pair in (first, second)]
    assert np.array_equal(geometries[0].model, geometries[1].model)


def test_matches_do_not_depend_on_the_number_of_threads(photograph: np.ndarray) -> None:
    pair, threads = _pair(photograph, "pyramid"), torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 2)
        again = match(pair.features0, pair.features1)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(pair.matches.matches, again.matches)


def test_training_losses_are_the_same_bits(config: Path, photographs: Path, tmp_path: Path) -> None:  # noqa: F811
    for run in ("first", "second"):
        trainer(config, photographs, tmp_path / run, steps=3, seed=5).fit()
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    trainer(config, photographs, tmp_path / "third", steps=3, seed=6).fit()
    assert losses(tmp_path / "first") != losses(tmp_path / "third")
