"""Prediction shared by image: the same to the bit, whoever predicts what, and whatever becomes of
them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.benchmark.executors.local import DeviceSlot, LocalExecutor
from adbench.benchmark.experiments import fit_predict as stages
from adbench.benchmark.experiments import pipeline as runner
from adbench.benchmark.experiments.matrix import Experiment
from adbench.benchmark.experiments.pipeline import predict_shared
from adbench.benchmark.experiments.resolve import resolve
from adbench.benchmark.scheduling import work_sharing as helping
from adbench.benchmark.scheduling.events import progress_event
from adbench.benchmark.scheduling.job import Job, JobContext
from adbench.benchmark.scheduling.job_progress import JobProgress
from adbench.benchmark.scheduling.work_sharing import WorkSharing
from adbench.benchmark.scheduling.worker import prepared_dataset
from adbench.benchmark.store import partial_state as resume
from adbench.benchmark.store.artifact_store import Store
from adbench.benchmark.store.partial_state import PartialState, find_damage
from adbench.datasets.base import Dataset
from adbench.engine.runtime.context import TrainingContext
from sweeps import Warm, records, results, run_planned, small_experiments

pytestmark = pytest.mark.xdist_group("work sharing")  # what all need is made once

RUN = TrainingContext(batch=32, checkpoint_interval=0.0)
SAMPLES = 20 + 40 + 40


def quiet(event: str, facts: Any) -> None: ...


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment that was worked on by one process, in shards of three."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "SHARD_SIZE", 3)
        assert run_planned(experiments(), folder)[0] == 0
    return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "SHARD_SIZE", 3)


def experiments(**args: Any) -> list[Experiment]:
    return small_experiments(["walker"], bumps={"size": 40}, walker={"steps": 4, **args})


def trained(alone: Path, folder: Path) -> tuple[Experiment, Dataset, Store]:
    """A copy of that experiment of which nothing is predicted yet."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(alone, folder)
    for kind in ("maps", "record"):
        shutil.rmtree(folder / "store" / kind)
    shutil.rmtree(folder / "out")
    (experiment,) = experiments()
    return experiment, prepared_dataset(experiment), Store(folder / "store")


def test_whoever_comes_first_the_maps_are_the_same(
    alone: Path, tmp_path: Path, monkeypatch
) -> None:
    experiment, dataset, store = trained(alone, tmp_path / "all")
    assert predict_shared(experiment, dataset, store, RUN, quiet, 1) == SAMPLES
    assert predict_shared(experiment, dataset, store, RUN, quiet, 2) == 0, "there was none left"
    monkeypatch.setattr(stages, "_predict_shards", None)  # nothing is looked at once more
    assert run_planned(experiments(), tmp_path / "all")[0] == 0
    assert results(tmp_path / "all") == results(alone)
    assert not list(store.root.glob("resume/*"))


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 12)), max_size=4))
@settings(max_examples=8)
def test_helpers_may_come_and_go(alone: Path, tmp_path_factory, helpers) -> None:
    """Each predicts some shards from its own place on, and stops."""
    folder = tmp_path_factory.mktemp("some")
    experiment, dataset, store = trained(alone, folder / "experiment")
    for share, most in helpers:
        predicted: list[int] = []
        stop = TrainingContext(
            batch=32, stop=lambda predicted=predicted, most=most: len(predicted) >= most
        )
        predict_shared(
            experiment, dataset, store, stop, lambda event, facts, to=predicted: to.append(1), share
        )
    assert run_planned(experiments(), folder / "experiment")[0] == 0
    assert results(folder / "experiment") == results(alone)


def test_a_helper_ends_when_there_are_maps_and_leaves_nothing(alone, tmp_path) -> None:
    experiment, dataset, store = trained(alone, tmp_path / "late")
    ids = resolve(experiment, dataset, RUN.numerics).key_inputs
    shutil.copytree(alone / "store/maps", store.root / "maps")
    assert predict_shared(experiment, dataset, store, RUN, quiet, 1) == 0
    assert not list(store.root.glob("resume/*"))
    (place,) = store.root.glob(f"maps/*/{runner.cache_key(ids.maps['test'])}")
    aside = place.rename(tmp_path / "aside")

    def finish(event: str, facts: Any) -> None:
        if not place.exists():
            shutil.copytree(aside, place)  # the experiment is done, as this one says what it did

    assert 0 < predict_shared(experiment, dataset, store, RUN, finish, 1) < 40
    shutil.rmtree(store.root / "checkpoint")
    assert predict_shared(experiment, dataset, store, RUN, quiet, 1) == 0


