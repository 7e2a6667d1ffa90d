"""Curves: what a training tells is in the event files, as TensorBoard itself reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from adbench.benchmark.tracking.tensorboard import TensorBoardLogger
from adbench.benchmark.tracking.tracker import Tracker
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.training.loop import Training
from records import record
from trainings import reference_training, train_net

PLAN = Training(12, 4, 1e-2, ema=0.9, decay="cosine")


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """Every curve by its name: value by step."""
    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: {e.step: e.value for e in read.Scalars(tag)} for tag in read.Tags()["scalars"]}


def nothing(event: str, facts: Mapping[str, Any]) -> None:
    pass


def tracker(folder: Path, log: Any = nothing) -> Tracker:
    return Tracker({"tensorboard": lambda: TensorBoardLogger(folder)}, {"seed": 3}, log)


def test_a_training_is_drawn(tmp_path: Path) -> None:
    events: list[str] = []
    with tracker(tmp_path / "experiment", lambda event, facts: events.append(event)) as log:
        train_net(PLAN, TrainingContext(on_event=log, event_interval=0))
    assert events == ["train"] * 12
    drawn = curves(tmp_path / "experiment")
    assert set(drawn) == {"train/loss", "train/lr", "train/norm", "train/rate"}
    losses = reference_training(PLAN, 0)[1]
    assert drawn["train/loss"] == pytest.approx(dict(enumerate(losses, 1)), rel=1e-6)
    assert drawn["train/lr"] == pytest.approx(
        {k + 1: PLAN.learning_rate(k) for k in range(12)}, rel=1e-6
    )
    assert all(len(curve) == 12 and min(curve.values()) > 0 for curve in drawn.values())


def test_a_resumed_training_takes_back_what_is_done_again(tmp_path: Path) -> None:
    with tracker(tmp_path) as first:
        for step in range(1, 9):
            first("train", {"step": step, "of": 10, "loss": 100.0})
    with tracker(tmp_path) as second:
        for step in range(5, 11):
            second("train", {"step": step, "of": 10, "loss": float(step)})
    assert curves(tmp_path)["train/loss"] == {
        **dict.fromkeys(range(1, 5), 100.0),
        **{step: float(step) for step in range(5, 11)},
    }


def test_what_is_no_number_or_has_no_step_is_only_passed_on(tmp_path: Path) -> None:
    events: list[str] = []
    with tracker(tmp_path / "none", lambda event, facts: events.append(event)) as log:
        log("predict", {"part": "test", "step": 3, "of": 9})
        log("checkpoint", {"fresh": True, "key": "ab"})
    assert events == ["predict", "checkpoint"]
    assert not (tmp_path / "none").exists()


def test_memory_that_ran_out_is_drawn(tmp_path: Path) -> None:
    with tracker(tmp_path) as log:
        log("oom", {"at": 4, "micro": 8})
    assert curves(tmp_path) == {"oom/micro": {4: 8.0}}


def test_the_result_is_there_with_intervals_pictures_and_parameters(tmp_path: Path) -> None:
    picture = tmp_path / "pictures" / "x.worst.png"
    picture.parent.mkdir()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(picture)
    with tracker(tmp_path / "experiment") as log:
        log("train", {"step": 1, "of": 1, "loss": 0.5})
        log.log_result(record("AnoDDPM", files={"pictures/x.worst.png": "00"}), tmp_path)
    drawn = curves(tmp_path / "experiment")
    assert drawn["result/pixel_ap.low"][0] == pytest.approx(0.45)
    assert drawn["result/threshold"][0] == 0.25
    read = EventAccumulator(str(tmp_path / "experiment"))
    read.Reload()
    (image,) = read.Images("pictures/worst")
    assert (image.width, image.height) == (5, 4)
    assert {"parameters/text_summary", "record/text_summary"} <= set(read.Tags()["tensors"])


def test_a_folder_that_cannot_be_written_is_one_line_and_the_training_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    events: list[tuple[str, Any]] = []
    with tracker(tmp_path / "file" / "experiment", lambda *event: events.append(event)) as log:
        for step in (1, 2):
            log("train", {"step": step, "of": 2, "loss": 1.0})
    assert [event for event, _ in events] == ["train", "note", "train"]
    assert events[1][1]["text"].startswith("tensorboard is left out: ")
    assert "(NotADirectoryError)" in events[1][1]["text"]
