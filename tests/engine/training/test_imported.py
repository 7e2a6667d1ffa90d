"""Weights from elsewhere take the place of a training; calibration goes on as ever."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, TrainingOutcome, train_module

DATA: Any = [SimpleNamespace(x=torch.ones(1), label=False)]
PLAN = Training(steps=3, batch=2, lr=0.1)


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.adversary = nn.Linear(1, 1), nn.Linear(1, 1)
        self.register_buffer("scale", torch.ones(1))


def never(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
    raise AssertionError("trained")


def test_imported_weights_are_loaded_instead_of_trained() -> None:
    module = Module()
    weights = {"net.weight": torch.full((1, 1), 5.0), "net.bias": torch.full((1,), 6.0)}
    adversary = module.adversary.weight.clone()
    outcome = train_module(
        never, module, DATA, TrainingContext(imported={module: weights}), PLAN, "diffusion"
    )
    assert outcome == TrainingOutcome(0, 2) and not module.training
    assert module.net.weight.item() == 5 and module.net.bias.item() == 6
    assert torch.equal(module.adversary.weight, adversary) and module.scale == 1


def test_another_training_goes_on_as_ever() -> None:
    module = Module()

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        return module.net(x).square().mean(1)

    context = TrainingContext(imported={nn.Linear(1, 1): {"bias": torch.ones(1)}})
    assert train_module(loss, module, DATA, context, PLAN, "diffusion").steps == 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"net.weight": torch.ones(1, 1)}, "do not fit: missing: net.bias"),
        (
            {"net.weight": torch.ones(1, 1), "net.bias": torch.ones(1), "other": torch.ones(1)},
            "unknown: other",
        ),
        (
            {"net.weight": torch.ones(2, 1), "net.bias": torch.ones(1)},
            r"of another shape: net.weight \(2, 1\) for \(1, 1\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(weights: dict[str, Tensor], message: str) -> None:
    module = Module()
    before = module.net.weight.clone()
    with pytest.raises(ValueError, match=message):
        train_module(never, module, DATA, TrainingContext(imported={module: weights}), PLAN)
    assert torch.equal(module.net.weight, before)
