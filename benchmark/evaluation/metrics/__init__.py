"""Metrics on plain arrays. Imports numpy, scipy and numba only; usable by anyone."""
