"""Measurements, side by side in one run each. Run one with `python -m benchmarks.NAME`."""
