"""Predicting new files with a trained detector: maps on their own grid, masks, scores, p-values.

It may import datasets' readers, experiments, evaluation, figures and the store. It knows no results
folder: which detector is meant, `api` says.
"""
