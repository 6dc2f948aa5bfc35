"""The published network: shapes and padding by hand, laws, then the released code's numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lisrd.describe import build_describer
from lisrd.describe.field import read_field
from lisrd.describe.netvlad import NetVLAD
from lisrd.describe.paper import PaperConfig, PaperNetwork
from lisrd.describe.weights import from_published, save_weights
from lisrd.detect import build_detector
from lisrd.match import Policy, match
from lisrd.match.nearest import mutual_nearest_neighbours
from lisrd.match.selection import (
    descriptor_similarity,
    invariance_weights,
    meta_factors,
    tile_weights,
    weighted_similarity,
)
from lisrd.train.losses import ignored_negatives, masked_mean, triplet_loss, variant_loss
from lisrd.types import Keypoints, LocalFeatures
from published import published_state, seeded_weights

SMALL = PaperConfig(widths=(4, 4, 8, 8), descriptor_dim=8, num_clusters=2)


@pytest.fixture
def small() -> PaperNetwork:
    torch.manual_seed(0)
    return PaperNetwork(SMALL).eval()


def keypoints_in(width: int, height: int, images: int = 1) -> Keypoints:
    """Seven keypoints, the same in every image."""
    places = torch.rand(7, 2, generator=torch.Generator().manual_seed(0))
    return Keypoints.from_xy((places * torch.tensor([width - 1.0, height - 1.0])).expand(images, 7, 2))


# By hand.


def test_the_published_sizes() -> None:
    parameters = PaperNetwork().state_dict()
    assert len(parameters) == 106  # 104 published ones, the temperature and the bias of the selection
    assert parameters["encoder.groups.0.0.conv.weight"].shape == (64, 3, 3, 3)
    assert parameters["heads.3.out.weight"].shape == (128, 256, 1, 1)
    assert parameters["meta.vlads.2.centroids"].shape == (8, 128)


def test_the_selection_is_the_papers(small: PaperNetwork) -> None:
    assert small.selection.temperature == 1.0
    assert small.selection.bias == (0.0, 0.0, 0.0, 0.0)
    assert small.selection.rotation_variant is None  # nothing can be turned
    assert small.selection.tile_sampling == "bilinear"
    assert small.selection.invariances[1] == "rot_invar_illum_var"


def test_field_has_unit_descriptors_and_meta_descriptors(small: PaperNetwork) -> None:
    features = read_field(small(torch.rand(2, 3, 48, 64)), keypoints_in(64, 48, images=2))
    assert features.descriptors.shape == (2, 7, 4, 8)
    assert features.meta_descriptors.shape == (2, 4, 3, 3, 16)
    assert features.turned_descriptors is None
    assert features.image_size.tolist() == [[64.0, 48.0]] * 2
    for vectors in (features.descriptors, features.meta_descriptors):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))


def test_a_keypoint_at_the_centre_of_a_map_pixel_reads_that_pixel(small: PaperNetwork) -> None:
    field = small(torch.rand(1, 3, 48, 64))
    keypoint = Keypoints.from_xy(torch.tensor([[2 * 8 + 3.5, 5 * 8 + 3.5]]))
    expected = F.normalize(torch.stack([m[0, :, 5, 2] for m in field.maps]), dim=-1)
    torch.testing.assert_close(field.at(keypoint)[0, 0], expected)


def test_reference_convention_is_half_a_pixel_off_ours(small: PaperNetwork) -> None:
    torch.manual_seed(0)
    reference = PaperNetwork(PaperConfig((4, 4, 8, 8), 8, 2, compat="reference")).eval()
    assert reference.selection.tile_sampling == "reference"
    image, inside = torch.rand(1, 3, 48, 64), torch.tensor([[20.0, 21.0], [33.3, 30.1]])
    ours = small(image).at(Keypoints.from_xy(inside))
    theirs = reference(image).at(Keypoints.from_xy(inside + 0.5))
    torch.testing.assert_close(ours, theirs)


def test_reference_drops_what_the_pooling_drops(small: PaperNetwork) -> None:
    reference = PaperNetwork(PaperConfig((4, 4, 8, 8), 8, 2, compat="reference")).eval()
    image = torch.rand(1, 3, 53, 71)
    assert reference(image).maps[0].shape[-2:] == (6, 8)
    assert small(image).maps[0].shape[-2:] == (7, 9)


def test_unknown_compat_says_what_is_known() -> None:
    # A TypeError where types are checked at run time.
    with pytest.raises((ValueError, TypeError), match="'none' or 'reference'"):
        PaperConfig(compat="released")  # type: ignore[arg-type]


def test_a_photograph_matches_itself(small: PaperNetwork, photograph: np.ndarray, tmp_path: Path) -> None:
    """Through the file, the describer and the matcher, with random weights."""
    image = torch.from_numpy(photograph[60:213, 150:350]).permute(2, 0, 1)[None] / 255
    for _ in range(30):  # without statistics of photographs, random maps are nearly constant
        small.train()(image)
    save_weights(tmp_path / "paper.safetensors", small, {})
    describer = build_describer(str(tmp_path / "paper.safetensors"), precision="float32")
    features = describer.describe(image, build_detector("sift")(image, 50))
    matches = match(features, features, Policy()).matches
    assert matches.tolist() == [[i, i] for i in range(50)]


# Laws.


@pytest.mark.parametrize(("width", "height"), [(64, 48), (72, 56), (104, 80)])
def test_tiles_are_the_map_resized_and_cut(small: PaperNetwork, width: int, height: int) -> None:
    field = small(torch.rand(2, 3, height, width))
    rows, columns = height // 24, width // 24
    resized = F.interpolate(field.maps[0], size=(3 * rows, 3 * columns), mode="bilinear")
    vlad = small.meta.vlads[0]
    for row, column in [(0, 0), (1, 2), (2, 1)]:
        tile = resized[:, :, row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        expected = vlad(F.normalize(tile, dim=1).flatten(2).transpose(1, 2))
        torch.testing.assert_close(field.meta()[:, 0, row, column], expected)


@pytest.mark.parametrize("compat", ["none", "reference"])
@pytest.mark.parametrize(("width", "height"), [(32, 32), (33, 47), (71, 53)])
def test_any_size_and_batching(compat: str, width: int, height: int) -> None:
    network = PaperNetwork(PaperConfig((4, 4, 8, 8), 8, 2, compat=compat)).eval()  # type: ignore[arg-type]
    images = torch.rand(2, 3, height, width)
    batch = read_field(network(images), keypoints_in(width, height, images=2))
    single = read_field(network(images[1:]), keypoints_in(width, height))
    torch.testing.assert_close(batch.descriptors[1:], single.descriptors, atol=1e-5, rtol=0)
    torch.testing.assert_close(batch.meta_descriptors[1:], single.meta_descriptors, atol=1e-5, rtol=0)


def test_padding_is_only_the_repeated_border(small: PaperNetwork) -> None:
    """Descriptors of a padded image are those of the image that the caller padded alike."""
    image, keypoints = torch.rand(1, 3, 44, 60), keypoints_in(60, 44)
    by_hand = F.pad(image, (2, 2, 2, 2), mode="replicate")
    moved = Keypoints.from_xy(keypoints.xy + 2)
    torch.testing.assert_close(small(image).at(keypoints), small(by_hand).at(moved))


def test_tiles_leave_the_padding_out(small: PaperNetwork) -> None:
    """On a map that is a ramp over x, tile samples are the places of the image's cells, whatever was padded."""
    field = small(torch.rand(1, 3, 44, 60))
    ramp = torch.arange(8.0) * 8 + 3.5 - 2  # x in the image of each column; two pixels of padding
    field.maps = [torch.stack([ramp, torch.full((8,), 100.0)]).view(1, 2, 1, 8).expand(1, 2, 6, 8)]
    tiles = field._tiles(field.maps[0])[0, :3]  # (3 tiles of the first row, P, 2), unit vectors
    places = 100 * tiles[..., 0] / tiles[..., 1]
    cells = (torch.arange(6) + 0.5) * 10 - 0.5  # 60 px in 3 tiles of 2 cells
    torch.testing.assert_close(places[:, :2].flatten(), cells.clamp(1.5, 57.5), atol=1e-3, rtol=0)


