"""An experiment that travels as text is the same, and whatever becomes of it is an outcome."""

from __future__ import annotations

import errno
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from adbench.benchmark.evaluation.protocol import Protocol
from adbench.benchmark.experiments.matrix import Experiment, expand_matrix
from adbench.benchmark.experiments.resolve import resolve
from adbench.benchmark.experiments.run_config import RunConfig
from adbench.benchmark.registry.registry import Registry
from adbench.benchmark.scheduling.events import (
    DiskFull,
    Failed,
    NoData,
    Prepared,
    Stopped,
    Succeeded,
)
from adbench.benchmark.scheduling.job import Job, experiment_job, prepare_job
from adbench.benchmark.scheduling.worker import run_job
from adbench.benchmark.store.artifact_store import Store, StoreError
from adbench.benchmark.store.atomic_files import is_disk_full
from adbench.engine.runtime.context import TrainingContext
from sweeps import small_experiments


def job(experiment: Experiment, folder: Path, **run: Any) -> Job:
    context, store = TrainingContext(**run), Store(folder / "store")
    return Job.from_json(experiment_job(experiment, context, store, folder / "out").to_json())


def test_every_built_in_method_travels() -> None:
    registry = Registry.read()
    protocol = Protocol("fixed:0.3", "pseudo", post=("median5", "components>=8"), budget=99)
    config = RunConfig([*registry.methods], ["synthbrain"], "tiny", protocol, (3,), (100, 250), 7)
    for experiment in expand_matrix(config, registry):
        (there,) = job(experiment, Path()).experiments
        assert there.name == experiment.name and there.protocol == protocol
        assert (there.seed, there.limit, there.levels) == (3, 7, (100, 250))
        assert there.method.load() is experiment.method.load()


def test_a_plugin_that_is_a_file_travels_with_the_same_identity(tmp_path: Path) -> None:
    (experiment,) = small_experiments(["walker"], walker={"steps": 3})
    (there,) = job(experiment, tmp_path).experiments
    dataset = experiment.dataset.load()(**experiment.dataset_args)
    one, other = (resolve(c, dataset, "float32").key_inputs for c in (there, experiment))
    assert one == other


def test_circumstances_travel() -> None:
    run = TrainingContext(
        dtype=torch.bfloat16, batch=5, micro=3, workers=0, checkpoint_interval=7.5, compile="on"
    )
    (experiment,) = small_experiments(["walker"])
    there = Job.from_json(prepare_job([experiment], run).to_json()).context.training_context()
    assert there == TrainingContext(
        **{**vars(run), "stop": there.stop, "state_store": there.state_store}
    )


def test_work_makes_a_record_and_tells_its_phases(tmp_path: Path) -> None:
    (experiment,) = small_experiments(["walker"])
    output: list[str] = []

    def tell(event: str, facts: Any) -> None:
        if event == "phase":
            output.append(facts["phase"])

    outcome = run_job(job(experiment, tmp_path), tell)
    assert isinstance(outcome, Succeeded) and outcome.record["status"] == "ok"
    assert output == ["train", "predict", "evaluate"]
    json.dumps(outcome.record)


@pytest.mark.parametrize(
    ("how", "where", "phase", "message"),
    [
        ("raise", "fit", "train", "ValueError: no good"),
        ("raise", "detect", "predict", "ValueError: no good"),
        ("quit", "fit", "train", "SystemExit: 3"),
    ],
)
def test_a_failure_is_an_outcome(
    tmp_path: Path, how: str, where: str, phase: str, message: str
) -> None:
    (experiment,) = small_experiments(["trouble"], trouble={"how": how, "where": where})
    outcome = run_job(job(experiment, tmp_path), lambda *_: None)
    assert isinstance(outcome, Failed) and (outcome.phase, outcome.exception) == (phase, message)
    assert outcome.trace.startswith("Traceback") and "_misbehave" in outcome.trace


def test_a_judgement_that_cannot_be_says_so(tmp_path: Path, monkeypatch) -> None:
    (experiment,) = small_experiments(["trouble"])
    monkeypatch.setattr("adbench.benchmark.experiments.pipeline.evaluate", None)
    outcome = run_job(job(experiment, tmp_path), lambda *_: None)
    assert isinstance(outcome, Failed) and outcome.phase == "evaluate"


def test_asked_to_stop_it_keeps_what_there_is(tmp_path: Path) -> None:
    (experiment,) = small_experiments(["walker"])
    outcome = run_job(job(experiment, tmp_path), lambda *_: None, lambda: True)
    assert isinstance(outcome, Stopped)
    (experiment,) = small_experiments(["walker"])
    asked = run_job(prepare_job([experiment], TrainingContext()), lambda *_: None, lambda: True)
    assert isinstance(asked, Stopped), "while a dataset is made ready, too"


def test_a_dataset_tells_which_cells_cannot_be() -> None:
    planned = small_experiments(["walker", "trouble"], bumps={"shape": [24]})
    outcome = run_job(prepare_job(planned, TrainingContext()), lambda *_: None)
    assert isinstance(outcome, Prepared) and outcome.headers.keys() == {c.name for c in planned}
    assert outcome.incompatible == {planned[0].name: "takes samples of 2 axes, these have 1"}
    broken = small_experiments(["walker"], bumps={"broken": True})
    outcome = run_job(prepare_job(broken, TrainingContext()), lambda *_: None)
    assert isinstance(outcome, NoData) and "b: worse" in outcome.reason


def test_a_full_disk_is_known_in_whatever_words_it_is_told(tmp_path: Path, monkeypatch) -> None:
    no = OSError(errno.ENOSPC, "x")
    wrapped = StoreError("cannot write a: no")
    wrapped.__cause__ = RuntimeError("safetensors: No space left on device (os error 28)")
    assert (
        is_disk_full(no) and is_disk_full(wrapped) and is_disk_full(OSError(errno.EDQUOT, "quota"))
    )
    assert not is_disk_full(StoreError("cannot write a: read-only")) and not is_disk_full(
        OSError(errno.EACCES, "")
    )

    def refused(*inputs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (experiment,) = small_experiments(["walker"])
    monkeypatch.setattr("adbench.benchmark.experiments.pipeline.fit", refused)
    outcome = run_job(job(experiment, tmp_path), lambda *_: None)
    assert isinstance(outcome, DiskFull) and outcome.phase == "train"
    assert outcome.reason.startswith(f"cannot write {tmp_path}/store/checkpoint/")

    monkeypatch.setattr("adbench.benchmark.experiments.pipeline.fit_experiment", refused)
    outcome = run_job(job(experiment, tmp_path), lambda *_: None)
    assert isinstance(outcome, DiskFull)
    assert outcome.reason.startswith("a file could not be written in phase train: No space left")
    assert "free some space" in outcome.reason and tempfile.gettempdir() in outcome.reason

    def refused_file(*inputs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/full/scores.bin")

    monkeypatch.setattr("adbench.benchmark.experiments.pipeline.fit_experiment", refused_file)
    outcome = run_job(job(experiment, tmp_path), lambda *_: None)
    assert isinstance(outcome, DiskFull)
    assert outcome.reason.startswith("cannot write /full/scores.bin: No space left on device (free")
