"""Measuring describers: data sets, metrics, the evaluation from end to end, its report, and comparisons."""

from lisrd.evaluate.compare import compare
from lisrd.evaluate.runner import evaluate

__all__ = ["compare", "evaluate"]
