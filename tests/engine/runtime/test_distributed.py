"""Several processes that share every batch train as one process does with the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.distributed import SINGLE_PROCESS, Team, TeamError, join_team
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module
from adbench.engine.training.loss import NotFinite
from teams import run_team
from trainings import (
    DATA,
    MemoryStateStore,
    build_net,
    denoising_error,
    reference_training,
    train_net,
)

PLAN = Training(30, 7, 1e-2, weight_decay=0.01, ema=0.9, decay="cosine")


def weights(net: nn.Module) -> dict[str, list[Any]]:
    return {key: value.tolist() for key, value in net.state_dict().items()}


def curve(run: TrainingContext) -> tuple[dict[str, list[Any]], list[float]]:
    """The weights, and the loss of every step that was reported."""
    losses = list[float]()
    run = replace(run, on_event=lambda event, facts: losses.append(facts["loss"]), event_interval=0)
    return weights(train_net(PLAN, run)), losses


@pytest.mark.parametrize("size", [2, 3])
def test_a_team_gives_the_losses_and_weights_of_one_process(size: int) -> None:
    """Seven rows a step, so that the shares are uneven."""
    net, losses = reference_training(PLAN, 0)
    (first, events), *others = run_team(curve, size)
    assert len(events) == PLAN.steps
    assert events == pytest.approx(losses, rel=1e-6, abs=1e-6)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(torch.tensor(first[key]), value, rtol=1e-6, atol=1e-6)
    assert others == [(first, [])] * (size - 1)  # to the bit, and silently


def test_a_team_stops_together_and_goes_on_to_the_same_weights() -> None:
    """Only the second process is asked to stop; the first saves."""

    def work(run: TrainingContext) -> list[Any]:
        stops = iter([False] * 7 + [bool(run.team.rank)] + [False] * 90)
        memory = MemoryStateStore()
        with pytest.raises(Interrupted) as stopped:
            train_net(PLAN, replace(run, state_store=memory, stop=lambda: next(stops)))
        resumed = train_net(PLAN, replace(run, state_store=memory))
        return [str(stopped.value), list(memory.states), weights(resumed), curve(run)[0]]

    first, second = run_team(work)
    assert first[0] == second[0] == "stopped at training step 7 of 30; everything is saved"
    assert (first[1], second[1]) == (["fit"], [])
    assert first[2] == second[2] == first[3]


def test_what_fails_in_one_process_ends_all() -> None:
    def failing(run: TrainingContext, wrong: Callable[[Tensor], Tensor]) -> str:
        net, steps = build_net(), list[int]()

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            steps.append(1)
            value = denoising_error(net, x, rng)
            return wrong(value) if run.team.rank and len(steps) == 4 else value

        with pytest.raises((ZeroDivisionError, TeamError, NotFinite)) as caught:
            train_module(loss, net, DATA, run, PLAN)
        return f"{type(caught.value).__name__}: {caught.value}"

    def divide(value: Tensor) -> Tensor:
        raise ZeroDivisionError("by zero")

    def work(run: TrainingContext) -> tuple[str, str]:
        return failing(run, divide), failing(run, lambda value: value * float("nan"))

    (message, bad), (own_error, worse) = run_team(work)
    assert own_error == "ZeroDivisionError: by zero"
    assert message.startswith("TeamError: another process of this training failed")
    assert bad.startswith("NotFinite: training step 3") and worse == bad


def test_a_weight_that_no_process_uses_is_left_alone() -> None:
    """Decay would move it, had it a gradient of 0; one that some process uses is trained."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.some = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
            self.register_buffer("count", torch.zeros(1))

    def work(run: TrainingContext) -> dict[str, list[Any]]:
        net = Two()

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            net.get_buffer("count").add_(1 + run.team.rank)
            used = net.some if run.team.rank else net.some.detach()
            return used * x.square().mean(1) + 0 * net.some.detach()

        def always(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            value = loss(x, label, rng)
            return value if value.requires_grad else value + torch.zeros(1, requires_grad=True)

        plan = Training(5, 4, 1e-2, weight_decay=0.5, ema=None)
        train_module(always, net, DATA, run, plan)
        return weights(net)

    first, second = run_team(work)
    assert first == second
    assert first["unused"] == [1.0] and first["some"] != [1.0]
    assert first["count"] == [5.0]  # buffers are the first process's


@given(st.integers(1, 9), st.integers(0, 40))
def test_the_rows_of_a_team_are_the_batch(size: int, more: int) -> None:
    count, rows = size + more, list[int]()
    for rank in range(size):
        team = Team()
        team.rank, team.size = rank, size
        mine = team.local_rows(count).tolist()
        assert mine == sorted(mine) and abs(len(mine) - count / size) < 1
        rows += mine
    assert sorted(rows) == list(range(count))


def test_a_batch_too_small_to_share_is_refused() -> None:
    def work(run: TrainingContext) -> str:
        with pytest.raises(TeamError) as caught:
            train_net(replace(PLAN, batch=1), run)
        return str(caught.value)

    for message in run_team(work):
        assert message.startswith("a batch of 1 cannot be shared by 2 processes")


def test_what_the_first_process_broadcasts_reaches_all() -> None:
    def work(run: TrainingContext) -> list[bool]:
        mine = run.team.rank == 1
        return [
            run.team.broadcast_flag(not mine),
            run.team.broadcast_flag(mine),
            run.team.any(mine),
        ]

    assert run_team(work) == [[True, False, True]] * 2


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join_team("cpu") is SINGLE_PROCESS
    assert (
        SINGLE_PROCESS.any(True)
        and not SINGLE_PROCESS.any(False)
        and SINGLE_PROCESS.broadcast_flag(True)
    )
    assert SINGLE_PROCESS.local_rows(3).tolist() == [0, 1, 2]
