"""Saving beside the training: what is saved, how often, and what happens when it fails."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from accelerator import pretended_accelerator
from adbench.engine.runtime.context import Interrupted, NullStateStore, TrainingContext
from adbench.engine.training import state_writer
from adbench.engine.training.loop import Training
from adbench.engine.training.state_writer import StateWriter
from trainings import MemoryStateStore, equal_states, train_net

PLAN = Training(40, 4, 1e-2, ema=0.9, weight_decay=0.01, decay="cosine")


class SlowStore(MemoryStateStore):
    """Writes each state when `release` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.release, self.threads = threading.Event(), set[int]()

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        assert self.release.wait(30)
        self.threads.add(threading.get_ident())
        super().save(name, state)


class FullDisk(MemoryStateStore):
    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        raise OSError("no space left on device")


def test_the_training_goes_on_while_its_state_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """One state at a time: that of the step at which it was copied, and not of those since."""
    monkeypatch.setattr(state_writer, "COST_RATIO", 0.0)
    store, steps = SlowStore(), 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        if steps == 30:
            assert store.saves == 0
            store.release.set()
        return False

    context = TrainingContext(state_store=store, stop=stop, checkpoint_interval=1e-9)
    undisturbed = train_net(PLAN, TrainingContext())
    assert equal_states(train_net(PLAN, context), undisturbed)
    assert store.saves >= 1 and threading.get_ident() not in store.threads
    assert equal_states(train_net(PLAN, TrainingContext(state_store=store)), undisturbed)


def test_what_is_saved_is_the_state_of_its_step() -> None:
    """The first state is that before step 0, however late it is written."""
    store, first = SlowStore(), train_net(Training(0, 4, 1e-2), TrainingContext())
    weight = first.get_parameter("0.weight").detach().clone()
    with StateWriter(store, "fit", interval=1e-9) as writer:
        assert writer.is_due()
        writer.save(lambda: {"weight": weight})
        assert not writer.is_due()  # one at a time
        weight.zero_()
        store.release.set()
    assert torch.equal(store.states["fit"]["weight"], first.get_parameter("0.weight"))


def test_a_failure_of_the_thread_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_writer, "COST_RATIO", 0.0)
    for interval in (0.0, 1e-9):
        context = TrainingContext(state_store=FullDisk(), checkpoint_interval=interval)
        with pytest.raises(OSError, match="no space left"):
            train_net(PLAN, context)


def test_a_failure_of_the_last_save_is_not_lost() -> None:
    with (
        pytest.raises(OSError, match="no space left"),
        StateWriter(FullDisk(), "fit", interval=1e-9) as writer,
    ):
        writer.save(lambda: {"step": torch.tensor(1)})


def test_a_stopped_training_has_saved_when_it_returns() -> None:
    store, stops = MemoryStateStore(), iter([False] * 7 + [True])
    with pytest.raises(Interrupted):
        train_net(PLAN, TrainingContext(state_store=store, stop=lambda: next(stops)))
    assert int(store.states["fit"]["step"]) == 7


def test_a_save_is_50_times_further_away_than_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of our own: a copy of 2 s and a thread of 1 s, so 150 s; 20 s before any save."""
    clock, thread_clock = [100.0], [0.0]
    times = SimpleNamespace(monotonic=lambda: clock[0], thread_time=lambda: thread_clock[0])
    monkeypatch.setattr(state_writer, "time", times)

    class Store(MemoryStateStore):
        def save(self, name: str, state: Mapping[str, Tensor]) -> None:
            thread_clock[0] += 1.0

    def state() -> dict[str, Tensor]:
        clock[0] += 2.0
        return {}

    with StateWriter(Store(), "fit", interval=20.0) as writer:
        due = []
        for seconds in (19.0, 1.0):
            clock[0] += seconds
            due.append(writer.is_due())
        writer.save(state, wait=True)
        for seconds in (149.0, 1.0):
            clock[0] += seconds
            due.append(writer.is_due())
    assert due == [False, True, False, True]


def test_nothing_is_copied_where_nothing_is_saved() -> None:
    with StateWriter(NullStateStore(), "fit", interval=0.0) as writer:
        assert not writer.is_due()
        writer.save(lambda: pytest.fail("copied"))


def test_on_a_gpu_saving_makes_no_step_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copies join the queue of the device; the thread waits for them."""
    monkeypatch.setattr(state_writer, "COST_RATIO", 0.0)
    store = MemoryStateStore()
    with pretended_accelerator() as gpu:
        context = TrainingContext(
            device="cuda", state_store=store, checkpoint_interval=1e-9, event_interval=1e9
        )
        net = train_net(PLAN, context)
        weights = [value.cpu() for value in net.parameters()]
    assert store.saves > 1
    assert not [line for line in gpu.waits if "state_writer" in line or "optimizer_state" in line]
    assert all(map(torch.equal, weights, train_net(PLAN, TrainingContext()).parameters()))
    resumed = train_net(PLAN, TrainingContext(state_store=store))
    assert all(map(torch.equal, weights, resumed.parameters()))
