"""Where a training starts, which parts learn, how the rate ends, and what a teacher asks for."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lisrd.describe import build_describer
from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.describe.turns import TurnBatchNorm
from lisrd.describe.weights import load_network, save_weights
from lisrd.errors import InputError
from lisrd.invariance import invariances
from lisrd.train.config import OptimiserConfig, RunConfig, TrainingConfig, load_config
from lisrd.train.data.dataset import DataConfig
from lisrd.train.data.sources import SourceConfig
from lisrd.train.data.triplets import Triplets
from lisrd.train.objective import LossConfig, TripletObjective, Views
from lisrd.train.run import build_trainer
from lisrd.train.schedule import learning_rate
from lisrd.train.start import start_from
from lisrd.train.taught import finding_loss
from lisrd.train.teacher import Beside, Teacher, principal_components
from lisrd.train.trainer import Trainer
from lisrd.types import Keypoints
from small_training import SMALL as TABLES
from small_training import write_photographs

SMALL = PyramidConfig(widths=(2, 2, 2, 2, 2), trunk_width=4, head_width=8, descriptor_dim=8)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(7)
    path = tmp_path / "start.safetensors"
    save_weights(path, PyramidNetwork(SMALL), {"steps": 5, "minutes": 1.5})
    return path


def settings(**optimiser: object) -> TrainingConfig:
    return TrainingConfig(
        network=replace(SMALL, num_clusters=4),
        data=DataConfig((SourceConfig("images", "."),), 64, 96, num_keypoints=32, min_keypoints=8),
        loss=LossConfig(selection_weight=0.2),
        optimiser=OptimiserConfig(**optimiser),  # type: ignore[arg-type]
        run=RunConfig(steps=2, batch_size=2, precision="float32", validation_triplets=2),
    )


def test_descriptors_start_where_other_weights_ended(weights: Path) -> None:
    torch.manual_seed(0)
    network = PyramidNetwork(replace(SMALL, num_clusters=4))
    own = {n: t.clone() for n, t in network.state_dict().items() if n.startswith("meta.")}
    (told,) = start_from(network, [weights])
    assert told["steps"] == 5
    assert told["minutes"] == 1.5
    expected = PyramidNetwork(SMALL)
    start_from(expected, [weights])
    for name, tensor in expected.state_dict().items():
        if not name.startswith("meta."):
            assert torch.equal(network.state_dict()[name], tensor), name
    assert all(torch.equal(network.state_dict()[n], t) for n, t in own.items())  # nothing to start them from


@pytest.mark.parametrize(
    "larger",
    [
        {"widths": (2, 3, 4, 5, 2)},
        {"trunk_width": 12, "head_width": 11},
        {"ring_radii": (1.0, 0.0, 1.5)},
        {"encoder_input": "both"},
        {
            "widths": (3, 2, 5, 2, 4),
            "trunk_width": 8,
            "head_width": 16,
            "ring_radii": (1.0,),
            "encoder_input": "both",
        },
    ],
    ids=str,
)
@pytest.mark.parametrize("smaller", [{"turns": 4}, {"turns": 8, "ring_radii": (1.0,)}], ids=str)
def test_a_wider_network_starts_with_the_descriptors_of_a_small_one(
    tmp_path: Path, smaller: dict[str, Any], larger: dict[str, Any]
) -> None:
    torch.manual_seed(3)
    small = PyramidNetwork(replace(SMALL, **smaller))
    for norm in (m.norm for m in small.modules() if isinstance(m, TurnBatchNorm)):
        torch.nn.init.uniform_(norm.running_mean, -0.2, 0.2)
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
        torch.nn.init.uniform_(norm.bias, -0.5, 0.5)
    save_weights(tmp_path / "small.safetensors", small, {})
    wide = PyramidNetwork(replace(small.config, **larger))
    start_from(wide, [tmp_path / "small.safetensors"])
    images = torch.rand(1, 3, 64, 96)
    keypoints = Keypoints.from_xy(torch.rand(1, 30, 2) * 60)
    before, after = small.eval()(images), wide.eval()(images)
    torch.testing.assert_close(after.at(keypoints, 1), before.at(keypoints, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(after.meta(), before.meta(), atol=1e-5, rtol=0)


def test_a_narrower_head_keeps_the_hidden_units_that_weigh_most(tmp_path: Path) -> None:
    """Where the others weigh nothing, nothing is lost."""
    torch.manual_seed(3)
    small = PyramidNetwork(SMALL)
    light = torch.randperm(SMALL.head_width)[:3]
    with torch.no_grad():
        for head in small.heads:
            head.out.weight[:, light] = 0
    save_weights(tmp_path / "small.safetensors", small, {})
    narrow = PyramidNetwork(replace(SMALL, head_width=SMALL.head_width - 3))
    start_from(narrow, [tmp_path / "small.safetensors"])
    images, keypoints = torch.rand(1, 3, 64, 96), Keypoints.from_xy(torch.rand(1, 30, 2) * 60)
    before, after = (network.eval()(images).at(keypoints) for network in (small, narrow))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_plain_levels_lose_their_block_and_no_more(tmp_path: Path) -> None:
    """Where the block adds nothing, nothing is lost."""
    torch.manual_seed(3)
    small = PyramidNetwork(SMALL)
    with torch.no_grad():
        small.encoder.levels[0].second.norm.norm.weight.zero_()
        small.encoder.levels[0].second.norm.norm.bias.zero_()
    save_weights(tmp_path / "small.safetensors", small, {})
    plain = PyramidNetwork(replace(SMALL, plain_levels=1))
    start_from(plain, [tmp_path / "small.safetensors"])
    images, keypoints = torch.rand(1, 3, 64, 96), Keypoints.from_xy(torch.rand(1, 30, 2) * 60)
    before, after = (network.eval()(images).at(keypoints) for network in (small, plain))
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)
    save_weights(tmp_path / "plain.safetensors", plain, {})
    with pytest.raises(
        InputError, match="plain_levels is 1 in the weights and 0 here: blocks cannot be added"
    ):
        start_from(PyramidNetwork(SMALL), [tmp_path / "plain.safetensors"])


def test_the_copies_of_a_feature_part(weights: Path) -> None:
    """Equal copies would learn alike for ever."""
    wide = PyramidNetwork(replace(SMALL, widths=(4, 4, 4, 4, 4)))
    start_from(wide, [weights])
    kernels = wide.state_dict()["encoder.levels.1.first.conv.weight"]
    read = kernels[:, :, :2] + kernels[:, :, 2:]  # what equal inputs are multiplied by
    torch.testing.assert_close(read[:2], read[2:])  # they make the same,
    assert (kernels[:2] - kernels[2:]).abs().max() > 1e-3  # of other shares,
    assert (kernels[:, :, :2] - kernels[:, :, 2:]).abs().max() > 1e-3  # and are read differently


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"widths": (1, 2, 2, 2, 2)}, "no growth"),
        ({"widths": (2, 2, 2, 2)}, "no growth"),
        ({"turns": 8}, "turns is 4 in the weights and 8 here; it cannot grow"),
        ({"trunk_width": 6}, "no multiple"),
        ({"descriptor_dim": 16}, "cannot grow"),
        (
            {"encoder_input": "light"},
            "encoder_input is 'colour' in the weights and 'light' here; it cannot grow",
        ),
    ],
    ids=str,
)
def test_weights_of_other_sizes_are_refused(weights: Path, other: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=rf"{re.escape(str(weights))}: .*{reason}"):
        start_from(PyramidNetwork(replace(SMALL, **other)), [weights])


def test_rings_can_be_added_and_not_changed(tmp_path: Path) -> None:
    save_weights(tmp_path / "ring.safetensors", PyramidNetwork(replace(SMALL, ring_radii=(1.0,))), {})
    for radii in ((), (1.5,)):
        with pytest.raises(InputError, match="rings can be added only"):
            start_from(PyramidNetwork(replace(SMALL, ring_radii=radii)), [tmp_path / "ring.safetensors"])


def test_of_several_weights_it_is_their_mean(weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    first, second = load_network(weights), PyramidNetwork(SMALL)
    other = tmp_path / "other.safetensors"
    save_weights(other, second, {"steps": 7})
    network = PyramidNetwork(SMALL)
    told = start_from(network, [weights, other])
    assert [one["steps"] for one in told] == [5, 7]
    for name, mean in network.state_dict().items():
        expected = (first.state_dict()[name] + second.state_dict()[name]) / 2
        torch.testing.assert_close(mean, expected.to(mean.dtype))


def test_no_steps_only_validate_and_measure(photographs: Path, weights: Path, tmp_path: Path) -> None:
    """The mean of weights is exported this way: nothing is learned, BatchNorm's statistics are measured."""
    none = replace(settings(), network=SMALL, run=replace(settings().run, steps=0))
    run = Trainer(none, photographs, tmp_path / "run", workers=0, init=[weights, weights])
    averaged = run.fit().state_dict()
    assert run.progress.step == 0
    assert run.last_validation
    started = load_network(weights).state_dict()
    measured = {name for name in averaged if not torch.equal(averaged[name].cpu(), started[name])}
    assert measured
    assert all("running_" in name or "num_batches" in name for name in measured)


