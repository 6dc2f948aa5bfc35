"""The losses: by hand, against the paper's sums spelled out in loops, and their gradients in float64.

Numbers of the released code are compared in `test_paper.py`, where its network is at hand.
"""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lisrd.describe.network import PyramidConfig, PyramidNetwork
from lisrd.invariance import invariances
from lisrd.match.selection import descriptor_similarity
from lisrd.train import pair_softmax
from lisrd.train.data.triplets import Triplets
from lisrd.train.losses import (
    dual_softmax_loss,
    ignored_negatives,
    masked_mean,
    matching_score,
    rotation_gap,
    triplet_loss,
    variant_loss,
)
from lisrd.train.objective import LossConfig, TripletObjective, Views
from lisrd.train.pair_softmax import dual_softmax_of_descriptors
from lisrd.train.taught import TEACHER_LOSSES

INFINITE = math.inf


def unit(count: int, generator: torch.Generator, images: int = 1) -> Tensor:
    """Unit descriptors (images, count, 6) in float64."""
    vectors = torch.randn(images, count, 6, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=-1)


def nothing_ignored(count: int) -> Tensor:
    return torch.eye(count, dtype=torch.bool)[None]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Similarities (1, N, N), ignored pairs, and the mask, from keypoints at random places."""
    count = draw(st.integers(2, 7))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    xy0, xy1 = (40 * torch.rand(1, count, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(1, count, generator=generator) < 0.8
    similarity = unit(count, generator) @ unit(count, generator).transpose(1, 2)
    return similarity, ignored_negatives(xy0, xy1, mask, radius=8.0), mask


# By hand.


def test_close_and_masked_keypoints_are_no_negatives() -> None:
    xy0 = torch.tensor([[[0.0, 0.0], [5.0, 0.0], [50.0, 0.0], [90.0, 0.0]]])
    xy1 = torch.tensor([[[0.0, 0.0], [30.0, 0.0], [60.0, 0.0], [63.0, 0.0]]])
    mask = torch.tensor([[True, True, True, True]])
    ignored = ignored_negatives(xy0, xy1, mask, radius=8.0)[0]
    expected = torch.eye(4, dtype=torch.bool)  # a keypoint is no negative of itself
    expected[0, 1] = expected[1, 0] = True  # 5 px apart in image 0
    expected[2, 3] = expected[3, 2] = True  # 3 px apart in image 1
    assert torch.equal(ignored, expected)
    mask = torch.tensor([[True, False, True, True]])
    ignored = ignored_negatives(xy0, xy1, mask, radius=8.0)[0]
    assert ignored[1].all()
    assert ignored[:, 1].all()
    assert not ignored[0, 2]


def test_eight_pixels_is_far_enough() -> None:
    xy = torch.tensor([[[0.0, 0.0], [8.0, 0.0]]])
    ignored = ignored_negatives(xy, xy, torch.ones(1, 2, dtype=torch.bool), radius=8.0)
    assert not ignored[0, 0, 1]


def test_triplet_loss_by_hand() -> None:
    similarity = torch.tensor([[[0.9, 0.8], [0.1, 0.7]]])
    # Squared distances: positives 0.2 and 0.6; the only negatives are 0.4 and 1.8, hardest 0.4 for both keypoints.
    loss = triplet_loss(similarity, nothing_ignored(2), margin=1.0)
    torch.testing.assert_close(loss, torch.tensor([[1 + 0.2 - 0.4, 1 + 0.6 - 0.4]]))


def test_triplet_loss_without_negatives_is_zero() -> None:
    similarity = torch.tensor([[[-1.0, 0.5], [0.5, -1.0]]], requires_grad=True)
    loss = triplet_loss(similarity, torch.ones(1, 2, 2, dtype=torch.bool))
    loss.sum().backward()
    assert loss.tolist() == [[0.0, 0.0]]
    assert similarity.grad is not None
    assert torch.isfinite(similarity.grad).all()


def test_variant_loss_by_hand() -> None:
    steady, changed = torch.tensor([[0.9, 0.9]]), torch.tensor([[0.2, 0.8]])
    # Squared distances 0.2 steady, 1.6 and 0.4 changed; the gap asks for half the margin.
    loss = variant_loss(steady, changed, gap=torch.tensor([0.5]), margin=1.0)
    torch.testing.assert_close(loss, torch.tensor([[0.0, 0.5 + 0.2 - 0.4]]))


def test_no_gap_asks_only_for_the_order() -> None:
    same = torch.tensor([[0.3]])
    assert variant_loss(same, same, gap=torch.zeros(1)).item() == 0.0


@pytest.mark.parametrize(("degrees", "gap"), [(0, 0.0), (9, 0.2), (-9, 0.2), (45, 1.0), (-90, 1.0)])
def test_rotation_gap(degrees: float, gap: float) -> None:
    assert rotation_gap(torch.tensor([math.radians(degrees)])).item() == pytest.approx(gap, abs=1e-6)


def test_dual_softmax_by_hand() -> None:
    similarity = torch.tensor([[[1.0, 0.0], [0.5, 1.0]]])
    loss = dual_softmax_loss(similarity, nothing_ignored(2), sharpness=2.0)
    row0 = math.log(math.exp(2) + math.exp(0)) - 2
    column0 = math.log(math.exp(2) + math.exp(1)) - 2
    torch.testing.assert_close(loss, torch.tensor([[0.5 * (row0 + column0)] * 2]))


def test_dual_softmax_without_negatives_is_zero() -> None:
    similarity = torch.tensor([[[0.3, 0.9], [0.9, -0.2]]])
    loss = dual_softmax_loss(similarity, torch.ones(1, 2, 2, dtype=torch.bool), sharpness=20.0)
    torch.testing.assert_close(loss, torch.zeros(1, 2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("sharpness", [1.0, 20.0, 500.0])
def test_dual_softmax_stays_finite(sharpness: float) -> None:
    """Opposite partners at a sharpness that underflows every exponential."""
    similarity = torch.full((1, 3, 3), -1.0, requires_grad=True)
    loss = dual_softmax_loss(similarity, nothing_ignored(3), sharpness)
    loss.sum().backward()
    assert similarity.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(similarity.grad).all()


def test_masked_mean() -> None:
    values = torch.tensor([[1.0, 5.0], [3.0, 100.0]])
    assert masked_mean(values, torch.tensor([[True, True], [True, False]])).item() == 3.0
    assert masked_mean(values, torch.zeros(2, 2, dtype=torch.bool)).item() == 0.0


def test_matching_score_by_hand() -> None:
    similarity = torch.tensor([[[0.9, 0.1, 0.0], [0.2, 0.3, 0.8], [0.1, 0.7, 0.95]]])
    everything = torch.ones(1, 3, dtype=torch.bool)
    # 0 and 2 find each other; 1 prefers 2.
    assert matching_score(similarity, everything).item() == pytest.approx(2 / 3)
    # Without keypoint 2, both that are left find each other.
    assert matching_score(similarity, torch.tensor([[True, True, False]])).item() == 1.0
    assert matching_score(similarity, torch.zeros(1, 3, dtype=torch.bool)).item() == 0.0


# Spelled out.


@given(problems(), st.floats(0.1, 2.0))
@settings(max_examples=60, deadline=None)
def test_triplet_loss_is_the_papers_sum(problem: tuple[Tensor, Tensor, Tensor], margin: float) -> None:
    similarity, ignored, _ = problem
    distance = (2 - 2 * similarity[0]).tolist()
    count = len(distance)
    for i, value in enumerate(triplet_loss(similarity, ignored, margin)[0].tolist()):
        negatives = [distance[i][j] for j in range(count) if not ignored[0, i, j]]
        negatives += [distance[j][i] for j in range(count) if not ignored[0, j, i]]
        expected = max(0.0, margin + distance[i][i] - min(negatives, default=INFINITE))
        assert value == pytest.approx(expected, abs=1e-12)


@given(problems(), st.floats(0.5, 40.0))
@settings(max_examples=60, deadline=None)
def test_dual_softmax_is_two_cross_entropies(
    problem: tuple[Tensor, Tensor, Tensor], sharpness: float
) -> None:
    similarity, ignored, _ = problem
    eye = torch.eye(similarity.shape[1], dtype=torch.bool)
    logits = (sharpness * similarity[0]).masked_fill(ignored[0] & ~eye, -INFINITE)
    target = torch.arange(len(logits))
    forth = torch.nn.functional.cross_entropy(logits, target, reduction="none")
    back = torch.nn.functional.cross_entropy(logits.T, target, reduction="none")
    torch.testing.assert_close(dual_softmax_loss(similarity, ignored, sharpness)[0], 0.5 * (forth + back))


# Laws.


@given(problems())
@settings(max_examples=40, deadline=None)
def test_swapping_the_images_changes_nothing(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    similarity, ignored, mask = problem
    swapped, ignored_swapped = similarity.transpose(1, 2), ignored.transpose(1, 2)
    torch.testing.assert_close(triplet_loss(similarity, ignored), triplet_loss(swapped, ignored_swapped))
    torch.testing.assert_close(
        dual_softmax_loss(similarity, ignored, 5.0), dual_softmax_loss(swapped, ignored_swapped, 5.0)
    )
    assert matching_score(similarity, mask).item() == matching_score(swapped, mask).item()


@given(problems(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_keypoints_does_not_matter(
    problem: tuple[Tensor, Tensor, Tensor], random: object
) -> None:
    similarity, ignored, mask = problem
    order = list(range(similarity.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled, ignored_shuffled = similarity[:, order][:, :, order], ignored[:, order][:, :, order]
    torch.testing.assert_close(
        triplet_loss(similarity, ignored)[:, order], triplet_loss(shuffled, ignored_shuffled)
    )
    torch.testing.assert_close(
        dual_softmax_loss(similarity, ignored, 5.0)[:, order],
        dual_softmax_loss(shuffled, ignored_shuffled, 5.0),
    )
    assert matching_score(similarity, mask).item() == matching_score(shuffled, mask[:, order]).item()


@given(problems())
@settings(max_examples=40, deadline=None)
def test_masked_keypoints_change_nothing(problem: tuple[Tensor, Tensor, Tensor]) -> None:
    """Whatever a masked keypoint's similarities are, the losses of the others stay."""
    similarity, ignored, mask = problem
    hidden = ~(mask[:, :, None] & mask[:, None, :])
    other = torch.where(hidden, -similarity, similarity)
    for loss in (triplet_loss, lambda s, i: dual_softmax_loss(s, i, 5.0)):
        torch.testing.assert_close(
            masked_mean(loss(similarity, ignored), mask), masked_mean(loss(other, ignored), mask)
        )
    assert matching_score(similarity, mask).item() == matching_score(other, mask).item()


