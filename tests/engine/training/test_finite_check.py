"""A number that is not finite ends a training: on a GPU one step later, but before any saving."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from accelerator import pretended_accelerator
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module
from adbench.engine.training.loss import NotFinite
from trainings import DATA, MemoryStateStore, build_net, denoising_error, train_net

PLAN = Training(4, 4, 1e-2, ema=None)


@pytest.mark.parametrize("bad", [2, 3])
def test_a_gpu_skips_the_step_that_is_not_finite_and_names_it(bad: int) -> None:
    net, store = build_net(), MemoryStateStore()

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        value = denoising_error(net, x, rng)
        return value * float("nan") if int(rng.step[0]) == bad else value

    with pretended_accelerator():
        context = TrainingContext(device="cuda", state_store=store)
        message = rf"training step {bad}: the loss is nan; .* is the gradient of 0.weight"
        with pytest.raises(NotFinite, match=message):
            train_module(loss, net, DATA, context, PLAN)
        weights = [value.cpu() for value in net.parameters()]
    before = train_net(Training(bad, 4, 1e-2, ema=None), TrainingContext())
    assert all(map(torch.equal, weights, before.parameters()))
    assert not store.states


def test_nothing_is_saved_after_a_number_that_is_not_finite() -> None:
    """The state would be saved at every step: the last one is that before the bad step."""
    net, store = build_net(), MemoryStateStore()

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        value = denoising_error(net, x, rng)
        return value / 0 if int(rng.step[0]) == 1 else value

    with pretended_accelerator():
        context = TrainingContext(device="cuda", state_store=store, checkpoint_interval=0.0)
        with pytest.raises(NotFinite, match="training step 1: the loss is inf"):
            train_module(loss, net, DATA, context, PLAN)
    assert int(store.states["fit"]["step"]) == 1