def test_selection_alone_leaves_the_descriptors(photographs: Path, weights: Path, tmp_path: Path) -> None:
    run = Trainer(settings(parts="selection"), photographs, tmp_path / "run", workers=0, init=[weights])
    before = {n: t.clone() for n, t in run.network.state_dict().items()}
    run.fit()
    moved = {n for n, t in run.network.state_dict().items() if not torch.equal(t, before[n])}
    assert moved
    assert all(name.startswith("meta.") for name in moved)
    assert run.provenance()["started_from"][0]["steps"] == 5


def test_resumed_run_remembers_where_it_started(photographs: Path, weights: Path, tmp_path: Path) -> None:
    Trainer(settings(), photographs, tmp_path / "run", workers=0, init=[weights]).fit()
    again = Trainer(settings(), photographs, tmp_path / "run", workers=0)
    assert again.resume()
    assert again.provenance()["started_from"][0]["minutes"] == 1.5


def test_resuming_what_has_not_begun_starts_from_init(
    photographs: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.toml").write_text(f"{TABLES}[run]\nbatch_size = 2\nprecision = 'float32'\n")
    places = (tmp_path / "config.toml", photographs, tmp_path / "run")
    run = build_trainer(*places, steps=1, workers=0, resume=True, init=[weights])
    assert run.provenance()["started_from"][0]["steps"] == 5
    run.save()
    again = build_trainer(*places, steps=1, workers=0, resume=True, init=["no such weights"])
    assert again.provenance()["started_from"][0]["steps"] == 5


def test_cooldown_by_hand() -> None:
    config = OptimiserConfig(learning_rate=1.0, schedule="cooldown", cooldown_share=0.25, final_fraction=0.0)
    shares = {0.0: 1.0, 0.5: 1.0, 0.75: 1.0, 0.875: 0.5, 1.0: 0.0, 1.5: 0.0}
    assert {spent: learning_rate(config, 1000, spent) for spent in shares} == pytest.approx(shares)


@pytest.fixture
def anchors() -> Triplets:
    """Two triplets of three keypoints at one place in all images; nothing changed in the first, all in the second."""
    places = torch.tensor([[10.0, 10.0], [30.0, 10.0], [50.0, 10.0]]).expand(3, 2, 3, 2)
    same, mask = torch.eye(3).expand(2, 3, 3), torch.ones(2, 3, dtype=torch.bool)
    changed = torch.tensor([False, True])
    return Triplets(torch.zeros(3, 2, 3, 64, 64), places, mask, same, same, 2.0 * changed, changed, changed)


def test_teacher_by_hand(anchors: Triplets) -> None:
    """One learner of four; the changed view is asked only where nothing changed that it varies with."""
    teaching = LossConfig(teacher="aliked-n16=x", teacher_weight=1.0, teacher_kinds=("rot_var_illum_invar",))
    objective = TripletObjective(teaching, invariances())
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    right = x.expand(2, 3, 4, 2)  # B, N, V, D
    views = Views((right, y.expand(2, 3, 4, 2), right), (right, right, right), torch.zeros(2))
    taught = x.expand(2, 3, 1, 2)
    asked = torch.tensor([[True] * 4, [False] * 4])
    # 2 x 2 views agree, 1 asked view is orthogonal, 1 is not asked: 1 of 5.
    assert float(objective._teacher(views, taught, anchors, asked)) == pytest.approx(0.2)
    # Of the first anchor alone: 1 of 3.
    assert float(objective._teacher(views, taught[:1], anchors, asked)) == pytest.approx(1 / 3)


def test_finding_the_teachers_descriptors_by_hand(anchors: Triplets) -> None:
    """Three descriptors at right angles: each view that has them finds each with odds of e^k to twice 1."""
    teaching = LossConfig(
        teacher="aliked-n16=x",
        teacher_weight=1.0,
        teacher_kinds=("rot_var_illum_invar",),
        teacher_loss="dual_softmax",
    )
    objective = TripletObjective(teaching, invariances())
    k = objective.config.initial_sharpness
    taught = torch.eye(3).expand(2, 3, 3)[:, :, None]  # S, N, K, D
    right = torch.eye(3).expand(2, 3, 3)[:, :, None].expand(2, 3, 4, 3)
    exchanged = right[:, [1, 0, 2]]
    found = math.log(1 + 2 * math.exp(-k))
    missed = found + 2 / 3 * k  # two of three are where the other should be
    asked = torch.tensor([[True] * 4, [False] * 4])
    for changed, expected in ((right, found), (exchanged, (2 * found + missed) / 3)):
        views = Views((right, changed, right), (), torch.zeros(2))
        loss = objective._teacher(views, taught, anchors, asked)
        assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-7)
    nothing = torch.zeros(
        2, 4, dtype=torch.bool
    )  # asked of the changed views: a loss of 0, still a mean of three
    views = Views((right, exchanged, right), (), torch.zeros(2))
    assert objective._teacher(views, taught, anchors, nothing).item() == pytest.approx(
        found * 2 / 3, abs=1e-7
    )


