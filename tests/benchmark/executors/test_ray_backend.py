"""Cells as Ray's tasks: the same results, and what Ray says of a task's end in our words.

Ray is too large to be installed for this; its surface, as far as it is used, is made up here, with
forks for hosts.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adbench.benchmark.executors import job_folder
from adbench.benchmark.executors import ray_backend as executor_ray
from adbench.benchmark.executors.cluster import RemoteExecutor
from adbench.benchmark.executors.ray_backend import MISSING, RayCluster, connect, slot_resources
from adbench.benchmark.executors.selection import ExecutorSelection
from adbench.benchmark.scheduling.events import Died, Ended, JobEvent, Progress, Stopped
from adbench.benchmark.scheduling.job import experiment_job
from adbench.benchmark.store.artifact_store import Store
from adbench.engine.runtime.context import TrainingContext
from hosts import Hosts
from sweeps import Warm, records, results, run_planned, small_experiments

ERRORS = ("RayTaskError", "OutOfMemoryError", "NodeDiedError", "LocalRayletDiedError")
ERRORS += ("WorkerCrashedError", "TaskCancelledError")


class Cluster:
    """The module ray: what a task ends in is how its process does."""

    def __init__(self, hosts: Hosts, nodes: Sequence[dict[str, float]] = ()) -> None:
        self.hosts, self.resources, self.asked = hosts, nodes, []
        base = type("RayError", (Exception,), {})
        self.exceptions = SimpleNamespace(RayError=base)
        for name in ERRORS:
            setattr(self.exceptions, name, type(name, (base,), {}))

    def init(self, **more: Any) -> None:
        self.asked.append(more)
        if more["address"] == "nowhere:1":
            raise ConnectionError("nobody answers\nat all")

    def nodes(self) -> list[dict[str, Any]]:
        lost = {"Alive": False, "Resources": {"CPU": 99.0}}
        return [lost, *({"Alive": True, "Resources": node} for node in self.resources)]

    def remote(self, **more: Any) -> Any:
        self.asked.append(more)
        return lambda function: SimpleNamespace(options=partial(self._options, function))

    def _options(self, function: Any, **more: Any) -> Any:
        self.asked.append(more)
        return SimpleNamespace(
            remote=lambda word: self.hosts.begin(partial(worker, function, word))
        )

    def wait(self, tasks: list[str], **more: Any) -> tuple[list[str], list[str]]:
        ended = self.hosts.exit_codes()
        return [t for t in tasks if t in ended], [t for t in tasks if t not in ended]

    def get(self, task: str) -> None:
        code = self.hosts.exit_codes()[task]
        if code:
            raise self.exceptions.WorkerCrashedError("the worker died")

    def cancel(self, task: str, *, force: bool) -> None:
        self.hosts.signal(task, signal.SIGKILL if force else signal.SIGINT)

    def shutdown(self) -> None:
        self.asked.append("shutdown")


def worker(function: Any, word: str) -> None:
    """As Ray's are: SIGINT is blocked, and whatever they start inherits that."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    function(word)


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    monkeypatch.setattr(job_folder, "ForkServer", Warm)
    hosts = Hosts()
    yield hosts
    hosts.close()


def ray(hosts: Hosts, folder: Path, slots: int = 2) -> RemoteExecutor:
    cluster = RayCluster(Cluster(hosts), "cpu", 1, 0)
    cluster.settle = 0.1
    return RemoteExecutor(cluster, folder / "out/ray", slots, every=0.05, ask_every=0.1)


def test_results_are_those_of_one_process_and_a_lost_worker_costs_an_attempt(
    tmp_path: Path, hosts: Hosts
) -> None:
    planned = small_experiments(["walker"], [0, 1], walker={"steps": 20, "pause": 0.02})
    assert run_planned(planned, tmp_path / "here")[0] == 0
    executor, lost = ray(hosts, tmp_path / "there"), []

    def poll(on_event: Any, seconds: float) -> None:
        if not lost and list(tmp_path.glob("there/store/resume/*/*.safetensors")):
            lost.append(list(hosts.running)[-1])
            hosts.signal(lost[0], signal.SIGKILL)
        RemoteExecutor.poll(executor, on_event, seconds)

    executor.poll = poll
    code, text = run_planned(planned, tmp_path / "there", executor)
    assert code == 0, text
    ended = "its Ray worker died, or its host was lost"
    assert lost and text.count(f"{ended} (") == 1
    attempts = [r.get("attempts") for r in records(tmp_path / "there").values()]
    assert sorted(len(each or []) for each in attempts) == [0, 1]
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert not (tmp_path / "there/out/ray").exists()


