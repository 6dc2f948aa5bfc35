"""Speed as ratios: `python -m benchmarks.run` measures every stage beside its baselines, in one run."""