def test_what_a_helper_with_more_memory_saw_is_looked_at_again(alone, tmp_path) -> None:
    """All of a split goes through the networks in one shape."""
    experiment, dataset, store = trained(alone, tmp_path / "more")
    ids = resolve(experiment, dataset, RUN.numerics).key_inputs
    keep = store.partial_state("maps", ids.maps["held_out"])
    shape = (2, 3, 16, 16)
    wrong = {"score": torch.zeros(2, 3).double(), "map": torch.zeros(shape)}
    facts = {"evaluations": torch.tensor(0), "seconds": torch.tensor(0.0).double()}
    keep.save("shard-6", wrong | facts | {"batch": torch.tensor(64)})
    assert run_planned(experiments(), tmp_path / "more")[0] == 0
    assert results(tmp_path / "more") == results(alone)


class Eager(LocalExecutor):
    """Two slots. kill: end every helper as it begins"""

    def __init__(self, *, kill: bool = False) -> None:
        super().__init__([DeviceSlot("cpu", 1)] * 2, fork_server=Warm())
        self.begun: list[Job] = []
        self._kill = kill

    def start(self, job: Job) -> None:
        super().start(job)
        self.begun.append(job)
        if self._kill and job.task == "help":
            self.kill(job.name)


@pytest.mark.parametrize("kill", [False, True])
def test_a_slot_that_is_free_helps(tmp_path, alone, monkeypatch, kill: bool) -> None:
    monkeypatch.setattr(helping.WorkSharing.__init__, "__defaults__", (0.05,))
    where = Eager(kill=kill)
    code, output = run_planned(experiments(pause=0.05), tmp_path, where)
    helps = [job for job in where.begun if job.task == "help"]
    assert code == 0 and helps
    assert kill or "helper 1  predict" in output
    (record,) = records(tmp_path).values()
    assert record["status"] == "ok" and "attempts" not in record
    (other,) = records(alone).values()
    assert record["metrics"] == other["metrics"]


def test_a_helper_that_fails_is_a_word_in_a_log(tmp_path, monkeypatch) -> None:
    def broken(*args: Any) -> int:
        raise RuntimeError("no good at helping")

    monkeypatch.setattr(helping.WorkSharing.__init__, "__defaults__", (0.05,))
    monkeypatch.setattr("adbench.benchmark.scheduling.worker.predict_shared", broken)
    assert run_planned(experiments(pause=0.05), tmp_path, Eager())[0] == 0
    logs = [path.read_text() for path in tmp_path.glob("out/logs/*helper*")]
    assert logs and "no good at helping" in logs[0]


def predicting(name: str, step: int, seconds: float) -> JobProgress:
    jobs_running = JobProgress(name, 1)
    for done, when in ((0, 0.0), (step, seconds)):
        facts = {"part": "test", "step": done, "of": 100}
        jobs_running.on_progress(progress_event("predict", facts), when)
    return jobs_running


def test_help_goes_where_most_is_left() -> None:
    helpers = WorkSharing(min_seconds_left=10)
    jobs_running = {"a": predicting("a", 50, 40), "b": predicting("b", 50, 70)}
    context = JobContext.of(TrainingContext())
    jobs: dict[str, Job] = {name: Job(name, "experiment", (), context) for name in "ab"}
    begun = [helpers.next_job(jobs_running, jobs) for _ in range(14)]
    names = [job.name for job in begun if job]
    assert names == ["b helper 1", "a helper 1", "b helper 2", "a helper 2"]
    assert all(job is None or job.helper == int(job.name[-1]) for job in begun)
    assert sorted(helpers) == sorted(names) and sorted(
        helpers.jobs_for("a") + helpers.jobs_for("b")
    ) == sorted(names)
    assert helpers.remove("b helper 1") and not helpers.remove("b") and "b helper 1" not in helpers
    jobs_running["b"].stop_requested = 1.0
    assert helpers.next_job(jobs_running, jobs) is None, "it was asked to stop"


@pytest.mark.parametrize("when", ["before", "after"])
def test_two_that_save_at_once_leave_a_whole_state(tmp_path: Path, monkeypatch, when: str) -> None:
    """One saves just before or just after the other points to what it wrote."""
    one, two = PartialState(tmp_path / "state"), PartialState(tmp_path / "state")
    one.save("a", {"x": torch.arange(3)})
    real = resume.atomic_write
    inside: list[int] = []

    def between(path: Path, data: Any, **options: Any) -> None:
        if when == "after":
            real(path, data, **options)
        if not inside:
            inside.append(1)
            two.save("a", {"x": torch.arange(4)})
        if when == "before":
            real(path, data, **options)

    monkeypatch.setattr(resume, "atomic_write", between)
    one.save("a", {"x": torch.arange(5)})
    (pointer,) = tmp_path.glob("state/*.json")
    outcome = two.load("a")
    assert not find_damage(pointer) and outcome is not None
    assert len(outcome["x"]) == (5 if when == "before" else 4)
    assert "a" in one and "b" not in two and len(list(tmp_path.glob("state/*.safetensors"))) == 1
