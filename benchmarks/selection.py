"""What each part of the selection is worth: python -m benchmarks.selection --data ROOT [--weights pyramid]

Matching scores, per cent, on validation triplets (photographs kept out of training): the best single descriptor, the
best of each pair (oracle), the plain mean, and the selection by meta descriptors, by the pair's agreement, and by both.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lisrd.describe.weights import Network, load_network
from lisrd.match.agreement import agreement_logits, distinct_shares
from lisrd.match.selection import descriptor_similarity, weighted_similarity
from lisrd.train.config import load_config
from lisrd.train.data.triplets import Triplets
from lisrd.train.losses import matching_score
from lisrd.train.objective import read_views, selection_weights
from lisrd.train.trainer import Trainer
from lisrd.train.validation import KINDS, choose_turns, kind_of

POWERS = (8.0, 16.0, 24.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=Path("configs/pyramid.toml"))
    parser.add_argument("--weights", default="pyramid")
    parser.add_argument("--triplets", type=int, default=96)
    options = parser.parse_args()
    network = load_network(options.weights)
    rows: dict[str, dict[str, list[float]]] = {kind: defaultdict(list) for kind in KINDS}
    for triplets in validation_batches(options.config, options.data, options.triplets):
        for name, scores in measure(network, triplets).items():  # type: ignore[arg-type]
            for index, score in enumerate(scores.tolist()):
                rows[kind_of(triplets, index)][name].append(100 * score)
    report({kind: found for kind, found in rows.items() if found})


def validation_batches(config: Path, data: Path, count: int) -> list[Triplets]:
    """The triplets on which a training of this configuration validates."""
    with tempfile.TemporaryDirectory() as out:
        return Trainer(load_config(config), data, Path(out), workers=0).validation_batches(count)


@torch.no_grad()
def measure(network: Network, triplets: Triplets) -> dict[str, Float[Tensor, " B"]]:
    """Scores of every way to weigh the descriptors of these triplets' images 0 and 1."""
    views = read_views(network, triplets, choose_turns(network, triplets), triplets.angle)
    similarity = descriptor_similarity(views.descriptors[0], views.descriptors[1])
    mask = triplets.mask
    scores = {kind.name: matching_score(similarity[:, v], mask) for v, kind in enumerate(network.invariances)}
    scores["oracle"] = torch.stack(list(scores.values())).amax(0)
    scores["mean"] = matching_score(similarity.mean(1), mask)
    present = mask.unsqueeze(1).expand(similarity.shape[:3])
    config = network.config
    shares = distinct_shares(similarity, present, present, network.selection.agreement_ratio)
    chosen = similarity[torch.arange(len(similarity)), shares.argmax(1)]
    scores["highest agreement"] = matching_score(chosen, mask)
    for power in (0.0, *POWERS):
        alone = agreement_logits(shares, power)[..., None, None].expand_as(similarity).softmax(1)
        network.config = replace(config, agreement_power=power)  # type: ignore[arg-type]
        both = selection_weights(network, views.meta[0], views.meta[1], similarity, triplets)
        if power:
            scores[f"agreement ^ {power:.0f}"] = matching_score(weighted_similarity(similarity, alone), mask)
        name = f"meta, agreement ^ {power:.0f}" if power else "meta"
        scores[name] = matching_score(weighted_similarity(similarity, both), mask)
    network.config = config
    return scores


def report(rows: dict[str, dict[str, list[float]]]) -> None:
    names = list(next(iter(rows.values())))
    pairs = ", ".join(f"{kind} {len(next(iter(found.values())))}" for kind, found in rows.items())
    print(f"pairs: {pairs}\n\n| | {' | '.join(rows)} |\n|{' --- |' * (len(rows) + 1)}")
    for name in names:
        print(f"| {name} | {' | '.join(f'{sum(r[name]) / len(r[name]):.1f}' for r in rows.values())} |")


if __name__ == "__main__":
    main()