@given(problems(), st.floats(0.01, 0.5))
@settings(max_examples=40, deadline=None)
def test_a_better_partner_never_costs(problem: tuple[Tensor, Tensor, Tensor], gain: float) -> None:
    similarity, ignored, _ = problem
    better = similarity + gain * torch.eye(similarity.shape[1], dtype=similarity.dtype)
    assert (triplet_loss(better, ignored) <= triplet_loss(similarity, ignored)).all()
    assert (
        dual_softmax_loss(better, ignored, 5.0) <= dual_softmax_loss(similarity, ignored, 5.0) + 1e-12
    ).all()


# Gradients.


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_gradients(seed: int) -> None:
    """Finite differences, float64, through unit descriptors; random numbers keep away from the kinks."""
    generator = torch.Generator().manual_seed(seed)
    raw0, raw1 = (
        torch.randn(2, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)
    )
    ignored = nothing_ignored(4).repeat(2, 1, 1)
    ignored[0, 1, 2] = ignored[1, 3, 0] = True
    gap = torch.tensor([0.6, 0.2], dtype=torch.float64)
    sharpness = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        d0, d1 = (torch.nn.functional.normalize(d, dim=-1) for d in (a, b))
        return d0 @ d1.transpose(1, 2)

    def steady_and_changed(a: Tensor, b: Tensor) -> Tensor:
        s = similarity(a, b)
        return variant_loss(s.diagonal(dim1=1, dim2=2), s[:, 0], gap)

    check = torch.autograd.gradcheck
    assert check(lambda a, b: triplet_loss(similarity(a, b), ignored), (raw0, raw1))
    assert check(lambda a, b, k: dual_softmax_loss(similarity(a, b), ignored, k), (raw0, raw1, sharpness))
    assert check(steady_and_changed, (raw0, raw1))


