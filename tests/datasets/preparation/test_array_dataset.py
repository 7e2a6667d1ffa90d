"""Equal samples of array files: problems across splits, notes within one."""

from __future__ import annotations

import numpy as np

from adbench.datasets.preparation.array_dataset import find_duplicate_samples


def test_copies_are_problems_across_splits_and_notes_within() -> None:
    one, two, blank = np.arange(3.0), np.arange(4.0), np.zeros(3)
    held = [("a", "train", one), ("b", "test", one), ("c", "train", one), ("d", "test", two)]
    problems, notes = find_duplicate_samples([*held, ("e", "train", blank), ("f", "test", blank)])
    assert problems == ["b (test) is a copy of a (train): remove one"]
    assert notes == ["c is a copy of a, both in train"]
