"""Measuring describers: data sets, metrics, the evaluation from end to end, its report, and comparisons."""

from lisrd.evaluate.compare import compare
from lisrd.evaluate.datasets import LAYOUTS
from lisrd.evaluate.runner import BROKEN_INPUT, evaluate

__all__ = ["BROKEN_INPUT", "LAYOUTS", "compare", "evaluate"]
