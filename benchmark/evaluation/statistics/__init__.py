"""Confidence intervals and significance tests. Imports evaluation.metrics."""
