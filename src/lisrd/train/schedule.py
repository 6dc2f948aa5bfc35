"""The learning rate over a training."""

from __future__ import annotations

import math

from lisrd.train.config import OptimiserConfig


def learning_rate(config: OptimiserConfig, step: int, spent: float) -> float:
    """Linear warm-up over steps, then the schedule over the share of the budget that is spent."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = max(0.0, 1 - spent)
    shape = {
        "constant": 1.0,
        "cosine": 0.5 * (1 - math.cos(math.pi * left)),
        "cooldown": min(1.0, left / config.cooldown_share),
    }[config.schedule]
    final = 1.0 if config.schedule == "constant" else config.final_fraction
    return config.learning_rate * warm * (final + (1 - final) * shape)
