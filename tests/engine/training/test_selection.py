"""Which weights a training ends with: the last or the best on calibration samples, to the bit the
same when it was interrupted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from accelerator import pretended_accelerator
from adbench.benchmark.store.partial_state import PartialState
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.distributed import TeamError
from adbench.engine.runtime.learning_curve import LearningCurve
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module
from adbench.engine.training.loss import NotFinite
from teams import run_team
from trainings import (
    DATA,
    MemoryStateStore,
    TrainingSample,
    build_net,
    denoising_error,
    equal_states,
    train_net,
)

CALIBRATION = [TrainingSample(Rng([f"c{i}"]).normal((3,))[0]) for i in range(5)]
PLAN = Training(40, 4, 1e-2, ema=None, select="best", select_every=3)


def train_with_curves(
    plan: Training,
    context: TrainingContext,
    validation: Sequence[TrainingSample] | None = CALIBRATION,
    collapse_at: float = math.inf,
) -> tuple[nn.Module, list[LearningCurve]]:
    """A training whose target changes its sign from a step on, as if it had collapsed."""
    net, curves = build_net(), list[LearningCurve]()

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        error = denoising_error(net, x, rng)
        collapsed = net.training & (rng.step >= collapse_at)
        return torch.where(collapsed, -3 * error, error)

    context = replace(context, on_curve=curves.append)
    train_module(loss, net, DATA, context, plan, validation=validation)
    return net, curves


def train(
    plan: Training,
    context: TrainingContext,
    validation: Sequence[TrainingSample] | None = CALIBRATION,
    collapse_at: float = math.inf,
) -> tuple[nn.Module, LearningCurve]:
    net, (curve,) = train_with_curves(plan, context, validation, collapse_at)
    return net, curve


def calibration_loss(net: nn.Module, name: str = "fit") -> float:
    """The measurement written out, all rows at once."""
    rows = [CALIBRATION[i * len(CALIBRATION) // 64].x for i in range(64)]
    rng = Rng([f"{name}/calibration/{i}" for i in range(64)])
    with torch.no_grad():
        return denoising_error(net, torch.stack(rows), rng).mean().item()


@pytest.mark.parametrize("ema", [None, 0.7])
def test_a_late_collapse_is_left_behind(ema: float | None) -> None:
    plan = Training(60, 8, 2e-2, ema=ema, select="best", select_every=5)
    best, curve = train(plan, TrainingContext(), collapse_at=40)
    last, other = train(replace(plan, select="last"), TrainingContext(), collapse_at=40)
    assert 20 <= curve.selected_step <= 45 and other.selected_step == 60
    assert calibration_loss(best) < 0.5 * calibration_loss(last)
    by_step = {point.step: point.calibration_loss for point in curve.points}
    assert by_step[curve.selected_step] == min(v for v in by_step.values() if v is not None)
    assert calibration_loss(best) == pytest.approx(by_step[curve.selected_step], rel=1e-6)
    assert not best.training


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_best_are_the_weights_of_a_training_that_ends_there(ema: float | None) -> None:
    """Measuring changes nothing, and the selected weights are to the bit those of that step."""
    plan = replace(PLAN, ema=ema)
    best, curve = train(plan, TrainingContext(), collapse_at=25)
    assert 0 < curve.selected_step < 40
    shorter = replace(plan, steps=curve.selected_step, select="last")
    assert equal_states(best, train(shorter, TrainingContext(), collapse_at=25)[0])


def test_the_last_is_selected_where_it_is_the_best() -> None:
    plan = Training(30, 8, 1e-3, ema=None, select="best")
    best, curve = train(plan, TrainingContext())
    assert curve.selected_step == 30
    assert equal_states(best, train_net(replace(plan, select="last"), TrainingContext()))


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 39), max_size=4),
    st.sampled_from([None, 0.9]),
    st.sampled_from([None, 1, 7, 40, 99]),
)
def test_an_interrupted_training_selects_the_same(
    stops: list[int], ema: float | None, every: int | None
) -> None:
    plan = Training(40, 4, 1e-2, ema=ema, select="best", select_every=every)
    whole, curve = train(plan, TrainingContext(), collapse_at=20)
    memory, done = MemoryStateStore(), 0
    for stop in sorted(stops):
        asked = iter([False] * (stop - done) + [True])
        context = TrainingContext(
            state_store=memory, stop=lambda asked=asked: next(asked), checkpoint_interval=1e9
        )
        with pytest.raises(Interrupted):
            train(plan, context, collapse_at=20)
        done = stop
    resumed, again = train(plan, TrainingContext(state_store=memory), collapse_at=20)
    assert equal_states(whole, resumed)
    assert again == curve and math.isfinite(curve.points[-1].loss)


def test_a_training_resumes_from_files(tmp_path: Path) -> None:
    whole, curve = train(PLAN, TrainingContext(), collapse_at=20)
    asked, store = iter([False] * 31 + [True]), PartialState(tmp_path)
    with pytest.raises(Interrupted):
        train(PLAN, TrainingContext(state_store=store, stop=lambda: next(asked)), collapse_at=20)
    resumed, again = train(PLAN, TrainingContext(state_store=store), collapse_at=20)
    assert equal_states(whole, resumed) and again == curve


def test_the_measurement_is_fixed() -> None:
    """It depends neither on the batch of prediction nor on the rows at a time of training."""
    curve = train(PLAN, TrainingContext())[1]
    assert train(PLAN, TrainingContext(batch=1))[1] == curve
    losses = [point.calibration_loss for point in curve.points]
    small = [point.calibration_loss for point in train(PLAN, TrainingContext(micro=1))[1].points]
    assert small == pytest.approx(losses, rel=1e-4)
    assert [point.step for point in curve.points] == [*range(3, 40, 3), 40]


def test_a_curve_is_recorded_of_every_training() -> None:
    """Twenty points, the mean of the losses between them, and no measurement for `last`."""
    losses: list[float] = []
    context = TrainingContext(
        on_event=lambda event, facts: losses.append(facts["loss"]), event_interval=0
    )
    plan = Training(45, 4, 1e-2, ema=None)
    net, curve = train(plan, context)
    assert [point.step for point in curve.points] == [*range(2, 45, 2), 45]
    assert curve.points[0].loss == pytest.approx(sum(losses[:2]) / 2)
    assert curve.points[-1].loss == pytest.approx(losses[-1])
    assert all(point.calibration_loss is None for point in curve.points)
    assert curve.plan is plan and curve.selected_step == 45
    assert equal_states(net, train_net(plan, TrainingContext()))
    assert Training(20_000, 1, 1.0).curve_interval == 1000
    assert Training(3, 1, 1.0).curve_interval == 1


class Counting(nn.Module):
    """Counts in a buffer how often it is called, whatever its mode."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(3))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return (self.gain * x).square().mean(1)


