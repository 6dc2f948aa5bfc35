"""Banks: members and selection by hand, padding and files, ALIKED against kornia, and the training of a selection."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from lisrd.describe import Describer, build_describer
from lisrd.describe.aliked import Aliked
from lisrd.describe.bank import Bank, lisrd_sift, load_selector
from lisrd.describe.selector import Selector, SelectorConfig, tile_of
from lisrd.describe.sift import RootSift
from lisrd.describe.single import SingleDescriber
from lisrd.describe.weights import save_weights
from lisrd.detect.sift import SIFT
from lisrd.errors import InputError
from lisrd.image import as_image
from lisrd.match import Policy, match
from lisrd.match.selection import tile_weights
from lisrd.train.bank_config import BankConfig
from lisrd.train.bank_objective import SelectedPairs, member_cross_entropy
from lisrd.train.bank_pairs import DescribedPairs, concatenate, corresponding
from lisrd.train.clusters import k_means, start_from_clusters
from lisrd.train.export import export_network
from lisrd.train.run import build_trainer
from lisrd.types import Keypoints, stack_keypoints
from small_training import write_photographs

SIFT_MEMBERS = ("root-sift", "upright-root-sift")


class Colour(SingleDescriber):
    """The unit colour at a keypoint's pixel: three values that can be seen."""

    def __init__(self, name: str = "colour") -> None:
        self.name = name

    @property
    def config(self) -> dict[str, Any]:
        return {"describer": self.name}

    def descriptors(self, images: Tensor, keypoints: Keypoints) -> Tensor:
        x, y = keypoints.xy.long().unbind(-1)
        batch = torch.arange(len(images))[:, None]
        colours = torch.nn.functional.normalize(images[batch, :, y, x], dim=-1)
        return colours * keypoints.mask[..., None]


def selector(members: tuple[str, ...], dim: int = 128, seed: int = 0) -> Selector:
    torch.manual_seed(seed)
    names = tuple(f"kind{i}" for i in range(len(members)))
    return Selector(SelectorConfig(members, names, dim, num_clusters=4)).eval()


@pytest.fixture
def image(photograph: np.ndarray) -> Tensor:
    return as_image(np.ascontiguousarray(photograph[:200, 130:370]))


def test_tiles_by_hand() -> None:
    """Pixels are areas: of 9 pixels, three to a tile."""
    xy = torch.tensor([[[0.0, 0.0], [2.4, 0.0], [2.6, 0.0], [8.0, 8.0], [8.5, -0.5], [4.0, 6.0]]])
    assert tile_of(xy, torch.tensor([[9.0, 9.0]]), 3).tolist() == [[0, 0, 1, 8, 2, 7]]


def test_tiles_are_those_the_matcher_takes() -> None:
    size = torch.tensor([[641.0, 479.0]])
    xy = torch.rand(1, 500, 2, generator=torch.Generator().manual_seed(0)) * size
    xy[0, :4] = size[0] * torch.arange(4)[:, None] / 3 - 0.5  # where one tile ends and the next begins
    assert torch.equal(tile_of(xy, size, 3), tile_weights(xy, size, 3, "nearest").argmax(-1))


def test_meta_descriptors_are_netvlad_of_each_tile() -> None:
    """Two keypoints in the first tile, one in the last, one masked; nothing in the others."""
    select = selector(("a", "b"), dim=8)
    descriptors = torch.nn.functional.normalize(torch.randn(1, 4, 2, 8), dim=-1)
    xy = torch.tensor([[[1.0, 1.0], [2.0, 2.0], [28.0, 28.0], [15.0, 15.0]]])
    mask = torch.tensor([[True, True, True, False]])
    meta = select(descriptors, xy, mask, torch.tensor([[30.0, 30.0]]))
    assert meta.shape == (1, 2, 3, 3, 32)
    for member, vlad in enumerate(select.meta.vlads):
        assert torch.allclose(meta[0, member, 0, 0], vlad(descriptors[0, :2, member]), atol=1e-6)
        assert torch.allclose(meta[0, member, 2, 2], vlad(descriptors[0, 2:3, member]), atol=1e-6)
    assert int((meta.norm(dim=-1) > 0).sum()) == 4