def test_what_is_asked_to_stop_keeps_everything(tmp_path: Path, hosts: Hosts) -> None:
    (experiment,) = small_experiments(["walker"], walker={"steps": 2000, "pause": 0.01})
    executor = ray(hosts, tmp_path)
    executor.start(
        experiment_job(
            experiment,
            TrainingContext(checkpoint_interval=0.0),
            Store(tmp_path / "store"),
            tmp_path / "out",
            (),
            1,
        )
    )
    heard: list[JobEvent] = []
    asked, end = False, time.monotonic() + 300
    while not heard or not isinstance(heard[-1].event, Ended | Died):
        assert time.monotonic() < end, "nothing happened"
        executor.poll(heard.append, 0.05)
        progress = [news.event for news in heard if isinstance(news.event, Progress)]
        if not asked and any(event.step is not None for event in progress):
            executor.request_stop(experiment.name)
            asked = True
    last = heard[-1].event
    assert isinstance(last, Ended) and isinstance(last.outcome, Stopped), last
    assert list(tmp_path.glob("store/resume/*/*.safetensors"))
    executor.close()


def test_ray_retries_nothing_and_keeps_no_process(hosts: Hosts) -> None:
    module = Cluster(hosts)
    RayCluster(module, "cuda", 4, 1).close()
    assert module.asked[0] == {"max_retries": 0, "max_calls": 1}
    assert module.asked[1:] == [{"num_cpus": 4, "num_gpus": 1}, "shutdown"]


@pytest.mark.parametrize(
    ("error", "death"),
    [
        ("RayTaskError", Died(code=1, reason="its Ray task failed: no module adbench")),
        (
            "OutOfMemoryError",
            Died(reason="killed by Ray: its host has not enough memory", out_of_memory=True),
        ),
        ("NodeDiedError", Died(reason="its host was lost", lost=True)),
        ("LocalRayletDiedError", Died(reason="its host was lost", lost=True)),
        ("WorkerCrashedError", Died(reason="its Ray worker died, or its host was lost", lost=True)),
        ("TaskCancelledError", Died(reason="cancelled", lost=True)),
        ("RayError", Died(reason="Ray lost it: no module adbench", lost=True)),
        ("", Died(reason="its Ray task ended without a word", lost=True)),
    ],
)
def test_what_ray_says_of_an_end_is_told_in_our_words(
    tmp_path: Path, hosts: Hosts, error: str, death: Died
) -> None:
    module = Cluster(hosts)

    def get(task: str) -> None:
        if error:
            raise getattr(module.exceptions, error)("no module adbench\nmore of it")

    module.get = get
    cluster = RayCluster(module, "cpu", 1, 0)
    (ticket,) = cluster.submit([tmp_path])
    outcome: dict[str, Died] = {}
    while not outcome:
        outcome = dict(cluster.finished_jobs([ticket, "of an earlier run"]))
    assert outcome == {ticket: death}
    assert cluster.finished_jobs([ticket]) == {}, "said once"
    cluster.request_stop(ticket)
    cluster.kill(ticket)  # which is no error


@pytest.mark.parametrize(
    ("nodes", "slots", "gpu", "expected"),
    [
        ([{"CPU": 8}, {"CPU": 4}], None, False, (2, 4, 0)),
        ([{"CPU": 8}, {"CPU": 4}], 3, False, (3, 4, 0)),
        ([{"CPU": 8}, {"CPU": 4}], 4, False, (4, 2, 0)),
        ([{"CPU": 2}], 5, False, (5, 1, 0)),
        ([{"CPU": 2}, {}], None, False, (1, 2, 0)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 4, "GPU": 4}, {"CPU": 64}], None, True, (6, 1, 1)),
        ([{"CPU": 16, "GPU": 2}], 1, True, (1, 8, 1)),
    ],
)
def test_cells_share_the_hosts(
    nodes: list[dict[str, float]], slots: int | None, gpu: bool, expected: tuple[int, int, int]
) -> None:
    assert slot_resources(nodes, slots, gpu=gpu) == expected
    count, cpus, _ = expected
    if not gpu and slots and slots <= sum(node.get("CPU", 0) for node in nodes):
        assert sum(node.get("CPU", 0) // cpus for node in nodes) >= count, "none waits"


def test_a_cluster_without_what_is_needed_is_refused(
    tmp_path: Path, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Cluster(hosts, [{"CPU": 4}])
    monkeypatch.setattr(executor_ray, "connect", lambda address: module)
    with pytest.raises(ValueError, match=r"no host of the Ray cluster has a GPU \(--device cpu\)"):
        ExecutorSelection("ray").create_executor(
            TrainingContext(device="cuda"), [], None, tmp_path, None
        )
    assert module.asked == ["shutdown"]
    executor = ExecutorSelection("ray").create_executor(TrainingContext(), [], None, tmp_path, None)
    assert executor is not None and executor.slots == 1
    assert module.asked[-1] == {"num_cpus": 4, "num_gpus": 0}


def test_without_ray_or_without_a_cluster_there_is_one_line(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.setattr(executor_ray, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs ray") as caught:
        connect(None)
    assert str(caught.value) == MISSING
    module = Cluster(hosts)
    monkeypatch.setattr(executor_ray, "find_spec", lambda name: True)
    monkeypatch.setattr(executor_ray, "import_module", lambda name: module)
    with pytest.raises(ValueError, match=r"Ray cluster at nowhere:1: nobody answers \(ray stat"):
        connect("nowhere:1")
    assert connect(None) is module and module.asked[-1]["include_dashboard"] is False
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert connect("auto") is module and "include_dashboard" not in module.asked[-1]
