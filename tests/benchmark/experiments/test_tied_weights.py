"""Weights that share memory, tied or views, are stored apart and loaded into the method again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from adbench.benchmark.experiments.fit_predict import fit, load_method
from adbench.datasets.base import Sample, Spec, Split
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.base import Detection, Method


class Tied(Method):
    """Two layers with one weight, and two buffers that are views of one tensor."""

    low: Tensor
    high: Tensor

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.one, self.two = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.two.weight = self.one.weight
        bank = torch.arange(4.0)
        self.register_buffer("low", bank[:2])
        self.register_buffer("high", bank[2:])

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        with torch.no_grad():
            self.one.weight.fill_(3.0)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return Detection(x.flatten(1).mean(1)[None].expand(len(levels), -1))


def test_they_are_stored_apart_and_loaded(tmp_path: Path) -> None:
    data = [Sample(torch.zeros(1, 4, 4), "a", "a", False)]
    fit(tmp_path / "w", Tied(Spec(1, (4, 4))), data, data, TrainingContext())
    method = Tied(Spec(1, (4, 4)))
    load_method(method, tmp_path / "w", TrainingContext())
    assert method.one.weight is method.two.weight and method.one.weight.eq(3).all()
    assert method.low.tolist() == [0, 1] and method.high.tolist() == [2, 3]
