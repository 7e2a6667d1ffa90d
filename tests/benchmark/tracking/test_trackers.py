"""MLflow's file store and W&B's offline files hold parameters, curves, metrics, pictures and the
record of a run; what a tracker lacks or how it fails never ends a run."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import adbench
from adbench.benchmark.experiments.run_config import OptionError
from adbench.benchmark.tracking import tracker as trackers
from adbench.benchmark.tracking.mlflow_logger import MLflowLogger
from adbench.benchmark.tracking.tracker import Tracker, open_logger
from adbench.benchmark.tracking.wandb_logger import WandbLogger
from records import record

PARAMETERS = {"method": "anoddpm", "method.mults": [1, 2], "seed": 3}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A results folder with a picture; no tracker is set up in the environment."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "pictures" / "x.png")
    return tmp_path


def track(text: str, out: Path, steps: int = 3) -> list[str]:
    """Track a training of some steps and its result; return the notes."""
    notes: list[str] = []

    def log(event: str, facts: Any) -> None:
        notes.extend([facts["text"]] if event == "note" else [])

    with Tracker({"x": lambda: open_logger(text, "x", out)}, PARAMETERS, log) as tracker:
        for step in range(1, steps + 1):
            tracker("train", {"step": step, "of": steps, "loss": 1 / step})
        tracker.log_result(record("AnoDDPM", files={"pictures/x.png": "00"}), out)
    return notes


def test_mlflow_has_it_all_in_its_file_store(out: Path) -> None:
    assert track("mlflow", out) == []
    assert track("mlflow", out) == []  # again: the same run, resumed
    from mlflow.tracking import MlflowClient

    client = MlflowClient((out / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("adbench")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"method": "anoddpm", "method.mults": "[1, 2]", "seed": "3"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {(m.step, m.value) for m in history} == {(1, 1.0), (2, 1 / 2), (3, 1 / 3)}
    assert run.data.metrics["pixel_ap.low"] == pytest.approx(0.45)
    assert run.data.metrics["cost.parameters"] == 690000
    (path,) = (out / "mlruns").rglob("record.json")
    assert json.loads(path.read_text())["method"]["label"] == "AnoDDPM"
    (picture,) = (out / "mlruns").rglob("x.png")
    assert picture.read_bytes() == (out / "pictures" / "x.png").read_bytes()


def test_wandb_has_it_all_in_its_offline_files(out: Path) -> None:
    assert track("wandb", out) == []
    (folder,) = (out / "wandb").glob("offline-run-*")
    content = _wandb_records(next(folder.glob("*.wandb")))
    assert content["config"] == {"method": "anoddpm", "method.mults": [1, 2], "seed": 3}
    points = {row["train/step"]: row["train/loss"] for row in content["history"]
              if "train/step" in row}  # fmt: skip
    assert points == {1: 1.0, 2: 0.5, 3: pytest.approx(1 / 3)}
    assert content["summary"]["result/pixel_ap.low"] == pytest.approx(0.45)
    assert content["artifacts"] == ["record"]
    (picture,) = folder.rglob("*.png")
    with Image.open(picture) as image:
        assert image.size == (5, 4)


def _wandb_records(path: Path) -> dict[str, Any]:
    """What an offline file of W&B holds: messages of protocol buffers in LevelDB's log format."""
    messages: Any = import_module("wandb.proto.wandb_internal_pb2")
    content: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "artifacts": []}
    for message in _log_records(path.read_bytes()):
        entry = messages.Record()
        entry.ParseFromString(message)
        content["config"] |= _items([*entry.config.update, *entry.run.config.update])
        content["summary"] |= _items(entry.summary.update)
        if entry.history.item:
            content["history"].append(_items(entry.history.item))
        if entry.artifact.type:
            content["artifacts"].append(entry.artifact.type)
    return content


def _items(items: Any) -> dict[str, Any]:
    named = {item.key or ".".join(item.nested_key): item.value_json for item in items}
    return {name: json.loads(text) for name, text in named.items() if name[0] != "_"}


def _log_records(data: bytes) -> Iterator[bytes]:
    """The records of a LevelDB log with a header of 7 bytes: blocks of 32 KiB of fragments, each
    with a checksum (4), a length (2) and a type (whole, first, middle, last)."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield record
            record = b""


class Failing:
    """A logger that fails at one of its calls."""

    def __init__(self, call: str) -> None:
        self._call, self.calls = call, list[str]()

    def __getattr__(self, name: str) -> Any:
        def called(*arguments: Any) -> None:
            self.calls.append(name)
            if name == self._call:
                raise ConnectionError("the server\nis gone")

        return called


@pytest.mark.parametrize("call", ["log_parameters", "log_points", "log_result", "close"])
def test_a_logger_that_fails_is_left_out_with_one_line(call: str, out: Path) -> None:
    notes: list[str] = []
    failing, whole = Failing(call), Failing("")

    def log(event: str, facts: Any) -> None:
        notes.extend([facts["text"]] if event == "note" else [])

    makers: Any = {"mlflow": lambda: failing, "wandb": lambda: whole}
    with Tracker(makers, PARAMETERS, log) as tracker:
        for step in (1, 2):
            tracker("train", {"step": step, "of": 2, "loss": 1.0})
        tracker.log_result(record("AnoDDPM"), out)
    assert notes == ["mlflow is left out: the server (ConnectionError)"]
    assert failing.calls.count(call) == 1 and failing.calls[-1] == call
    assert whole.calls == ["log_parameters", "log_points", "log_points", "log_result", "close"]


def test_a_server_that_is_not_there_does_not_end_a_run(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the port of `discard`
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    results = adbench.run(
        "intensity", "phantom", log="mlflow", profile="check", limit=4, out=out / "run",
        store=out / "store", executor="inline", baselines=False, progress=False, device="cpu",
    )  # fmt: skip
    assert results.records[0]["status"] == "ok"
    assert not (out / "run" / "mlruns").exists()


def test_a_run_is_tracked_where_it_is_told(out: Path) -> None:
    results = adbench.run(
        "intensity", "phantom", log=["mlflow", f"tensorboard={out / 'curves'}"], profile="check",
        limit=4, out=out / "run", store=out / "store", executor="inline", baselines=False,
        progress=False, device="cpu",
    )  # fmt: skip
    pictures = [name for name in results.records[0]["files"] if name.endswith(".png")]
    tracked = [path.name for path in (out / "run" / "mlruns").rglob("*.png")]
    assert sorted(tracked) == sorted(Path(name).name for name in pictures) != []
    assert list((out / "curves").rglob("events.out.tfevents*"))


def test_a_tracker_that_is_not_there_is_said_before_anything_runs(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match=r"no tracker 'wanb'\. Did you mean 'wandb'"):
        adbench.run("pca", "phantom", log="wanb", out=out / "run", progress=False)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install 'diffusion-adbench\[mlflow\]'"):
        adbench.run("pca", "phantom", log="mlflow", out=out / "run", progress=False)
    assert not (out / "run").exists()


def test_the_classes_are_what_the_names_say(out: Path) -> None:
    mlflow, wandb = open_logger("mlflow", "x", out), open_logger("wandb", "x", out)
    assert isinstance(mlflow, MLflowLogger) and isinstance(wandb, WandbLogger)
    mlflow.close()
