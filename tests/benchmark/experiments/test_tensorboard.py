"""Curves: what a training tells is in the event files, as TensorBoard itself reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from adbench.benchmark.experiments import tensorboard as scalars
from adbench.benchmark.experiments.tensorboard import TensorBoardError, TensorBoardLogger
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.training.loop import Training
from trainings import reference_training, train_net

PLAN = Training(12, 4, 1e-2, ema=0.9, decay="cosine")


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """Every curve by its name: value by step."""
    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: {e.step: e.value for e in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


def nothing(event: str, facts: Mapping[str, Any]) -> None:
    pass


def test_a_training_is_drawn(tmp_path: Path) -> None:
    events: list[str] = []
    with TensorBoardLogger(tmp_path / "cell", lambda event, facts: events.append(event)) as tell:
        train_net(PLAN, TrainingContext(on_event=tell, event_interval=0))
    assert events == ["train"] * 12
    drawn = curves(tmp_path / "cell")
    assert set(drawn) == {"train/loss", "train/lr", "train/norm", "train/rate"}
    losses = reference_training(PLAN, 0)[1]
    assert drawn["train/loss"] == pytest.approx(dict(enumerate(losses, 1)), rel=1e-6)
    assert drawn["train/lr"] == pytest.approx(
        {k + 1: PLAN.learning_rate(k) for k in range(12)}, rel=1e-6
    )
    assert all(len(curve) == 12 and min(curve.values()) > 0 for curve in drawn.values())


def test_a_resumed_training_takes_back_what_is_done_again(tmp_path: Path) -> None:
    with TensorBoardLogger(tmp_path, nothing) as first:
        for step in range(1, 9):
            first("train", {"step": step, "of": 10, "loss": 100.0})
    with TensorBoardLogger(tmp_path, nothing) as second:
        for step in range(5, 11):
            second("train", {"step": step, "of": 10, "loss": float(step)})
    assert curves(tmp_path)["train/loss"] == {
        **dict.fromkeys(range(1, 5), 100.0),
        **{step: float(step) for step in range(5, 11)},
    }


def test_what_is_no_number_or_has_no_step_is_only_passed_on(tmp_path: Path) -> None:
    events: list[str] = []
    with TensorBoardLogger(tmp_path / "none", lambda event, facts: events.append(event)) as tell:
        tell("predict", {"part": "test", "step": 3, "of": 9})
        tell("checkpoint", {"fresh": True, "key": "ab"})
    assert events == ["predict", "checkpoint"]
    assert not (tmp_path / "none").exists()


def test_memory_that_ran_out_is_drawn(tmp_path: Path) -> None:
    with TensorBoardLogger(tmp_path, nothing) as tell:
        tell("oom", {"at": 4, "micro": 8})
    assert curves(tmp_path) == {"oom/micro": {4: 8.0}}


def test_without_tensorboard_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scalars, "find_spec", lambda name: None)
    with pytest.raises(TensorBoardError, match=r"not installed \(pip install tensorboard\)$"):
        TensorBoardLogger(tmp_path, nothing)


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        TensorBoardLogger(tmp_path / "file" / "cell", nothing) as tell,
        pytest.raises(TensorBoardError, match="Not a directory"),
    ):
        tell("train", {"step": 1, "of": 2, "loss": 1.0})