def test_zero_descriptors_do_not_count() -> None:
    select = selector(("a", "b"), dim=8)
    descriptors = torch.nn.functional.normalize(torch.randn(1, 2, 2, 8), dim=-1)
    xy, size = torch.tensor([[[1.0, 1.0], [2.0, 2.0]]]), torch.tensor([[30.0, 30.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    alone = select(descriptors[:, :1], xy[:, :1], mask[:, :1], size)
    descriptors[:, 1] = 0
    assert torch.equal(select(descriptors, xy, mask, size), alone)


def test_narrow_members_are_padded(image: Tensor) -> None:
    keypoints = SIFT()(image, 20)
    bank = Bank("mixed", (RootSift(), Colour()), selector(("root-sift", "colour")))
    features = bank.describe(image, keypoints)
    assert features.descriptors.shape == (1, 20, 2, 128)
    assert torch.equal(features.descriptors[:, :, 0], RootSift().descriptors(image, keypoints))
    assert torch.equal(features.descriptors[:, :, 1, :3], Colour().descriptors(image, keypoints))
    assert not features.descriptors[:, :, 1, 3:].any()
    assert features.selection.tile_sampling == "nearest"


def test_field_is_read_at_other_keypoints_too(image: Tensor) -> None:
    """The meta descriptors stay those of the field's own keypoints."""
    own, others = SIFT()(image, 40), Keypoints.from_xy(torch.tensor([[20.0, 30.0], [100.0, 50.0]]))
    bank = Bank("two", (RootSift(), RootSift(True)), selector(SIFT_MEMBERS))
    field = bank.field(image, own)
    assert torch.equal(field.at(others)[:, :, 0], RootSift().descriptors(image, others))
    assert torch.equal(field.meta(), bank.describe(image, own).meta_descriptors)


def test_batch_and_padding_change_nothing(image: Tensor) -> None:
    bank = Bank("two", (RootSift(), RootSift(True)), selector(SIFT_MEMBERS))
    other = image.flip(-1)
    found = SIFT()(image, 50), SIFT()(other, 11)
    both = bank.describe(torch.cat([image, other]), stack_keypoints(found))
    for index, (one, keypoints) in enumerate(zip((image, other), found, strict=True)):
        alone = bank.describe(one, keypoints)
        assert torch.allclose(both.select(index).descriptors, alone.descriptors, atol=1e-6)
        assert torch.allclose(both.meta_descriptors[index], alone.meta_descriptors[0], atol=1e-5)


def test_no_keypoints_give_no_matches(image: Tensor) -> None:
    bank = Bank("two", (RootSift(), RootSift(True)), selector(SIFT_MEMBERS))
    nothing = bank.describe(image, Keypoints.from_xy(torch.zeros(0, 2)))
    something = bank.describe(image, SIFT()(image, 10))
    assert not nothing.meta_descriptors.any()
    assert len(match(nothing, something)) == 0


def test_other_members_are_refused() -> None:
    with pytest.raises(InputError, match="trained for upright-root-sift, root-sift"):
        Bank("two", (RootSift(), RootSift(True)), selector(SIFT_MEMBERS[::-1]))


def test_other_widths_are_refused(image: Tensor) -> None:
    bank = Bank("two", (RootSift(), RootSift(True)), selector(SIFT_MEMBERS, dim=64))
    with pytest.raises(InputError, match="train it with descriptor_dim = 128"):
        bank.describe(image, SIFT()(image, 10))


@pytest.mark.parametrize(
    ("members", "invariances", "message"),
    [
        (("a",), ("x",), "two members or more"),
        (("a", "b"), ("x",), "1 invariances"),
        (("a", "b"), ("x", "x"), "own"),
    ],
)
def test_impossible_selectors_are_refused(
    members: tuple[str, ...], invariances: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SelectorConfig(members, invariances)


@pytest.mark.parametrize(
    ("prior", "message"), [((0.5,), "1 numbers for 2 members"), ((0.0, 1.0), "must be above 0")]
)
def test_impossible_priors_are_refused(prior: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SelectorConfig(("a", "b"), ("x", "y"), prior=prior)


def test_a_bank_of_impossible_numbers_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"\[bank\] lisrd-sift: the prior has 1"):
        BankConfig(prior=(2.0,)).build()
    with pytest.raises(InputError, match=r"\[bank\] lisrd-sift: .* 1 invariances"):
        BankConfig(invariances=("rot_invar",)).build()


def test_the_prior_multiplies_the_weights_in_use(tmp_path: Path) -> None:
    """What is learned stays as it is, and a file keeps both apart."""
    config = BankConfig(prior=(1.0, math.e))
    select = config.build().selector
    with torch.no_grad():
        select.meta.bias.copy_(torch.tensor([0.25, -0.25]))
    assert select.selection.bias == pytest.approx((0.25, 0.75))
    save_weights(tmp_path / "selection.safetensors", select, {"steps": 0}, half=False)
    loaded = lisrd_sift(tmp_path / "selection.safetensors").selector
    assert loaded.config == select.config
    assert loaded.selection == select.selection
    assert loaded.meta.bias.tolist() == [0.25, -0.25]


def test_selection_survives_a_file(tmp_path: Path, image: Tensor) -> None:
    select = selector(SIFT_MEMBERS)
    with torch.no_grad():
        select.meta.bias.copy_(torch.tensor([0.25, -0.5]))
    save_weights(tmp_path / "selection.safetensors", select, {"steps": 0}, half=False)
    bank = lisrd_sift(tmp_path / "selection.safetensors")
    keypoints = SIFT()(image, 30)
    ours = Bank("lisrd-sift", (RootSift(), RootSift(True)), select)
    assert torch.equal(
        bank.describe(image, keypoints).meta_descriptors, ours.describe(image, keypoints).meta_descriptors
    )
    assert bank.config == ours.config
    assert build_describer(f"lisrd-sift={tmp_path / 'selection.safetensors'}").config == ours.config
    assert bank.selector.selection.bias == (0.25, -0.5)


def test_config_tells_weights_apart() -> None:
    banks = [Bank("two", (RootSift(), RootSift(True)), selector(SIFT_MEMBERS, seed=seed)) for seed in (0, 1)]
    assert banks[0].config != banks[1].config
    assert json.dumps(banks[0].config)


def test_weights_of_a_network_are_no_selection(tmp_path: Path) -> None:
    from lisrd.describe.network import PyramidConfig, PyramidNetwork

    path = tmp_path / "network.safetensors"
    save_weights(path, PyramidNetwork(PyramidConfig((2, 2), trunk_width=2, head_width=2)), {})
    with pytest.raises(InputError, match="selection of a bank is needed"):
        load_selector(path)


def test_correspondences_by_hand() -> None:
    """A shift by 10: one exact, one off by 2, one off by 4 (too far), one wanted by two, one masked."""
    xy0 = torch.tensor([[5.0, 5.0], [20.0, 5.0], [40.0, 5.0], [60.0, 5.0], [61.0, 5.0], [80.0, 5.0]])
    xy1 = torch.tensor([[80.0 + 10, 5.0], [15.0, 5.0], [32.0, 5.0], [54.0, 5.0], [71.1, 5.0]])
    k0, k1 = Keypoints.from_xy(xy0), Keypoints.from_xy(xy1)
    k1 = replace(k1, mask=torch.tensor([[False, True, True, True, True]]))
    H = torch.tensor([[[1.0, 0, 10], [0, 1, 0], [0, 0, 1]]])
    index0, index1, mask = corresponding(k0, k1, H, radius=3.0)
    assert index0.tolist() == [[0, 1, 4]]
    assert index1.tolist() == [[1, 2, 4]]
    assert mask.all()
    assert corresponding(Keypoints.from_xy(xy0[:0]), k1, H, radius=3.0)[2].shape == (1, 0)


def described(d0: Tensor, d1: Tensor, xy: Tensor) -> DescribedPairs:
    """One pair of images of 20 x 20 pixels in which row i belongs to row i."""
    everywhere = torch.ones(xy.shape[:2], dtype=torch.bool)
    index = torch.arange(xy.shape[1])[None]
    size, no = torch.tensor([[20.0, 20.0]]), torch.tensor([False])
    return DescribedPairs(xy, xy, everywhere, everywhere, d0, d1, index, index, everywhere, size, no, no)


def test_concatenated_pairs_are_padded() -> None:
    few, many = (described(*torch.rand(2, 1, n, 2, 4), torch.rand(1, n, 2)) for n in (3, 5))
    both = concatenate([few, many])
    assert both.corresponds.sum(1).tolist() == both.mask0.sum(1).tolist() == [3, 5]
    assert torch.equal(both.choose(torch.tensor([1])).descriptors1, many.descriptors1)
    assert torch.equal(both.descriptors0[0, :3], few.descriptors0[0])
    select = selector(("a", "b"), dim=4)
    alone = SelectedPairs(select, few).weights[0]
    assert torch.allclose(SelectedPairs(select, both).weights[0, :, :3, :3], alone, atol=1e-6)


def test_member_cross_entropy_by_hand() -> None:
    """Member 0 is right about the first keypoint alone, member 1 about all: only the two others tell them apart."""
    eye = torch.eye(3)
    first = torch.stack([eye[0], eye[2], eye[1]])
    d0 = torch.stack([eye, eye], dim=1)[None]
    d1 = torch.stack([first, eye], dim=1)[None]
    pairs = SelectedPairs(selector(("a", "b"), dim=3), described(d0, d1, 20 * torch.rand(1, 3, 2)))
    weight = pairs.weights.diagonal(dim1=2, dim2=3)[0, 1].detach()
    assert float(member_cross_entropy(pairs).detach()) == pytest.approx(
        float(-weight[1:].log().mean()), rel=1e-5
    )


def test_k_means_finds_separate_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = 5 * torch.eye(4)
    points = centres.repeat(50, 1) + 0.1 * torch.randn(200, 4, generator=generator)
    found = k_means(points, 4, generator)
    assert torch.cdist(centres, found).amin(1).max() < 0.1


def test_clusters_become_assignments() -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(500, 8, generator=generator), dim=1)
    vlad = selector(("a", "b"), dim=8).meta.vlads[0]
    start_from_clusters(vlad, points, generator)  # type: ignore[arg-type]
    assignment = vlad.assign(points).softmax(1)
    nearest = torch.cdist(points, vlad.centroids).argmin(1)  # type: ignore[arg-type]
    assert torch.equal(assignment.argmax(1), nearest)
    assert 0.5 < assignment.amax(1).mean() < 0.99


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"), 24)


CONFIG = """
kind = "bank"
[bank]
num_clusters = 2
[pairs]
count = 6
max_keypoints = 60
[data]
height = 64
width = 96
min_keypoints = 8
[loss]
matching = "{matching}"
member_weight = 0.5
[run]
batch_size = 2
precision = "float32"
validation_triplets = 4
steps = 3
"""


@pytest.mark.parametrize("matching", ["dual_softmax", "triplet"])
def test_training_end_to_end(photographs: Path, tmp_path: Path, matching: str) -> None:
    config, out, exported = (tmp_path / name for name in ("config.toml", "out", "selection.safetensors"))
    config.write_text(CONFIG.format(matching=matching))
    trainer = build_trainer(config, photographs, out, workers=0)
    export_network(trainer.fit(), exported, trainer.provenance())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(np.isfinite([row["loss"], row["matching"], row["member"]]).all() for row in rows)
    for scores in trainer.last_validation.values():
        assert scores["oracle"] >= max(scores["rot_invar"], scores["rot_var"]) - 1e-6
    assert lisrd_sift(exported).selector.config.num_clusters == 2
    assert trainer.preview().images.shape == (3, 2, 3, 64, 96)


def test_resumed_training_equals_the_uninterrupted_one(photographs: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(matching="dual_softmax") + '[optimiser]\nschedule = "constant"')
    whole = build_trainer(config, photographs, tmp_path / "whole", workers=0, steps=4).fit()
    build_trainer(config, photographs, tmp_path / "halves", workers=0, steps=2).fit()
    halves = build_trainer(config, photographs, tmp_path / "halves", workers=0, steps=4, resume=True).fit()
    for name, value in whole.state_dict().items():
        assert torch.allclose(value, halves.state_dict()[name], atol=1e-6), name


def test_unknown_members_are_refused() -> None:
    with pytest.raises(InputError, match="unknown describer 'root-sif'"):
        BankConfig(members=("root-sift", "root-sif")).build()


@pytest.mark.parametrize("name", ["aliked-n16", "aliked-n16rot"])
def test_aliked_gives_its_own_descriptors_at_its_own_keypoints(
    shared: Path, image: Tensor, name: str
) -> None:
    """On a size that kornia pads; keypoints a pixel off would differ."""
    describer = Aliked(name, shared / "peers" / f"{name}.pth")
    image = image[..., :187, :233]
    with torch.no_grad():
        theirs = describer.network(image)[0]
    assert len(theirs.keypoints) > 20
    ours = describer.descriptors(image, Keypoints.from_xy(theirs.keypoints))
    assert torch.allclose(ours[0], theirs.descriptors, atol=1e-6)
    moved = describer.descriptors(image, Keypoints.from_xy(theirs.keypoints + 1))
    assert (moved[0] * theirs.descriptors).sum(1).mean() < 0.99


def test_aliked_respects_masks_and_corners(shared: Path, image: Tensor) -> None:
    describer = Aliked("aliked-n16", shared / "peers" / "aliked-n16.pth")
    corners = Keypoints.from_xy(torch.tensor([[-0.5, -0.5], [239.5, 199.5]]))
    nothing = Keypoints.from_xy(torch.zeros(0, 2))
    described = describer.descriptors(image.repeat(2, 1, 1, 1), stack_keypoints([nothing, corners]))
    assert not described[0].any()
    assert described[1].norm(dim=-1).tolist() == pytest.approx([1, 1], abs=1e-5)


def weight_of_invariance(describer: Describer, photograph: np.ndarray, degrees: float) -> float:
    """Mean weight of what is invariant to rotation, over the confident matches with the turned photograph."""
    turn = cv2.getRotationMatrix2D((255.5, 255.5), degrees, 0.9)
    turned = cv2.warpAffine(photograph, turn, (512, 512), flags=cv2.INTER_LINEAR)
    features = [
        describer.describe(image, SIFT()(image, 500)) for image in map(as_image, (photograph, turned))
    ]
    matches = match(*features, Policy(min_similarity=0.7))
    return float(matches.invariance_weights[:, matches.invariances.index("rot_invar")].mean())


def test_bundled_selection_chooses_by_rotation(photograph: np.ndarray) -> None:
    """Upright pairs are matched by what varies with rotation, turned ones by what does not."""
    describer = build_describer("lisrd-sift")
    assert weight_of_invariance(describer, photograph, 5) < 0.45
    assert weight_of_invariance(describer, photograph, 90) > 0.85


@pytest.mark.slow
def test_bundled_selection_of_aliked_chooses_by_rotation(shared: Path, photograph: np.ndarray) -> None:
    peers = (str(shared / "peers" / f"{name}.pth") for name in ("aliked-n16", "aliked-n16rot"))
    describer = build_describer("lisrd-aliked=" + ",".join(peers))
    upright, turned = (weight_of_invariance(describer, photograph, degrees) for degrees in (5, 45))
    assert turned > upright + 0.03, (upright, turned)