@pytest.mark.parametrize("view", [0, 1, 2])
def test_what_is_near_in_a_view_is_no_negative_of_a_teacher(anchors: Triplets, view: int) -> None:
    """With all keypoints in one place, in the anchor or in the view that is asked, nothing is left to be told apart."""
    taught = torch.eye(3).expand(2, 3, 3)[:, :, None]
    asked = torch.zeros(3, 2, 1, dtype=torch.bool)
    asked[1] = True
    places = [xy * (0.01 if index == view else 1) for index, xy in enumerate(anchors.keypoints)]
    learners = taught.expand(3, 2, 3, 1, 3)
    loss = finding_loss(learners, taught, asked, anchors.mask, places, 4.0, torch.tensor(2.0))
    negatives = 2 if view == 2 else 0  # the places of a view that is not asked say nothing of the others
    assert loss.item() == pytest.approx(math.log(1 + negatives * math.exp(-2)) / 3, abs=1e-6)


def test_hidden_keypoints_are_not_asked_to_find_a_teachers_descriptor(anchors: Triplets) -> None:
    """Of two that are left each has one negative; the hidden one, far from its own, is not counted."""
    taught = torch.eye(3).expand(2, 3, 3)[:, :, None]
    learners = taught.expand(3, 2, 3, 1, 3).clone()
    learners[:, :, 2] *= -1
    asked, mask = torch.ones(3, 2, 1, dtype=torch.bool), torch.tensor([[True, True, False]]).expand(2, 3)
    loss = finding_loss(learners, taught, asked, mask, list(anchors.keypoints), 4.0, torch.tensor(2.0))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2)), abs=1e-6)


