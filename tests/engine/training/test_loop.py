"""The training loop: it learns, resumes to the bit, and stops at the first number gone wrong."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.benchmark.store.artifact_store import PartialState
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import build_schedule
from adbench.engine.runtime import compilation
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.training import state_writer
from adbench.engine.training.loop import Training, train_module
from adbench.engine.training.loss import NotFinite
from trainings import (
    DATA,
    MemoryStateStore,
    TrainingSample,
    assert_close_states,
    build_net,
    denoising_error,
    equal_states,
    reference_training,
    train_net,
)

PLAN = Training(40, 4, 1e-2, ema=0.9, decay="cosine")


def test_it_learns_and_leaves_the_module_ready() -> None:
    events: list[Mapping[str, float]] = []
    run = TrainingContext(on_event=lambda event, facts: events.append(facts))
    net = train_net(Training(200, 8, 2e-2, ema=None), run)
    x = torch.stack([row.x for row in DATA])
    assert not net.training
    assert (net(x) - x).square().mean() < 0.1 * x.square().mean()
    assert events[-1]["step"] == events[-1]["of"] == 200


def test_the_same_run_gives_the_same_weights_and_another_seed_does_not() -> None:
    a, b, c = (train_net(PLAN, TrainingContext(seed=s)).state_dict() for s in (0, 0, 1))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)


@pytest.mark.parametrize("stop_at", [[0], [1], [17], [5, 6, 33], [39]])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_stopped_run_goes_on_to_the_same_weights(stop_at: list[int], ema: float | None) -> None:
    plan = Training(40, 4, 1e-2, ema=ema, decay="cosine", weight_decay=0.01)
    undisturbed = train_net(plan, TrainingContext()).state_dict()
    memory = MemoryStateStore()
    for at in stop_at:
        done = int(memory.states["fit"]["step"]) if memory.states else 0
        stops = iter([False] * (at - done) + [True])
        with pytest.raises(Interrupted, match=f"step {at} of 40"):
            train_net(
                plan,
                TrainingContext(
                    state_store=memory,
                    stop=lambda stops=stops: next(stops),
                    checkpoint_interval=1e9,
                ),
            )
    resumed = train_net(plan, TrainingContext(state_store=memory)).state_dict()
    assert all(torch.equal(undisturbed[k], resumed[k]) for k in undisturbed)


def test_it_saves_now_and_then() -> None:
    memory = MemoryStateStore()
    train_net(PLAN, TrainingContext(state_store=memory, checkpoint_interval=0.0))
    assert memory.saves == 40


def test_the_average_after_one_step_is_the_papers() -> None:
    """.9999 old + .0001 new."""
    before = {k: v.clone() for k, v in build_net().state_dict().items()}
    new = train_net(Training(1, 4, 1e-2, ema=None), TrainingContext()).state_dict()
    average = train_net(Training(1, 4, 1e-2, ema=0.9999), TrainingContext()).state_dict()
    for k in before:
        torch.testing.assert_close(
            average[k], 0.9999 * before[k] + 0.0001 * new[k], rtol=0, atol=1e-7
        )
    warm = train_net(
        Training(1, 4, 1e-2, ema=0.9999, ema_warm=True), TrainingContext()
    ).state_dict()
    for k in before:
        torch.testing.assert_close(warm[k], 0.1 * before[k] + 0.9 * new[k], rtol=0, atol=1e-7)


def test_the_gradient_is_clipped() -> None:
    net = build_net()
    train_module(
        lambda x, label, rng: 1e6 * net(x).square().mean(1),
        net,
        DATA,
        TrainingContext(),
        Training(1, 4, 1e-2, clip=0.5),
    )
    norm = torch.stack([p.grad.norm() for p in net.parameters() if p.grad is not None]).norm()
    assert norm.item() == pytest.approx(0.5, rel=1e-4)


def test_a_loss_that_is_not_finite_stops_with_step_and_name() -> None:
    net, steps = build_net(), []

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        steps.append(1)
        return net(x).square().mean(1) * (float("nan") if len(steps) == 4 else 1.0)

    with pytest.raises(NotFinite, match=r"step 3.*gradient of 0\.weight"):
        train_module(loss, net, DATA, TrainingContext(), PLAN)


def test_a_sample_that_is_not_finite_is_named() -> None:
    with pytest.raises(NotFinite, match=r"step 0.*input x"):
        net = build_net()
        bad = [TrainingSample(torch.full((3,), float("inf")))]
        train_module(lambda x, label, rng: net(x).mean(1), net, bad, TrainingContext(), PLAN)


def test_nothing_to_train_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="training split is empty"):
        train_module(lambda x, label, rng: x.mean(1), build_net(), [], TrainingContext(), PLAN)


def test_training_draws_from_the_run_alone() -> None:
    a = train_net(PLAN, TrainingContext()).state_dict()
    net = build_net()
    torch.manual_seed(99)
    b = train_net(PLAN, TrainingContext(), net).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("batch", [1, 5, 16])
def test_it_is_the_plain_loop_to_the_bit(seed: int, batch: int) -> None:
    plan = Training(30, batch, 1e-2, weight_decay=0.01, clip=0.3, ema=0.9, decay="cosine")
    assert equal_states(
        train_net(plan, TrainingContext(seed=seed)), reference_training(plan, seed)[0]
    )


@dataclass(frozen=True)
class Turns(Training):
    """Three steps of every batch; the third has moments of its own."""

    def moment_set(self, k: int) -> int:
        return int(k % 3 == 2)

    def batch_number(self, k: int) -> int:
        return k // 3


class Counted(list[TrainingSample]):
    """Knows how often it is read."""

    read = 0

    def __getitem__(self, index: Any) -> Any:
        self.read += 1
        return super().__getitem__(index)


def turned(run: TrainingContext, steps: int = 14) -> tuple[nn.Module, Counted]:
    net, data = build_net(), Counted(DATA)
    plan = Turns(steps, 4, 1e-2, ema=None, clip=None, momentum=0.5, beta2=0.9, moment_sets=2)

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        return denoising_error(net, x, rng) if int(rng.step[0]) % 3 < 2 else net(x).square().mean(1)

    train_module(loss, net, data, run, plan)
    return net, data


def test_losses_may_take_turns_each_with_moments_of_its_own() -> None:
    """The loop written out, with two of torch's optimisers; a batch is read once."""
    net, streams = build_net(), Rng([f"fit/{i}" for i in range(4)])
    first, second = (
        torch.optim.AdamW(net.parameters(), 1e-2, (0.5, 0.9), weight_decay=0) for _ in range(2)
    )
    for k in range(14):
        rows = streams.at(k // 3).fork("pick").integers(len(DATA)).tolist()
        x = torch.stack([DATA[i].x for i in rows])
        net.zero_grad()
        if k % 3 < 2:
            denoising_error(net, x, streams.at(k)).mean().backward()
            first.step()
        else:
            net(x).square().mean().backward()
            second.step()
    theirs, data = turned(TrainingContext())
    assert equal_states(theirs, net) and data.read == 5 * 4


@pytest.mark.parametrize("stop_at", [1, 4, 6, 8])
def test_losses_in_turns_go_on_to_the_same_weights(stop_at: int) -> None:
    memory, stops = MemoryStateStore(), iter([False] * stop_at + [True])
    with pytest.raises(Interrupted):
        turned(
            TrainingContext(state_store=memory, stop=lambda: next(stops), checkpoint_interval=1e9)
        )
    assert equal_states(
        turned(TrainingContext(state_store=memory))[0], turned(TrainingContext())[0]
    )


def test_the_rate_warms_up_and_decays() -> None:
    """Equal parts up to the full rate; the cosine goes on beneath. Closed forms."""
    plain_rate = Training(10, 1, 2.0, warmup=4)
    assert [plain_rate.learning_rate(k) for k in range(6)] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    cosine = Training(10, 1, 2.0, decay="cosine", warmup=4)
    assert cosine.learning_rate(0) == 0.5
    assert cosine.learning_rate(5) == pytest.approx(1.0)
    events: list[Mapping[str, float]] = []
    train_net(
        Training(3, 4, 1.0, warmup=12),
        TrainingContext(on_event=lambda event, facts: events.append(facts)),
    )
    assert events[-1]["lr"] == pytest.approx(3 / 12)


def test_its_events_can_be_drawn() -> None:
    events: list[Mapping[str, float]] = []
    plan = Training(30, 4, 1e-2, ema=0.9, decay="cosine")
    train_net(plan, TrainingContext(on_event=lambda event, facts: events.append(facts)))
    assert events[-1]["loss"] == reference_training(plan, 0)[1][-1]
    assert events[-1]["lr"] == pytest.approx(plan.learning_rate(29))
    assert events[-1]["norm"] > 0 and events[-1]["rate"] > 0


class Small(nn.Module):
    """An image network in two layers, called as a UNet is."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.leave(torch.nn.functional.silu(self.enter(x)) + t.view(-1, 1, 1, 1) / 1000)


def denoiser(run: TrainingContext, steps: int = 40) -> tuple[Denoiser, list[float]]:
    torch.manual_seed(0)
    images = [TrainingSample(0.2 * Rng([f"i{i}"]).normal((1, 8, 8))[0]) for i in range(6)]
    result, losses = Denoiser(Small(), build_schedule("linear", 1000)), list[float]()

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        each = result.loss(x, rng)
        losses.append(each.mean().item())
        return each

    train_module(loss, result, images, run, Training(steps, 8, 1e-2, ema=None))
    return result, losses


def test_bfloat16_trains_convolutions_in_float32_on_a_cpu() -> None:
    """torch's gradients are wrong there; tests/methods/test_accelerator.py trains in bfloat16."""
    (fine, exact), (rough, losses) = (
        denoiser(TrainingContext()),
        denoiser(TrainingContext(dtype=torch.bfloat16)),
    )
    assert all(value.dtype == torch.float32 for value in rough.net.state_dict().values())
    assert equal_states(fine.net, rough.net) and losses == exact
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_a_compiled_network_keeps_its_names_and_learns_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "eager")  # traced as ever; needs no C compiler
    run = TrainingContext(compile="on")
    net, losses = denoiser(run, steps=5)
    run.place(net)
    assert compilation.is_compiled(net.net)
    plain_net, plain_losses = denoiser(TrainingContext(compile="auto"), steps=5)
    assert not compilation.is_compiled(plain_net.net)  # on a CPU
    assert list(net.state_dict()) == list(plain_net.state_dict())
    assert losses == pytest.approx(plain_losses, rel=1e-5)
    assert_close_states(net.net, plain_net.net)


