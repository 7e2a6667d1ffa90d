"""The training loop: it learns, resumes to the bit, and stops at the first number gone wrong."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from adbench.engine.rng import Rng
from adbench.engine.run import Interrupted, Run
from adbench.engine.train import NotFinite, Training, minimise


class Row:
    label = False

    def __init__(self, x: Tensor) -> None:
        self.x = x


DATA = [Row(Rng([f"d{i}"]).normal((3,))[0]) for i in range(20)]


class Memory:
    """Keeps in a dictionary; copies, as a file would."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Tensor]] = {}
        self.saves = 0

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        return self.states.get(name)

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        self.saves += 1
        self.states[name] = {key: value.clone() for key, value in state.items()}


def made() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3))


def trained(plan: Training, run: Run, net: nn.Module | None = None) -> nn.Module:
    net = net or made()

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        return (net(x + 0.1 * rng.fork("noise").normal((3,))) - x).square().mean(1)

    minimise(loss, net, DATA, run, plan)
    return net


PLAN = Training(40, 4, 1e-2, ema=0.9, decay="cosine")


def test_it_learns_and_leaves_the_module_ready() -> None:
    told: list[Mapping[str, float]] = []
    run = Run(tell=lambda event, facts: told.append(facts))
    net = trained(Training(400, 8, 1e-2, ema=None), run)
    x = torch.stack([row.x for row in DATA])
    assert not net.training
    assert (net(x) - x).square().mean() < 0.1 * x.square().mean()
    assert told[-1]["step"] == told[-1]["of"] == 400


def test_the_same_run_gives_the_same_weights_and_another_seed_does_not() -> None:
    a, b, c = (trained(PLAN, Run(seed=s)).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize("stop_at", [[0], [1], [17], [5, 6, 33], [39]])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_stopped_run_goes_on_to_the_same_weights(stop_at: list[int], ema: float | None) -> None:
    plan = Training(40, 4, 1e-2, ema=ema, decay="cosine", weight_decay=0.01)
    undisturbed = trained(plan, Run()).state_dict()
    memory = Memory()
    for at in stop_at:
        done = int(memory.states["fit"]["step"]) if memory.states else 0
        asked = iter([False] * (at - done) + [True])
        with pytest.raises(Interrupted, match=f"step {at} of 40"):
            trained(plan, Run(keep=memory, stop=lambda asked=asked: next(asked), every=1e9))
    resumed = trained(plan, Run(keep=memory)).state_dict()
    assert all(torch.equal(undisturbed[k], resumed[k]) for k in undisturbed)


def test_it_keeps_now_and_then() -> None:
    memory = Memory()
    trained(PLAN, Run(keep=memory, every=0.0))
    assert memory.saves == 40


def test_the_average_after_one_step_is_the_papers() -> None:
    """methods-1, T1.8: .9999 old + .0001 new."""
    before = {k: v.clone() for k, v in made().state_dict().items()}
    new = trained(Training(1, 4, 1e-2, ema=None), Run()).state_dict()
    average = trained(Training(1, 4, 1e-2, ema=0.9999), Run()).state_dict()
    for k in before:
        torch.testing.assert_close(
            average[k], 0.9999 * before[k] + 0.0001 * new[k], rtol=0, atol=1e-7
        )
    warm = trained(Training(1, 4, 1e-2, ema=0.9999, ema_warm=True), Run()).state_dict()
    for k in before:
        torch.testing.assert_close(warm[k], 0.1 * before[k] + 0.9 * new[k], rtol=0, atol=1e-7)


def test_the_gradient_is_clipped() -> None:
    net = made()
    minimise(
        lambda x, label, rng: 1e6 * net(x).square().mean(1),
        net,
        DATA,
        Run(),
        Training(1, 4, 1e-2, clip=0.5),
    )
    norm = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_with_step_and_name() -> None:
    net, steps = made(), []

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        steps.append(1)
        return net(x).square().mean(1) * (float("nan") if len(steps) == 4 else 1.0)

    with pytest.raises(NotFinite, match=r"step 3.*gradient of 0\.weight"):
        minimise(loss, net, DATA, Run(), PLAN)


def test_a_sample_that_is_not_finite_is_named() -> None:
    with pytest.raises(NotFinite, match=r"step 0.*input x"):
        net = made()
        bad = [Row(torch.full((3,), float("inf")))]
        minimise(lambda x, label, rng: net(x).mean(1), net, bad, Run(), PLAN)


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(ValueError, match="training split is empty"):
        minimise(lambda x, label, rng: x.mean(1), made(), [], Run(), PLAN)


def test_training_draws_from_the_run_alone() -> None:
    a = trained(PLAN, Run()).state_dict()
    net = made()
    torch.manual_seed(99)
    b = trained(PLAN, Run(), net).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
