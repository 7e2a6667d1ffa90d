"""Reading ahead: the same batches from any number of readers, whose troubles are said plainly."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from adbench.datasets.base import DataError
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.training.data_loading import DataWorkerLost, iterate_batches
from adbench.engine.training.loop import Training, train_module
from adbench.engine.training.loss import NotFinite
from trainings import DATA, TrainingSample, build_net, equal_states, reference_training, train_net

PLAN = Training(30, 5, 1e-2, ema=0.9, decay="cosine")
PICKS = [[i % 20, (7 * i) % 20] for i in range(12)]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_come_in_order_from_any_number_of_readers(workers: int) -> None:
    read = list(iterate_batches(DATA, iter(PICKS), TrainingContext(workers=workers)))
    assert len(read) == len(PICKS)
    for (x, label), pick in zip(read, PICKS, strict=True):
        assert torch.equal(x, torch.stack([DATA[i].x for i in pick]))
        assert label.dtype == torch.bool and label.tolist() == [False, False]


def test_two_readers_give_the_weights_of_none() -> None:
    assert equal_states(train_net(PLAN, TrainingContext(workers=2)), reference_training(PLAN, 0)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_drawn_from_global_streams(workers: int) -> None:
    net = build_net()
    before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
    train_net(Training(3, 4, 1e-2), TrainingContext(workers=workers), net)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), str(np.random.get_state()))


class Bad:
    """The third sample cannot be read."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int, /) -> TrainingSample:
        if index == 2:
            raise self.error
        return TrainingSample(torch.ones(3))


class Awkward(Exception):
    def __init__(self, failure: str, where: int) -> None:
        super().__init__(f"{failure} at {where}")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_cannot_be_read_is_its_own_error(workers: int) -> None:
    text = "case_7.nii.gz is truncated. Nothing was cached."
    with pytest.raises(DataError) as caught:
        list(
            iterate_batches(
                Bad(DataError(text)), iter([[0], [1], [2], [3]]), TrainingContext(workers=workers)
            )
        )
    assert str(caught.value) == text
    notes = getattr(caught.value, "__notes__", [])
    assert not workers or "__getitem__" in notes[0]  # for the log


def test_an_error_that_cannot_be_rebuilt_keeps_its_name_and_text() -> None:
    with pytest.raises(RuntimeError, match=r"(?m)^Awkward: tears at 3$"):
        list(iterate_batches(Bad(Awkward("tears", 3)), iter([[2]]), TrainingContext(workers=1)))


class Fatal(Bad):
    """A reader that comes to the third sample is killed, as for its memory."""

    def __init__(self) -> None:
        super().__init__(ValueError())
        self.parent = os.getpid()

    def __getitem__(self, index: int, /) -> TrainingSample:
        if index == 2 and os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return TrainingSample(torch.ones(3))


def test_a_reader_that_is_killed_is_an_error() -> None:
    with pytest.raises(DataWorkerLost, match=r"(?s)^a process that reads samples ended .*1 less"):
        list(iterate_batches(Fatal(), iter([[0], [1], [2], [3]]), TrainingContext(workers=1)))
    assert multiprocessing.active_children() == []


def test_a_reader_that_ends_while_readers_are_stopped_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """torch tells of it from a signal's handler, wherever the program is."""
    stop = _MultiProcessingDataLoaderIter._shutdown_workers  # pyright: ignore[reportPrivateUsage]

    workers_left: list[bool] = []

    def told_meanwhile(self: Any) -> None:
        stop(self)
        if not workers_left:
            workers_left.append(True)
            raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_shutdown_workers", told_meanwhile)
    with closing(iterate_batches(DATA, iter([[0], [1]]), TrainingContext(workers=1))) as reading:
        assert next(reading)[0].shape[0] == 1
    assert workers_left


class Who:
    """Samples that say in which process they were read, after an attempt to interrupt it."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int, /) -> TrainingSample:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        return TrainingSample(torch.tensor([float(os.getpid())]))


def test_readers_leave_signals_to_their_parent_and_end_with_the_iterator() -> None:
    with closing(
        iterate_batches(Who(), ([i] for i in range(1000)), TrainingContext(workers=2))
    ) as reading:
        first_values = {int(next(reading)[0].item()) for _ in range(6)}
        assert len(first_values) == 2 and os.getpid() not in first_values
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_no_reader_outlives_a_training(how: str) -> None:
    net = build_net()

    def loss(x: Tensor, label: Tensor, rng: object) -> Tensor:
        return net(x).mean(1) * (float("nan") if how == "failed" else 1)

    stops = iter([False, False, how == "stopped"])
    run = TrainingContext(workers=2, stop=lambda: next(stops))
    with pytest.raises((Interrupted, NotFinite)):
        train_module(loss, net, DATA, run, PLAN)
    assert multiprocessing.active_children() == []


def test_the_number_of_readers_follows_the_device_unless_set() -> None:
    assert TrainingContext().num_workers == 0
    assert TrainingContext(workers=3).num_workers == 3
    assert TrainingContext(device="cuda", workers=0).num_workers == 0
    assert 0 <= TrainingContext(device="cuda").num_workers <= 4