def test_a_teacher_with_several_descriptors_gives_each_kind_its_own() -> None:
    """The clean anchor is what lies in the middle of the canvas."""
    canvas = torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8)
    xy = torch.tensor([[[20.0, 30.0], [40.5, 20.25]]])
    sample = {
        "image0": canvas,
        "keypoints0": xy,
        "keypoint_mask": torch.ones(1, 2, dtype=torch.bool),
        "scales": torch.ones(1, 2),
        "oris": torch.zeros(1, 2),
    }
    teacher = Teacher("pyramid", ("rot_invar_illum_var", "rot_invar_illum_invar"), 128, (64, 96))
    anchor = canvas[:, :, 16:80, 16:112].float() / 255
    features = build_describer("pyramid").describe(anchor, Keypoints.from_xy(xy))
    expected = [features.invariances.index(kind) for kind in teacher.kinds]
    torch.testing.assert_close(teacher.describe(sample), features.descriptors[:, :, expected])


@pytest.mark.parametrize("name", ["root-sift", "upright-root-sift"])
def test_a_teacher_is_not_told_scales_and_orientations_that_no_detector_gave(name: str) -> None:
    """Of three samples the second has both, the last has scales: each is described as it is alone."""
    g = torch.Generator().manual_seed(0)
    xy, mask = 16 + 40 * torch.rand((3, 20, 2), generator=g), torch.ones(3, 20, dtype=torch.bool)
    scales, oris = torch.full((3, 20), 5.0), torch.full((3, 20), 0.3)
    scales[0], oris[0], oris[2] = math.nan, math.nan, math.nan
    image = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8, generator=g)
    sample = {"image0": image, "keypoints0": xy, "keypoint_mask": mask, "scales": scales, "oris": oris}
    taught = Teacher(name, ("rot_invar_illum_var",), 128, (64, 96)).describe(sample)
    for i, (scale, ori) in enumerate([(None, None), (scales[1:2], oris[1:2]), (scales[2:], None)]):
        keypoints = Keypoints(xy[i : i + 1], mask[i : i + 1].float(), mask[i : i + 1], scale, ori)
        features = build_describer(name).describe(image[i : i + 1].float() / 255, keypoints)
        torch.testing.assert_close(taught[i], features.descriptors[0])
        assert taught[i].any(-1).all()


