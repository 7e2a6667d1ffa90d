"""Masked pre-training: what is hidden, what it learns from, and what cDDPM keeps of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adbench.datasets.base import Spec
from adbench.engine.networks.context_encoder import ContextEncoder
from adbench.engine.networks.masked_autoencoder import MaskedAutoencoder
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.cddpm import CDDPM
from small import build_small, samples
from trainings import MemoryStateStore, equal_states

RNG = Rng(["a", "b", "c"])


def pretraining(shape: tuple[int, ...], cell: int = 8, **more: Any) -> MaskedAutoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = ContextEncoder(len(shape), 2, 4, layers=(1, 1, 1, 1), width=4)
        return MaskedAutoencoder(encoder, 2, cell=cell, width=8, **more)


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(3, 2, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(64,), (32, 24), (16, 24, 16)])
def test_what_is_hidden_is_no_input(shape: tuple[int, ...]) -> None:
    module, x = pretraining(shape), picture(*shape)
    visible = torch.ones(3, 1, *shape, dtype=torch.bool)
    visible[..., : shape[-1] // 2] = False
    other = torch.where(visible, x, 7.0)
    torch.testing.assert_close(module.reconstruct(x, visible), module.reconstruct(other, visible))
    assert module.reconstruct(x, visible).shape == x.shape


def test_the_loss_is_the_squared_error_where_cells_are_hidden() -> None:
    """65 % of 12 cells, rounded up, are 8; each sample has cells and a mean of its own."""
    module, x, seen = pretraining((32, 24)), picture(32, 24), []
    module.reconstruct = lambda x, visible: (seen.append(visible), x + ~visible + 5 * visible)[1]
    torch.testing.assert_close(module.loss(x, RNG), torch.ones(3))
    hidden = (~seen[0]).flatten(1).sum(1)
    assert hidden.tolist() == [8 * 64] * 3
    assert not torch.equal(seen[0][0], seen[0][1])
    torch.testing.assert_close(module.loss(x[1:2], RNG.rows(torch.tensor([1]))), torch.ones(1))
    assert torch.equal(seen[-1][0], seen[0][1])


def test_at_least_one_cell_stays_and_one_alone_is_refused() -> None:
    module, seen = pretraining((16, 8), hidden=0.99), []
    module.reconstruct = lambda x, visible: (seen.append(visible), x)[1]
    module.loss(picture(16, 8), RNG)
    assert seen[0].flatten(1).sum(1).tolist() == [64] * 3
    with pytest.raises(ValueError, match="choose a smaller cell"):
        pretraining((8, 8)).loss(picture(8, 8), RNG)
    with pytest.raises(ValueError, match="hidden lies between"):
        pretraining((8, 8), hidden=1.0)


def cddpm(steps: int, **more: Any) -> Any:
    return build_small(CDDPM, Spec(1, (16, 16)), pretrain_steps=steps,
        steps=2, batch=4, augment=False, **more)  # fmt: skip


def test_cddpm_begins_with_the_encoder_that_was_trained_so() -> None:
    """With the same weights before, and nothing of the decoder in the checkpoint."""
    data, plain, pretrained = samples((16, 16), 4, 1), cddpm(0), cddpm(3)
    assert equal_states(plain, pretrained) and len(pretrained.training_plans()) == 2
    assert plain.state_dict().keys() == pretrained.state_dict().keys()
    assert plain.training_plans() == [plain.plan]
    assert pretrained._masked[0].cell == 16 // 3
    plan = pretrained.pretraining_plan
    assert (plan.lr, plan.weight_decay, plan.momentum, plan.beta2) == (1e-4, 0.05, 0.9, 0.95)
    for built in (plain, pretrained):
        built.fit(data, [], TrainingContext())
    assert not equal_states(plain.encoder, pretrained.encoder)


def test_a_stopped_pretraining_goes_on_to_the_same_weights() -> None:
    data, whole, half, again = samples((16, 16), 4, 1), cddpm(3), cddpm(3), cddpm(3)
    whole.fit(data, [], TrainingContext())
    memory, stops = MemoryStateStore(), iter([False] * 2 + [True])
    with pytest.raises(Interrupted):
        half.fit(data, [], TrainingContext(state_store=memory, stop=lambda: next(stops)))
    again.fit(data, [], TrainingContext(state_store=memory))
    assert equal_states(again, whole)


def test_it_learns_to_reconstruct() -> None:
    data = samples((16, 16), 4, 1)
    x = torch.stack([s.x for s in data]) * 2 - 1
    built, rng = cddpm(60, pretrain_lr=3e-3), Rng([s.key for s in data], 7)
    module = built._masked[0]
    before = module.loss(x, rng).mean()
    built.fit(data, [], TrainingContext())
    assert module.eval().loss(x, rng).mean() < before / 2