def test_measuring_leaves_buffers_alone() -> None:
    net = Counting()
    train_module(
        lambda x, label, rng: net(x), net, DATA, TrainingContext(), PLAN, validation=CALIBRATION
    )
    assert net.get_buffer("calls") == 40


def test_without_calibration_samples_nothing_is_selected_silently() -> None:
    with pytest.raises(ValueError, match="'fit' of this method measures no calibration loss"):
        train(PLAN, TrainingContext(), validation=None)
    with pytest.warns(UserWarning, match="no calibration samples"):
        net, curve = train(PLAN, TrainingContext(), validation=[])
    assert curve.selected_step == 40 and curve.points[-1].calibration_loss is None
    assert equal_states(net, train_net(replace(PLAN, select="last"), TrainingContext()))


def test_a_calibration_loss_that_is_not_finite_stops_the_training() -> None:
    bad = [TrainingSample(torch.full((3,), float("nan")))]
    with pytest.raises(NotFinite, match="after training step 3 the calibration loss is nan"):
        train(PLAN, TrainingContext(), validation=bad)


def test_a_measurement_that_does_not_fit_is_made_in_smaller_parts() -> None:
    net, shapes = build_net(), set[int]()

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        shapes.add(len(x))
        if len(x) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return denoising_error(net, x, rng)

    train_module(loss, net, DATA, TrainingContext(), PLAN, validation=CALIBRATION)
    assert shapes == {4, 8}


def test_a_team_selects_what_one_process_does() -> None:
    alone, curve = train(PLAN, TrainingContext(), collapse_at=20)

    def work(context: TrainingContext) -> tuple[list[list[float]], list[int]]:
        net, curves = train_with_curves(PLAN, context, collapse_at=20)
        weights = [value.flatten().tolist() for value in net.state_dict().values()]
        return weights, [curve.selected_step for curve in curves]

    (weights, steps), (others, none) = run_team(work)
    assert weights == others and steps == [curve.selected_step] and none == []
    for values, parameter in zip(weights, alone.state_dict().values(), strict=True):
        torch.testing.assert_close(torch.tensor(values), parameter.flatten(), rtol=1e-4, atol=1e-5)


def test_a_measurement_that_fails_ends_the_whole_team() -> None:
    def work(context: TrainingContext) -> str:
        net = build_net()

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            if not net.training:
                raise ZeroDivisionError("by zero")
            return denoising_error(net, x, rng)

        with pytest.raises((ZeroDivisionError, TeamError)) as caught:
            train_module(loss, net, DATA, context, PLAN, validation=CALIBRATION)
        return type(caught.value).__name__

    assert run_team(work) == ["ZeroDivisionError", "TeamError"]


def test_a_gpu_copies_and_restores_the_best_weights_without_a_wait() -> None:
    """The host waits for the calibration loss alone, which says whether they are the best."""

    def train_on(device: str) -> list[Tensor]:
        net, curves = build_net(), list[LearningCurve]()
        context = TrainingContext(device=device, event_interval=1e9, on_curve=curves.append)
        train_module(
            lambda x, label, rng: denoising_error(net, x, rng),
            net, DATA, context, PLAN, validation=CALIBRATION,
        )  # fmt: skip
        assert len(curves[0].points) > 2
        return [value.cpu() for value in net.parameters()]

    with pretended_accelerator() as gpu:
        weights = train_on("cuda")
    assert not [line for line in gpu.waits if "optimizer_state" in line], gpu.waits
    assert all(map(torch.equal, weights, train_on("cpu")))
