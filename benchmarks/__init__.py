"""Holdfast side by side with the tools it is compared to: `python -m benchmarks`."""
