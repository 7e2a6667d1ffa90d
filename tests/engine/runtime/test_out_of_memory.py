"""Memory: a batch in pieces is the same batch, what does not fit is halved, data stays on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.datasets.preparation.prepared_file import prepare_once, read_part
from adbench.datasets.preparation.writer import SampleWriter
from adbench.engine.runtime.context import BatchedModule, Interrupted, TrainingContext
from adbench.engine.runtime.out_of_memory import OutOfMemory, retry_out_of_memory
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, TrainingOutcome, train_module
from trainings import (
    DATA,
    MemoryStateStore,
    assert_close_states,
    build_net,
    denoising_error,
    equal_states,
    reference_training,
    train_net,
)

PLAN = Training(30, 7, 1e-2, ema=0.9, decay="cosine")


@pytest.mark.parametrize("micro", [1, 2, 3, 4, 7])
def test_the_gradient_of_a_batch_may_be_found_in_pieces(micro: int) -> None:
    assert_close_states(
        train_net(PLAN, TrainingContext(micro=micro)), reference_training(PLAN, 0)[0]
    )


class Tight:
    """A device with room for so many rows: the loss of more of them runs out of memory, in the
    backward pass as happens in practice."""

    def __init__(self, net: nn.Module, room: int) -> None:
        self.net, self.room, self.seen = net, room, list[int]()

    def __call__(self, x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        self.seen.append(len(x))
        value = denoising_error(self.net, x, rng)
        if len(x) > self.room:
            value.register_hook(self.refuse)
        return value

    def refuse(self, grad: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")


def test_out_of_memory_halves_the_rows_and_changes_nothing_else() -> None:
    events: list[tuple[str, Mapping[str, float]]] = []
    net = build_net()
    loss = Tight(net, room=2)
    done = train_module(
        loss, net, DATA, TrainingContext(on_event=lambda *name: events.append(name)), PLAN
    )
    assert done == TrainingOutcome(steps=30, micro=1)
    assert [facts for event, facts in events if event == "oom"] == [
        {"at": 0, "micro": 3},
        {"at": 0, "micro": 1},
    ]
    assert loss.seen[:3] == [7, 3, 1]
    assert_close_states(net, reference_training(PLAN, 0)[0])


def test_a_resumed_run_remembers_how_many_rows_fit() -> None:
    memory, plan = MemoryStateStore(), Training(30, 8, 1e-2, ema=0.9)
    whole = build_net()
    train_module(Tight(whole, 4), whole, DATA, TrainingContext(), plan)
    stops = iter([False] * 11 + [True])
    net = build_net()
    with pytest.raises(Interrupted):
        train_module(
            Tight(net, 4),
            net,
            DATA,
            TrainingContext(state_store=memory, stop=lambda: next(stops)),
            plan,
        )
    again = build_net()
    loss = Tight(again, 4)
    events: list[object] = []
    run = TrainingContext(state_store=memory, on_event=lambda *event: events.append(event))
    assert train_module(loss, again, DATA, run, plan) == TrainingOutcome(19, 4)
    assert ("oom", {"at": 11, "micro": 4}) in events
    assert max(loss.seen) == 4
    assert equal_states(whole, again)


def test_memory_for_not_even_one_row_is_an_error() -> None:
    net = build_net()
    with pytest.raises(OutOfMemory, match=r"training step 0: out of memory on cpu with one row"):
        train_module(Tight(net, 0), net, DATA, TrainingContext(), PLAN)


def test_a_stage_finds_the_batch_that_fits() -> None:
    class Net(BatchedModule):
        def forward(self, x: Tensor) -> Tensor:
            if self.batch > 3:
                raise torch.OutOfMemoryError
            return x + self.batch

    events: list[object] = []
    run = TrainingContext(batch=13, on_event=lambda *event: events.append(event))
    net = run.place(nn.Sequential(Net()))
    value = retry_out_of_memory(lambda: net(torch.zeros(1)), net, run, "predicting", run.on_event)
    assert value.item() == 3
    assert events == [("oom", {"batch": 6}), ("oom", {"batch": 3})]

    def never() -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(OutOfMemory, match="predicting test: out of memory"):
        retry_out_of_memory(never, net, run, "predicting test", run.on_event)


SIDE, COUNT = 64, 2000


def write_many(writer: SampleWriter) -> None:
    for i in range(COUNT):
        x = torch.full((1, SIDE, SIDE), i / COUNT)
        writer.add("train", Sample(x, f"s{i}", f"g{i}", False))


@pytest.mark.parametrize("workers", [0, 2])
def test_training_on_a_prepared_set_holds_little_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """32 MB of samples, each read more than once on average; kept or cached they would show."""
    monkeypatch.setenv("ADBENCH_CACHE", str(tmp_path))
    spec = Spec(channels=1, shape=(SIDE, SIDE))
    data = read_part(prepare_once("many", {"count": COUNT}, write_many, spec=spec), "train")
    net, process, indices = nn.Linear(1, 1), psutil.Process(), set[float]()
    used: list[int] = []

    def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
        indices.update(x[:, 0, 0, 0].tolist())
        used.append(process.memory_info().rss)
        return net(x.mean((1, 2, 3))[:, None]).square()[:, 0]

    train_module(loss, net, data, TrainingContext(workers=workers), Training(50, 64, 1e-3))
    assert len(indices) > 0.75 * COUNT  # 1 - exp(-3200 / 2000) = 0.80
    assert max(used) - used[2] < COUNT * SIDE**2 * 4 / 4
