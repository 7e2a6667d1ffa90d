"""Anomaly detectors, one file each. Imports methods.base, datasets.base and the engine."""
