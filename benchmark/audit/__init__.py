"""Audit of a dataset: leaks between splits, cues that give the label away. Imports evaluation."""
