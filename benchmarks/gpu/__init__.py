"""Describing, matching and training on one GPU: `python -m benchmarks.gpu`."""