class Codebook(nn.Module):
    """Learns without a gradient: a running mean in a buffer, and weights in a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        mean = self.get_buffer("mean")
        with torch.no_grad():
            mean.lerp_(x.mean(0), 0.1)
            self.frozen += mean
        return (self.gain * x - mean).square().mean(1)


def test_what_learns_without_a_gradient_is_saved_too() -> None:
    memory, whole, net = MemoryStateStore(), Codebook(), Codebook()
    train_module(lambda x, label, rng: whole(x), whole, DATA, TrainingContext(), PLAN)
    stops = iter([False] * 20 + [True])
    run = TrainingContext(state_store=memory, stop=lambda: next(stops))
    with pytest.raises(Interrupted):
        train_module(lambda x, label, rng: net(x), net, DATA, run, PLAN)
    again = Codebook()
    train_module(
        lambda x, label, rng: again(x), again, DATA, TrainingContext(state_store=memory), PLAN
    )
    assert equal_states(whole, again)


def endure(folder: Path, steps: Any, result: Any) -> None:
    """A training in a process of its own that reports every step and saves as often as its thread
    writes."""

    def stop() -> bool:
        steps.send(None)
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(state_writer, "COST_RATIO", 0.0)
        net = train_net(
            KILLED,
            TrainingContext(state_store=PartialState(folder), stop=stop, checkpoint_interval=0.002),
        )
    result.send([value.tolist() for value in net.state_dict().values()])


KILLED = Training(120, 4, 1e-2, weight_decay=0.01, ema=0.99, decay="cosine")


@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_killed_anywhere_ends_with_the_same_weights(tmp_path: Path, seed: int) -> None:
    """SIGKILL, five times, at steps drawn beforehand and so at any moment of step or keep."""
    draw, fork = random.Random(seed), get_context("fork")
    for _ in range(5):
        (reader, steps), (_, result) = fork.Pipe(False), fork.Pipe(False)
        child = fork.Process(target=endure, args=(tmp_path, steps, result))
        child.start()
        for _ in range(draw.randrange(5, 40)):
            reader.recv()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    assert 0 < int((PartialState(tmp_path).load("fit") or {})["step"]) < 120
    resumed, events = build_net(), list[Mapping[str, float]]()
    again = TrainingContext(
        state_store=PartialState(tmp_path), on_event=lambda event, facts: events.append(facts)
    )
    assert equal_states(train_net(KILLED, again, resumed), train_net(KILLED, TrainingContext()))
