"""Benchmarks of speed, as ratios from one run. Imports experiments, evaluation and the engine."""
