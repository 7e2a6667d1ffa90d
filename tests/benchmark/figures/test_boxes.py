"""Boxes are drawn where a mask would be."""

from __future__ import annotations

import torch

from adbench.benchmark.figures.gallery import _drawn_truth
from adbench.datasets.base import Sample


def test_boxes_are_drawn_as_what_they_hold() -> None:
    sample = Sample(torch.zeros(1, 6, 8), "a", "a", True, boxes=((1, 2, 3, 4), (5, 0, 6, 8)))
    drawn = _drawn_truth(sample)
    assert drawn is not None and drawn.nonzero().tolist() == [
        *[[1, 2], [1, 3], [2, 2], [2, 3]],
        *[[5, column] for column in range(8)],
    ]
    mask = torch.ones(6, 8, dtype=torch.bool)
    assert _drawn_truth(Sample(torch.zeros(1, 6, 8), "a", "a", True, mask=mask)) is mask
    assert _drawn_truth(Sample(torch.zeros(1, 6, 8), "a", "a", True)) is None
