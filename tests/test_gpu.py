"""What only an NVIDIA GPU shows: `python -m pytest tests/test_gpu.py`, in a process of its own.

`test_match_gpu` has Triton interpret kernels in the process that collects it; here they are compiled.
"""

from __future__ import annotations

import os
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))  # the benchmarks are no part of the installed package

from benchmarks.inputs import feature_pair, image, triplets  # noqa: E402

from lisrd import LISRD, Policy, match  # noqa: E402
from lisrd.describe.network import PyramidNetwork  # noqa: E402
from lisrd.match.gpu import Tile, nearest_on_gpu  # noqa: E402
from lisrd.match.nearest import Nearest, mutual, nearest_in_tiles  # noqa: E402
from lisrd.match.passes import choose_pass  # noqa: E402
from lisrd.match.scorer import PairScorer  # noqa: E402
from lisrd.train.objective import LossConfig, TripletObjective  # noqa: E402
from lisrd.types import Keypoints, LocalFeatures, Selection  # noqa: E402

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")

#: Two similarities that differ by less are a tie for one of two orders of adding them up.
TIE = 2e-5


@pytest.fixture(autouse=True)
def exact_convolutions() -> None:
    """torch computes float32 convolutions in TF32 unless told otherwise."""
    torch.backends.cudnn.allow_tf32 = False