def test_principal_components_by_hand() -> None:
    """The second and the fourth value say nothing; what is left is as near to the first two as it can be."""
    values = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [2.0, 0.01, 3.0, 0.01]
    )
    basis = principal_components(values, 2)
    expected = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(basis.abs(), expected, atol=0.02, rtol=0)
    assert basis[0, 0] > 0
    torch.testing.assert_close(principal_components(values, 4), torch.eye(4), atol=1e-4, rtol=0)


def test_a_teacher_of_more_values_teaches_its_principal_components() -> None:
    g = torch.Generator().manual_seed(0)
    sample = {
        "image0": torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8, generator=g),
        "keypoints0": 16 + 40 * torch.rand((2, 200, 2), generator=g),
        "keypoint_mask": torch.rand((2, 200), generator=g) > 0.2,
        "scales": torch.ones(2, 200),
        "oris": torch.zeros(2, 200),
    }
    kinds = ("rot_invar_illum_var", "rot_var_illum_invar")
    teacher, single = (Teacher(name, kinds, 128, (64, 96)) for name in ("pyramid@1+2", "pyramid"))
    with pytest.raises(InputError, match="has 256 values per descriptor and the network 128"):
        teacher.describe(sample)
    teacher.shorten([sample])
    taught = teacher.describe(sample)
    assert taught.shape == (2, 200, 2, 128)
    torch.testing.assert_close(taught.norm(dim=-1), torch.ones(2, 200, 2))
    alike = (taught * single.describe(sample)).sum(-1)[sample["keypoint_mask"]]
    assert alike.median() > 0.6  # a network that gives those of full size begins near
    single.shorten([sample])
    assert single.components is None


