"""Sharing what was trained: weights of the authors and of others become detectors here."""