@pytest.fixture
def compiled() -> None:
    """Kernels by Triton's compiler."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("Triton interprets in this process; run tests/test_gpu.py alone")


def scorer(count0: int, count1: int, kinds: list[int], policy: Policy = Policy()) -> PairScorer:
    """Of images with so many keypoints, half of which correspond, on the GPU."""
    features = (f.to("cuda") for f in feature_pair(max(count0, count1), keep_turns=False))
    cut = (_first(f, count) for f, count in zip(features, (count0, count1), strict=True))
    return PairScorer.of(*cut, kinds, policy)


def _first(features: LocalFeatures, count: int) -> LocalFeatures:
    names = ("keypoints", "keypoint_scores", "descriptors", "mask")
    return replace(features, **{name: getattr(features, name)[:, :count] for name in names})


def by_torch(parts: PairScorer) -> Nearest:
    return nearest_in_tiles(parts.similarity_tile, parts.counts, (512, 512), need_second=False)


def by_triton(parts: PairScorer, sharp: bool | None = None, tile: Tile = Tile()) -> Nearest:
    operands = parts.descriptors0, parts.descriptors1, parts.thin0, parts.thin1, parts.bias.flatten()
    return nearest_on_gpu(*operands, parts.sharp if sharp is None else sharp, tile)


def assert_equal_but_for_ties(found: Nearest, expected: Nearest, parts: PairScorer) -> None:
    torch.testing.assert_close(found.best1, expected.best1, atol=TIE, rtol=0)
    torch.testing.assert_close(found.best0, expected.best0, atol=TIE, rtol=0)
    similarity = parts.similarity_tile(slice(None), slice(None))
    for dim, index, best in ((1, found.index1, expected.best1), (0, found.index0, expected.best0)):
        chosen = similarity.gather(dim, index.unsqueeze(dim)).squeeze(dim)
        torch.testing.assert_close(chosen, best[:, 0], atol=TIE, rtol=0)
    assert (found.index1 == expected.index1).float().mean() > 0.999


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("kinds", [[2], [0, 1, 2, 3]])
@pytest.mark.parametrize(("count0", "count1"), [(2048, 2048), (1001, 1777), (1, 333), (70, 5)])
def test_triton_finds_the_neighbours_that_torch_finds(count0: int, count1: int, kinds: list[int]) -> None:
    parts = scorer(count0, count1, kinds)
    assert_equal_but_for_ties(by_triton(parts), by_torch(parts), parts)


@pytest.mark.usefixtures("compiled")
def test_triton_with_sharp_exponents_and_with_another_tile() -> None:
    parts = scorer(700, 900, [0, 1, 2, 3])
    expected = by_torch(parts)
    assert not parts.sharp
    assert_equal_but_for_ties(by_triton(parts, sharp=True), expected, parts)
    assert_equal_but_for_ties(by_triton(parts, tile=Tile(64, 32, 32, warps=4)), expected, parts)
    sharp = scorer(700, 900, [0, 1, 2, 3], Policy(temperature=1e-3))
    assert sharp.sharp
    assert_equal_but_for_ties(by_triton(sharp), by_torch(sharp), sharp)


@pytest.mark.usefixtures("compiled")
def test_of_equal_keypoints_the_first_is_the_nearest() -> None:
    parts = scorer(200, 200, [0, 1, 2, 3])
    once = by_triton(parts)
    for name in ("descriptors0", "descriptors1", "thin0", "thin1"):
        setattr(parts, name, getattr(parts, name).repeat(1, 3, 1))
    assert mutual(by_triton(parts)).tolist() == mutual(once).tolist()


@pytest.mark.usefixtures("compiled")
def test_bfloat16_descriptors_are_summed_in_float32() -> None:
    parts = scorer(1000, 1100, [0, 1, 2, 3], Policy(precision="bfloat16"))
    found = by_triton(parts)
    parts.descriptors0, parts.descriptors1 = parts.descriptors0.float(), parts.descriptors1.float()
    assert_equal_but_for_ties(found, by_torch(parts), parts)


@pytest.mark.usefixtures("compiled")
def test_matches_are_those_of_the_cpu() -> None:
    assert choose_pass("cuda") == ("triton", "one kernel that writes no similarities")
    features = feature_pair(1500)
    expected = match(*features)
    found = match(*(f.to("cuda") for f in features))
    assert found.matches.is_cuda
    assert found.turn == expected.turn
    assert share_in(found.matches, expected.matches) > 0.998
    if found.matches.tolist() == expected.matches.tolist():
        torch.testing.assert_close(found.scores.cpu(), expected.scores, atol=1e-4, rtol=0)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("count", [0, 3])
def test_no_keypoints_in_one_image(count: int) -> None:
    features0, features1 = (f.to("cuda") for f in feature_pair(max(count, 1)))
    empty = replace(features1, mask=torch.zeros_like(features1.mask))
    for pair in ((features0, empty), (empty, features0)):
        for policy in (Policy(), Policy(ratio=0.9)):
            assert match(*pair, policy).matches.shape == (0, 2)


@pytest.mark.parametrize("chosen", ["torch", "triton"])
def test_matching_32k_keypoints_takes_less_than_a_gigabyte(
    chosen: str, compiled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = sys.modules["lisrd.match.scorer"]  # the package has a function of this name
    monkeypatch.setattr(scorer, "choose_pass", lambda device: (chosen, "asked for"))
    features = [random_features(32768, torch.Generator("cuda").manual_seed(seed)) for seed in (0, 1)]
    match(features[0], features[0])  # workspaces of the libraries
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    found = match(*features)
    assert len(found) > 0
    assert torch.cuda.max_memory_allocated() - before < 1 << 30


def random_features(count: int, g: torch.Generator) -> LocalFeatures:
    """Made on the GPU: on a CPU it takes seconds."""

    def unit(*shape: int) -> torch.Tensor:
        return F.normalize(torch.randn(shape, generator=g, device="cuda"), dim=-1)

    return LocalFeatures(
        keypoints=400 * torch.rand((1, count, 2), generator=g, device="cuda"),
        keypoint_scores=torch.rand((1, count), generator=g, device="cuda"),
        descriptors=unit(1, count, 4, 128),
        meta_descriptors=unit(1, 4, 3, 3, 1024),
        image_size=torch.tensor([[640.0, 480.0]], device="cuda"),
        mask=torch.ones((1, count), dtype=torch.bool, device="cuda"),
        selection=Selection(tuple("abcd"), 0.1, (0.1, 0.0, -0.2, 0.3), agreement_power=16.0),
    )


def share_in(matches: torch.Tensor, others: torch.Tensor) -> float:
    """Matches that both have over those that either has."""
    ours, theirs = ({tuple(pair) for pair in m.tolist()} for m in (matches, others))
    return len(ours & theirs) / len(ours | theirs)


@pytest.mark.parametrize(
    ("precision", "tolerance", "share"), [("float32", 2e-3, 0.99), ("bfloat16", 0.15, 0.8)]
)
def test_lisrd_describes_and_matches_as_on_the_cpu(precision: str, tolerance: float, share: float) -> None:
    """Descriptors are unit vectors of 128 numbers; the second photograph is the first one, turned."""
    photograph = image(320, 240)
    images = photograph, photograph.rot90(1, (2, 3)).contiguous()
    cpu = LISRD.from_pretrained("pyramid", precision="float32")
    gpu = LISRD.from_pretrained("pyramid", device="cuda", precision=precision)  # type: ignore[arg-type]
    expected, found = (model.match_images(*images, max_keypoints=512) for model in (cpu, gpu))
    for name in ("features0", "features1"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.descriptors.is_cuda
        assert ours.descriptors.dtype == torch.float32
        torch.testing.assert_close(ours.keypoints.cpu(), theirs.keypoints)
        for field in ("descriptors", "meta_descriptors"):
            angle = (getattr(ours, field).cpu() - getattr(theirs, field)).norm(dim=-1)
            assert angle.max() < tolerance
    assert found.matches.turn == expected.matches.turn != 0
    assert share_in(found.matches.matches, expected.matches.matches) > share


@pytest.mark.parametrize("name", ["paper", "pyramid@1+2", "lisrd-sift"])
def test_other_describers_match_on_the_gpu(name: str) -> None:
    photograph = image(320, 240)
    model = LISRD.from_pretrained(name, device="cuda")
    found = model.match_images(photograph, photograph.flip(1), max_keypoints=256)
    assert len(found.matches) > 100
    assert found.points0.shape == found.points1.shape


def test_an_image_that_lies_on_the_gpu() -> None:
    model = LISRD.from_pretrained("pyramid", device="cuda", precision="float32")
    photograph = image(320, 240)
    expected, found = (model.describe(one, max_keypoints=100) for one in (photograph, photograph.cuda()))
    torch.testing.assert_close(found.descriptors, expected.descriptors)


def test_the_whole_way_to_a_verified_pair() -> None:
    photograph = image(320, 240)
    shifted = photograph.roll((8, 12), (2, 3))
    model = LISRD.from_pretrained("pyramid", device="cuda")
    verified = model.verify_images(photograph, shifted, max_keypoints=512)
    assert len(verified.points0) > 50
    assert abs((verified.points1 - verified.points0).mean(0) - [12, 8]).max() < 1


def loss_of_a_step(device: str, dtype: torch.dtype = torch.float32) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of one batch, and the gradients of every parameter."""
    torch.manual_seed(0)
    network = PyramidNetwork().train()
    objective = TripletObjective(LossConfig(selection_weight=0.1), network.invariances).to(device)
    network.to(device)
    batch = triplets(2, 160, 128, 64)
    batch = replace(batch, **{f.name: getattr(batch, f.name).to(device) for f in fields(batch)})
    lower = dtype != torch.float32
    with torch.autocast(device, dtype if lower else None, enabled=lower):
        loss = objective(network, batch)["loss"]
    loss.backward()
    return loss.item(), {n: p.grad.cpu() for n, p in network.named_parameters() if p.grad is not None}


