"""Evaluation of predictions by a protocol. Imports metrics, statistics and datasets.base."""
