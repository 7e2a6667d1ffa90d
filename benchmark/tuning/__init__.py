"""Tuning that is fair: equal numbers of trials for all methods, and none sees the test split.

May import experiments, evaluation, store, registry, methods.base and engine.
"""