@pytest.fixture
def two_triplets() -> Triplets:
    """Five keypoints per image, one of them hidden; the first triplet is turned by 40 degrees, the second relit."""
    places = 60 * torch.rand(3, 2, 5, 2, generator=torch.Generator().manual_seed(4))
    same, mask = torch.eye(3).expand(2, 3, 3), torch.ones(2, 5, dtype=torch.bool)
    mask[1, 4] = False
    turned, relit = torch.tensor([True, False]), torch.tensor([False, True])
    angle = torch.where(turned, math.radians(40), 0.0)
    return Triplets(torch.zeros(3, 2, 3, 64, 64), places, mask, same, same, angle, relit, turned)


def test_gradients_of_the_selection(two_triplets: Triplets) -> None:
    """The meta loss and the cross entropy, through 9 numbers per keypoint, to meta descriptors, sharpness and bias."""
    generator = torch.Generator().manual_seed(5)
    network = PyramidNetwork(PyramidConfig(widths=(2,) * 5, trunk_width=2, head_width=4, descriptor_dim=4))
    objective = TripletObjective(LossConfig(selection_weight=1.0), network.invariances).double()
    learned = network.meta.double()
    views = [unit(20, generator, 2).view(2, 5, 4, 6) for _ in range(3)]
    ignored = ignored_negatives(*two_triplets.keypoints[:2], two_triplets.mask, 4.0)
    tiles = [unit(36, generator, 2).view(2, 4, 3, 3, 6).requires_grad_() for _ in range(2)]

    def losses(meta0: Tensor, meta1: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        seen = Views(tuple(views), (meta0, meta1), two_triplets.angle)
        weighted, own_weights = objective._selected(network, seen, two_triplets)
        meta = masked_mean(objective._pair_loss(weighted, ignored), two_triplets.mask)
        return meta, objective._selection(own_weights, two_triplets, two_triplets.angle)

    assert torch.autograd.gradcheck(losses, (*tiles, learned.log_sharpness, learned.bias))


def test_gradients_from_descriptors_and_to_a_teacher(two_triplets: Triplets) -> None:
    generator = torch.Generator().manual_seed(6)
    views = [unit(20, generator, 2).view(2, 5, 4, 6).requires_grad_() for _ in range(3)]
    sharpness = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    chosen = torch.tensor([[True, False, True, True], [False, False, True, False]])
    ignored = ignored_negatives(*two_triplets.keypoints[:2], two_triplets.mask, 4.0)
    taught = unit(5, generator, 2).view(2, 5, 1, 6)

    def to_teacher(loss: str, descriptors: tuple[Tensor, ...], log_sharpness: Tensor) -> Tensor:
        objective = TripletObjective(
            LossConfig(teacher="root-sift", teacher_weight=1.0, teacher_loss=loss), invariances()
        )
        del objective.log_sharpness
        objective.log_sharpness = log_sharpness
        return objective._teacher(Views(descriptors, (), torch.zeros(2)), taught, two_triplets, chosen)

    check = torch.autograd.gradcheck
    assert check(
        lambda a, b, k: dual_softmax_of_descriptors(a, b, ignored, chosen, k), (*views[:2], sharpness)
    )
    for loss in TEACHER_LOSSES:
        log = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        assert check(lambda *inputs, loss=loss: to_teacher(loss, inputs[:3], inputs[3]), (*views, log))


# The dual softmax straight from descriptors.


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 9), st.booleans())
@settings(max_examples=40, deadline=None)
def test_dual_softmax_of_descriptors_is_that_of_their_similarities(
    seed: int, images: int, count: int, at_once: bool
) -> None:
    """Values and all three gradients, for any choice of pairs, of none too; by image or all at once."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, images, count, 4, 6)
    d0, d1 = torch.nn.functional.normalize(torch.randn(shape, generator=generator).double(), dim=-1)
    chosen = torch.rand(images, 4, generator=generator) < 0.6
    ignored = torch.rand(images, count, count, generator=generator) < 0.3
    image, kind = chosen.nonzero(as_tuple=True)
    weight = torch.rand(len(image), count, generator=generator).double()

    def gradients(direct: bool) -> tuple[Tensor, ...]:
        k = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
        a, b = d0.clone().requires_grad_(), d1.clone().requires_grad_()
        if direct:
            with patch.object(pair_softmax, "made_together", return_value=at_once):
                loss = dual_softmax_of_descriptors(a, b, ignored, chosen, k)
        else:
            loss = dual_softmax_loss(descriptor_similarity(a, b)[image, kind], ignored[image], k)
        return loss, *torch.autograd.grad((loss * weight).sum(), (a, b, k))

    for direct, expected in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(direct, expected)