def test_a_training_step_has_the_loss_and_the_gradients_of_the_cpu() -> None:
    (expected, theirs), (found, ours) = (loss_of_a_step(device) for device in ("cpu", "cuda"))
    assert found == pytest.approx(expected, rel=1e-2)
    assert ours.keys() == theirs.keys()
    whole = sum(gradient.norm() ** 2 for gradient in theirs.values()) ** 0.5
    for name, gradient in ours.items():
        allowed = 0.02 * theirs[name].norm() + 1e-3 * whole  # some gradients are differences of large numbers
        assert (gradient - theirs[name]).norm() < allowed, name


def test_a_training_step_in_bfloat16() -> None:
    (expected, _), (found, gradients) = loss_of_a_step("cpu"), loss_of_a_step("cuda", torch.bfloat16)
    assert found == pytest.approx(expected, rel=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_the_describer_gives_every_image_of_a_batch_what_it_gives_it_alone() -> None:
    model = LISRD.from_pretrained("pyramid", device="cuda", precision="float32")
    images = torch.cat([image(320, 240), image(320, 240).flip(3)])
    keypoints = Keypoints.from_xy(torch.rand((2, 50, 2), generator=torch.Generator().manual_seed(0)) * 200)
    both = model.describe(images, keypoints)
    for index in range(2):
        alone = model.describe(images[index : index + 1], keypoints.select(index))
        torch.testing.assert_close(both.descriptors[index], alone.descriptors[0], atol=1e-4, rtol=0)
