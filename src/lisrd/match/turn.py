"""Turned selection: by how many quarter turns is image 1 read before the invariance is selected.

The rotation variant descriptors of image 1 exist in four turns, or in eight: then turns are multiples of one half. The
turn of the pair is the one under which they agree best with those of image 0. Turning image 1 by quarter turns changes
the chosen turn and no match. Swapping the images gives the opposite turn, read in the other image's frame: the same
matches where the turn is 0, nearly the same elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.errors import InputError
from lisrd.match.nearest import mutual_nearest_neighbours
from lisrd.match.policy import Policy
from lisrd.types import LocalFeatures

#: Enough keypoints to tell four turns apart, the strongest ones being the most repeatable: of 76 pairs of turned webcam
#: photographs all had the turn that twice as many choose, for a quarter of the time.
TURN_VOTERS = 512


def choose_turn(
    features0: LocalFeatures, features1: LocalFeatures, kinds: list[int], policy: Policy
) -> float:
    """The quarter turns of image 1 as the policy wants it chosen, 0 where there is nothing to turn.

    Raises:
        InputError: the policy asks for a turn that the features do not have, for orientations that they lack, or for
            orientations and allows no invariance to rotation, whose matches would tell them.
    """
    if policy.turn == "off":
        return 0
    if not isinstance(policy.turn, str):
        _number(features1, policy.turn)
        return policy.turn
    columns = [column for column, v in enumerate(_turnable(features1)) if v in kinds]
    if features1.turned_descriptors is None or not columns or not min(_counts(features0, features1)):
        return 0
    if policy.turn == "orientations":
        number = _turn_of_orientations(features0, features1, kinds)
    else:
        number = _turn_of_agreement(features0, features1, columns)
    quarters = 4 * number / _num_turns(features1)
    return int(quarters) if quarters.is_integer() else quarters


def _turn_of_agreement(features0: LocalFeatures, features1: LocalFeatures, columns: list[int]) -> int:
    """The number of the turn under which the turnable descriptors `columns` are most alike."""
    assert features1.turned_descriptors is not None
    kept = [_turnable(features1)[column] for column in columns]
    voters0, voters1 = _strongest(features0), _strongest(features1)
    upright0 = _flat(features0.descriptors[0, voters0][:, kept])
    upright1 = _flat(features1.descriptors[0, voters1][:, kept])
    turned1 = features1.turned_descriptors[0, voters1][:, :, columns]
    candidates = [upright1, *(_flat(turned1[:, t]) for t in range(turned1.shape[1]))]
    return int(torch.stack([_agreement(upright0, c) for c in candidates]).argmax())


def _turn_of_orientations(features0: LocalFeatures, features1: LocalFeatures, kinds: list[int]) -> int:
    """The number of the turn that most rotation invariant matches vote for with their keypoints' orientations."""
    if features0.oris is None or features1.oris is None:
        raise InputError(
            "policy: turn is 'orientations', but the keypoints have none; use SIFT's, or turn='auto'"
        )
    turnable = _turnable(features0)
    invariant = [v for v in kinds if v not in turnable]
    if not invariant:
        raise InputError(
            "policy: turn is 'orientations', but no invariance that it allows is one to rotation; use turn='auto'"
        )
    voters0, voters1 = _strongest(features0), _strongest(features1)
    flat0 = _flat(features0.descriptors[0, voters0][:, invariant])
    flat1 = _flat(features1.descriptors[0, voters1][:, invariant])
    index0, index1 = mutual_nearest_neighbours(flat0 @ flat1.T).unbind(1)
    # `torch.rot90` turns directions by -90 degrees where y points down.
    difference = features1.oris[0, voters1[index1]] - features0.oris[0, voters0[index0]]
    num_turns = _num_turns(features1)
    votes = torch.round(difference / (2 * math.pi / num_turns)).long() % num_turns
    return int(votes.bincount(minlength=num_turns).argmax())


def read_turned(features: LocalFeatures, turn: float) -> LocalFeatures:
    """The features with their rotation variant descriptors and meta descriptors as the turned image gives them.

    `turn` counts quarter turns. Raises InputError for a turn that the features do not have.
    """
    number = _number(features, turn)
    if not number:
        return features
    assert features.turned_descriptors is not None
    assert features.turned_meta_descriptors is not None
    turnable = _turnable(features)
    descriptors, meta = features.descriptors.clone(), features.meta_descriptors.clone()
    descriptors[:, :, turnable] = features.turned_descriptors[:, :, number - 1]
    meta[:, turnable] = features.turned_meta_descriptors[:, number - 1]
    return replace(features, descriptors=descriptors, meta_descriptors=meta)


def _num_turns(features: LocalFeatures) -> int:
    turned = features.turned_descriptors
    return 1 if turned is None else turned.shape[2] + 1


def _number(features: LocalFeatures, turn: float) -> int:
    """Which of the turns that the features hold is one by so many quarters."""
    if turn and features.turned_descriptors is None:
        raise InputError(
            f"policy: turn is {turn}, but features1 hold no turned descriptors: describe with keep_turns"
        )
    number = turn * _num_turns(features) / 4
    if not float(number).is_integer():
        raise InputError(f"policy: turn is {turn}, but features1 hold quarter turns only: use 0, 1, 2 or 3")
    return int(number)


def _turnable(features: LocalFeatures) -> list[int]:
    flags = features.selection.rotation_variant or ()
    return [v for v, is_variant in enumerate(flags) if is_variant]


def _counts(*features: LocalFeatures) -> list[int]:
    return [f.keypoints.shape[1] for f in features]


def _strongest(features: LocalFeatures) -> Tensor:
    scores = features.keypoint_scores[0]
    return scores.topk(min(TURN_VOTERS, len(scores))).indices


def _flat(descriptors: Float[Tensor, "N R D"]) -> Float[Tensor, "N RD"]:
    return descriptors.float().flatten(1)


def _agreement(descriptors0: Tensor, descriptors1: Tensor) -> Tensor:
    """Mean similarity to the nearest neighbour, in both directions."""
    similarity = descriptors0 @ descriptors1.T
    return similarity.amax(1).mean() + similarity.amax(0).mean()