def test_every_parameter_learns(small: PaperNetwork) -> None:
    field = small.train()(torch.rand(2, 3, 48, 64))
    weights = torch.linspace(0, 1, 8)
    (field.at(keypoints_in(64, 48, images=2)) @ weights).sum().add(field.meta()[..., ::3].sum()).backward()
    without = [
        n for n, p in small.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert without == []
    assert not small.meta.log_sharpness.requires_grad


def test_reference_tiles_come_from_the_map_as_it_is() -> None:
    """A map of 8 x 6 pixels of an image of 71 x 53: resized to 6 x 6, as if it covered the whole image."""
    network = PaperNetwork(PaperConfig((4, 4, 8, 8), 8, 2, compat="reference")).eval()
    field = network(torch.rand(1, 3, 53, 71))
    resized = F.interpolate(field.maps[0], size=(6, 6), mode="bilinear")
    tile = F.normalize(resized[:, :, 2:4, 4:6], dim=1).flatten(2).transpose(1, 2)
    torch.testing.assert_close(field.meta()[:, 0, 1, 2], network.meta.vlads[0](tile))


# The released code's numbers.


@pytest.fixture(scope="module")
def published(golden: dict[str, np.ndarray]) -> PaperNetwork:
    network = PaperNetwork(PaperConfig(compat="reference"))
    state = from_published(published_state(golden), "golden")
    network.load_state_dict(state, strict=False)
    return network.eval()


@pytest.fixture(scope="module")
def described(published: PaperNetwork, golden: dict[str, np.ndarray]) -> list[LocalFeatures]:
    """Features of the three images at their keypoints."""
    images = torch.from_numpy(golden["images"])
    return [
        read_field(
            published(images[i : i + 1]),
            Keypoints.from_xy(torch.from_numpy(golden[f"kp{i}_rowcol"]).flip(-1)),
        )
        for i in range(3)
    ]


def close(ours: Tensor, theirs: np.ndarray) -> None:
    """To 1e-4 of the largest number."""
    expected = torch.from_numpy(theirs)
    assert ours.shape == expected.shape
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_golden_maps_and_meta_descriptors(published: PaperNetwork, golden: dict[str, np.ndarray]) -> None:
    with torch.no_grad():
        field = published(torch.from_numpy(golden["images"][:1]))
        meta = field.meta()
    for v, name in enumerate(published.selection.invariances):
        close(field.maps[v], golden[f"map_{name}"])
        close(meta[:, v].permute(0, 3, 1, 2), golden[f"meta_{name}"])


def test_golden_descriptors(described: list[LocalFeatures], golden: dict[str, np.ndarray]) -> None:
    for i in range(2):
        close(described[i].descriptors[0], golden[f"desc{i}"])


def test_golden_meta_descriptors_at_keypoints(
    described: list[LocalFeatures], golden: dict[str, np.ndarray]
) -> None:
    for i in range(2):
        f = described[i]
        weights = tile_weights(f.keypoints, f.image_size, 3, f.selection.tile_sampling)
        mixed = F.normalize(weights @ f.meta_descriptors[0].flatten(1, 2), dim=-1)
        close(mixed.transpose(0, 1), golden[f"metadesc{i}"])


def golden_similarity(f0: LocalFeatures, f1: LocalFeatures) -> Tensor:
    """The weighted similarity (1, N, N) by the functions that training and matching share."""
    w0, w1 = (tile_weights(f.keypoints, f.image_size, 3, f.selection.tile_sampling) for f in (f0, f1))
    thin0, thin1 = meta_factors(f0.meta_descriptors, f1.meta_descriptors, w0, w1)
    weights = invariance_weights(thin0, thin1, 1.0, torch.zeros(4))
    return weighted_similarity(descriptor_similarity(f0.descriptors, f1.descriptors), weights)


def test_golden_weighted_distance(described: list[LocalFeatures], golden: dict[str, np.ndarray]) -> None:
    close(2 - 2 * golden_similarity(described[0], described[1])[0], golden["weighted_sqdist"])


def test_golden_matches(described: list[LocalFeatures], golden: dict[str, np.ndarray]) -> None:
    matches = match(described[0], described[1], Policy())
    assert matches.matches.tolist() == golden["matches_independent_images"].tolist()


def test_golden_netvlad(golden: dict[str, np.ndarray]) -> None:
    state = seeded_weights(
        ["centroids", "conv.bias", "conv.weight"], [(8, 128), (8,), (8, 128, 1, 1)], seed=3
    )
    vlad = NetVLAD(128, 8)
    vlad.load_state_dict(
        {
            "centroids": state["centroids"],
            "assign.bias": state["conv.bias"],
            "assign.weight": state["conv.weight"].flatten(1),
        }
    )
    places = torch.from_numpy(golden["netvlad_in"]).flatten(2).transpose(1, 2)
    close(vlad(F.normalize(places, dim=-1)).detach(), golden["netvlad_out"])


def test_golden_losses(described: list[LocalFeatures], golden: dict[str, np.ndarray]) -> None:
    expected = json.loads(str(golden["losses"]))
    f0, f1, f2 = described
    mask = torch.from_numpy(golden["valid_mask"]).bool()
    ignored = ignored_negatives(f0.keypoints, f1.keypoints, mask, radius=8.0)
    changed = descriptor_similarity(f0.descriptors, f1.descriptors)[0]  # (V, N, N)
    steady = (f0.descriptors * f2.descriptors).sum(-1)
    ours = {}
    for v, name in enumerate(f0.invariances):
        ours[f"invariant_{name}"] = masked_mean(triplet_loss(changed[v : v + 1], ignored), mask)
        positive = changed[v].diagonal()[None]
        loss = variant_loss(steady[..., v], positive, torch.tensor([0.6]))
        ours[f"variant_gap0.6_{name}"] = masked_mean(loss, mask)
    weighted = golden_similarity(f0, f1)
    ours["meta"] = masked_mean(triplet_loss(weighted, ignored), mask)
    # The released score counts every pair of mutual nearest neighbours; ours, `matching_score`, only the true ones.
    seen = weighted[0][mask[0]][:, mask[0]]
    ours["matching_score"] = torch.tensor(len(mutual_nearest_neighbours(seen)) / len(seen))
    assert {name: float(value) for name, value in ours.items()} == pytest.approx(expected, rel=1e-4)