def test_a_second_teacher_stands_beside_the_first_for_the_kinds_it_is_named_for() -> None:
    g = torch.Generator().manual_seed(0)
    xy = 16 + 40 * torch.rand((1, 300, 2), generator=g)
    sample = {
        "image0": torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8, generator=g),
        "keypoints0": xy,
        "keypoint_mask": torch.ones(1, 300, dtype=torch.bool),
        "scales": torch.full((1, 300), 4.0),
        "oris": torch.zeros(1, 300),
    }
    kinds = ("rot_invar_illum_var", "rot_var_illum_invar")
    beside = Beside("root-sift", ("rot_var_illum_invar",), 0.5)
    teacher = Teacher("pyramid", kinds, 128, (64, 96), beside=beside)
    mask = sample["keypoint_mask"]
    keypoints = Keypoints(xy, mask.float(), mask, sample["scales"], sample["oris"])
    first, second = (
        build_describer(name).describe(sample["image0"].float() / 255, keypoints)
        for name in ("pyramid", "root-sift")
    )
    columns = [first.invariances.index(kind) for kind in kinds]
    alone, together = first.descriptors[:, :, columns].unbind(2)
    sift = second.descriptors[:, :, 0]

    teacher.shorten([sample])
    taught = teacher.describe(sample)

    torch.testing.assert_close(
        taught[:, :, 0], alone, atol=1e-4, rtol=0
    )  # one it is not named for is as before
    cosines = (together @ together.mT + 0.25 * sift @ sift.mT) / 1.25
    torch.testing.assert_close(taught[:, :, 1] @ taught[:, :, 1].mT, cosines, atol=0.1, rtol=0)
    assert ((taught[:, :, 1] @ taught[:, :, 1].mT) - together @ together.mT).abs().max() > 0.1


def test_a_second_teacher_needs_a_first() -> None:
    with pytest.raises(ValueError, match=r"beside loss\.teacher, which is not set"):
        LossConfig(teacher_beside="root-sift")
    with pytest.raises(ValueError, match=r"names rot_var_illum_invar: not in loss\.teacher_kinds"):
        LossConfig(teacher="pyramid", teacher_weight=1.0, teacher_kinds=(), teacher_beside="root-sift")


def test_a_kind_that_nobody_teaches_is_refused() -> None:
    with pytest.raises(InputError, match="teacher_kinds names 'rot_invar'"):
        TripletObjective(LossConfig(teacher_kinds=("rot_invar",)), invariances())


def test_a_teacher_without_the_kind_is_refused() -> None:
    sample = {
        "image0": torch.randint(0, 256, (1, 3, 96, 128), dtype=torch.uint8),
        "keypoints0": torch.tensor([[[20.0, 30.0]]]),
        "keypoint_mask": torch.ones(1, 1, dtype=torch.bool),
        "scales": torch.full((1, 1), 4.0),
        "oris": torch.zeros(1, 1),
    }
    with pytest.raises(InputError, match=r"lisrd-sift has no rot_invar_illum_invar; .* rot_invar"):
        Teacher("lisrd-sift", ("rot_invar_illum_invar",), 128, (64, 96)).describe(sample)


def test_configuration_of_a_share(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('[optimiser]\nparts = "heads"\n')
    with pytest.raises(InputError, match="it must be 'all' or 'selection'"):
        load_config(path)
