"""Cells handed to Slurm: the same results, and everything heard of by files.

Slurm's hosts are forks here, and what it says is made up; submitit is real where it matters.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from submitit.core.submission import process_job
from submitit.core.utils import DelayedSubmission, JobPaths
from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

import kills
from adbench.benchmark.executors import slurm_backend as executor_slurm
from adbench.benchmark.executors import slurm_detached as detach
from adbench.benchmark.executors.cluster import RemoteExecutor
from adbench.benchmark.executors.job_folder import (
    EVENTS,
    JOB,
    LAST,
    STOP,
    TICKET,
    run_job_folder,
    write_last_event,
)
from adbench.benchmark.executors.slurm_backend import ShieldedForkServer, SlurmCluster, SlurmTask
from adbench.benchmark.scheduling.events import (
    Died,
    Ended,
    Heartbeat,
    JobEvent,
    Progress,
    Started,
    Stopped,
    Succeeded,
    parse_event,
)
from adbench.benchmark.scheduling.job import Job, JobContext, experiment_job
from adbench.benchmark.scheduling.status import read_status
from adbench.benchmark.store.artifact_store import Store
from adbench.engine.runtime.context import TrainingContext
from hosts import Hosts
from sweeps import Warm, records, results, run_planned, small_experiments


class Array:
    """submitit's surface as Slurm (slurm_backend.py) uses it; its hosts are forks."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts, self.sizes, self.updates = hosts, [], []
        self.folder = folder

    def update_parameters(self, **more: Any) -> None:
        self.updates.append(more)

    def map_array(self, function: Any, folders: list[str]) -> list[Any]:
        self.sizes.append(len(folders))
        ids = [self.hosts.begin(partial(function, folder)) for folder in folders]
        self.folder.mkdir(exist_ok=True)
        for each in ids:
            (self.folder / f"{each}_submitted.pkl").touch()
        return [SimpleNamespace(job_id=each) for each in ids]


@pytest.fixture
def array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Array]:
    before, ShieldedForkServer.__bases__ = ShieldedForkServer.__bases__, (Warm,)
    hosts = Hosts()

    def states() -> dict[str, str]:
        ended = {
            id: "COMPLETED" if code == 0 else "NODE_FAIL" for id, code in hosts.exit_codes().items()
        }
        return ended | dict.fromkeys(hosts.running, "RUNNING")

    def scancel(*words: str) -> None:
        if words[0] != "--state=PENDING":
            kill = signal.SIGTERM if words[0] == "--signal=TERM" else signal.SIGKILL
            hosts.signal(words[-1], kill)

    monkeypatch.setattr(executor_slurm, "_query_states", states)
    monkeypatch.setattr(executor_slurm, "_scancel", scancel)
    yield Array(hosts, tmp_path / "submitit")
    hosts.close()
    ShieldedForkServer.__bases__ = before


def slurm(array: Array, folder: Path, slots: int = 2) -> RemoteExecutor:
    cluster = SlurmCluster(array, "cpu", 1)
    cluster.settle = 0.1
    return RemoteExecutor(cluster, folder / "out/slurm", slots, every=0.05, ask_every=0.1)


def test_results_are_those_of_one_process_bit_for_bit(tmp_path: Path, array: Array) -> None:
    planned = small_experiments(["walker"], [0, 1])
    assert run_planned(planned, tmp_path / "here")[0] == 0
    code, output = run_planned(planned, tmp_path / "there", slurm(array, tmp_path / "there"))
    assert code == 0, output
    assert results(tmp_path / "there") == results(tmp_path / "here")
    assert array.sizes == [1, 2], "the dataset, then an array of experiments"
    assert "train  20/20" in output and "predict test  20/20" in output
    assert not (tmp_path / "there/out/slurm").exists() and not array.folder.exists()


def test_a_crash_is_told_as_on_one_machine(tmp_path: Path, array: Array) -> None:
    output = {"how": "crash", "mark": str(tmp_path / "mark")}
    code, message = run_planned(
        small_experiments(["trouble"], trouble=output), tmp_path, slurm(array, tmp_path)
    )
    assert code == 0 and "killed by SIGSEGV (train); trying again" in message
    attempts = records(tmp_path)["trouble 0"]["attempts"]
    assert attempts == [{"ended": "killed by SIGSEGV", "at": "train"}]
    assert "SIGSEGV" not in (log := next(tmp_path.glob("out/logs/*")).read_text())
    assert "Fatal Python error" in log, "what it printed on its host is here"


def test_a_host_that_goes_away_costs_an_attempt(tmp_path: Path, array: Array) -> None:
    output = {"how": "hang", "mark": str(tmp_path / "mark")}
    executor = slurm(array, tmp_path)
    lost = []

    def poll(on_event: Any, seconds: float) -> None:
        if not lost and any(
            "train" in p.read_text() for p in tmp_path.glob(f"out/slurm/*/{EVENTS}")
        ):
            lost.append(list(array.hosts.running)[-1])
            array.hosts.signal(lost[0], signal.SIGKILL)
        RemoteExecutor.poll(executor, on_event, seconds)

    executor.poll = poll
    code, message = run_planned(small_experiments(["trouble"], trouble=output), tmp_path, executor)
    assert code == 0 and len(lost) == 1
    ended = f"its Slurm job {lost[0]} ended as NODE_FAIL"
    assert f"{ended} (train); trying again" in message
    assert records(tmp_path)["trouble 0"]["attempts"] == [{"ended": ended, "at": "train"}]
    assert kills.gone([int((tmp_path / "mark").read_text())], 5)


def test_what_is_asked_to_stop_keeps_everything(tmp_path: Path, array: Array) -> None:
    (experiment,) = small_experiments(["walker"], walker={"steps": 2000, "pause": 0.01})
    executor = slurm(array, tmp_path)
    job = experiment_job(
        experiment,
        TrainingContext(checkpoint_interval=0.0),
        Store(tmp_path / "store"),
        tmp_path / "out",
        (),
        1,
    )
    executor.start(job)
    heard = listened(
        executor,
        lambda news: isinstance(news.event, Progress) and news.event.step is not None,
    )
    assert isinstance(heard[0].event, Started) and heard[0].event.host
    executor.request_stop(experiment.name)
    assert isinstance(stopped_event(listened(executor, over)[-1]), Stopped)
    assert list(tmp_path.glob("store/resume/*/*.safetensors"))
    executor.close()


def test_what_waits_in_the_queue_can_be_taken_back_and_killed(tmp_path: Path) -> None:
    executor, queue = (
        RemoteExecutor(queue := Queue(), tmp_path / "q", 3, every=0.0, ask_every=0.0),
        queue,
    )
    for name in "abc":
        executor.start(named_job(name))
    executor.request_stop("c")  # not even handed in
    heard = listened(executor, over)
    assert heard == [JobEvent("c", Ended(Stopped()))] and len(queue.ran) == 2
    executor.request_stop("a")
    executor.kill("b")
    heard = listened(executor, over)
    assert {news.job_name for news in heard} == {"a", "b"}
    assert {type(news.event) for news in heard} == {Died}
    assert [what for what, _ in queue.asked] == ["ask", "kill"]
    executor.close()
    assert queue.closed and not (tmp_path / "q").exists()


def test_news_that_are_cut_off_are_read_once_they_are_whole(tmp_path: Path) -> None:
    executor = RemoteExecutor(queue := Queue(), tmp_path / "q", 1, every=0.0, ask_every=0.0)
    executor.start(named_job("a"))
    heard: list[JobEvent] = []
    executor.poll(heard.append, 0)
    (folder,) = queue.ran.values()
    news = folder / EVENTS
    for text, count in (
        ('{"kind": "heartbeat", "mem', 0),
        ('ory_mb": 1}\n{"kind": "heart', 1),  # then its host is lost, and another goes on
        ('\n{"kind": "started"}\nwhat a plugin wrote\n', 2),
    ):
        with news.open("a") as file:
            file.write(text)
        executor.poll(heard.append, 0)
        assert len(heard) == count
    write_last_event(folder, Ended(Succeeded({})))
    executor.poll(heard.append, 0)
    assert [type(each.event) for each in heard] == [Heartbeat, Started, Ended]
    assert queue.asked == [("forget", "t0")]


def test_a_job_of_an_earlier_run_is_not_begun_twice(tmp_path: Path) -> None:
    queue, folder = Queue(), tmp_path / "q"
    (folder / "before").mkdir(parents=True)
    (folder / "before" / JOB).write_text('{"name": "a"}')
    (folder / "before" / TICKET).write_text("7")
    executor = RemoteExecutor(queue, folder, 2, every=0.0, ask_every=0.0)
    for name in "ab":
        executor.start(named_job(name))
    heard: list[JobEvent] = []
    executor.poll(heard.append, 0)
    assert len(queue.ran) == 1, "b alone"
    first = heard[0].event
    assert isinstance(first, Progress)
    assert first.text.startswith("a waits for job 7 of an earlier run")
    queue.gone.add("7")
    for _ in range(2):
        executor.poll(list().append, 0)
    assert len(queue.ran) == 2


def test_a_job_that_is_over_or_asked_to_stop_is_not_begun(tmp_path: Path) -> None:
    assert run_job_folder(tmp_path) is None, "nobody knows of it any more"
    (tmp_path / JOB).write_text("{}")
    assert run_job_folder(tmp_path, lambda: True) == Ended(Stopped())
    (tmp_path / STOP).touch()
    assert run_job_folder(tmp_path) == Ended(Stopped())
    write_last_event(tmp_path, Ended(Succeeded({"seed": 3})))
    assert run_job_folder(tmp_path) is None
    assert parse_event((tmp_path / LAST).read_bytes()) == Ended(Succeeded({"seed": 3}))


def test_at_its_time_limit_a_job_is_requeued_and_goes_on(
    tmp_path: Path, array: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all that submitit runs on a host, of its executor for one machine."""
    (experiment,) = small_experiments(["walker"], walker={"steps": 30, "pause": 0.02})
    assert run_planned([experiment], tmp_path / "whole")[0] == 0
    run = TrainingContext(batch=32, checkpoint_interval=0.0)
    job = experiment_job(experiment, run, Store(tmp_path / "store"), tmp_path / "out", (), 1)
    folder, pickles = tmp_path / "job", tmp_path / "submitit"
    folder.mkdir()
    pickles.mkdir()
    (folder / JOB).write_bytes(job.to_json())
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    handed = DelayedSubmission(SlurmTask(), str(folder))
    handed.set_timeout(60, 3)
    handed.dump(JobPaths(pickles, "7", 0).submitted_pickle)

    def begin() -> str:
        return array.hosts.begin(partial(process_job, pickles))

    host = begin()
    until(lambda: list(tmp_path.glob("store/resume/*/*.safetensors")))
    for pid in [*kills.below(int(host)), int(host)]:  # Slurm sends it to every process of a job
        os.kill(pid, signal.SIGUSR2)
    until(lambda: array.hosts.exit_codes())
    assert array.hosts.ended == {host: LOCAL_REQUEUE_RETURN_CODE}
    assert not (folder / LAST).exists() and list(tmp_path.glob("store/resume/*/*.safetensors"))
    begin()
    until(lambda: (folder / LAST).exists())
    last = parse_event((folder / LAST).read_bytes())
    assert isinstance(last, Ended) and isinstance(last.outcome, Succeeded)
    (path,) = (tmp_path / "whole").glob("out/records/*.json")
    for record in (last.outcome.record, whole := json.loads(path.read_text())):
        for measured in ("train_seconds", "seconds_per_image", "peak_memory_mb"):
            record["cost"].pop(measured)
    assert len(whole.pop("seal")) == 64
    assert last.outcome.record == whole


def test_detached_cells_keep_their_own_records(tmp_path: Path, array: Array) -> None:
    output = {"how": "raise"}
    planned = small_experiments(["walker", "trouble"], trouble=output, walker={"steps": 3})
    assert run_planned(planned, tmp_path / "here")[0] == 3
    store, out = Store(tmp_path / "there/store"), tmp_path / "there/out"
    message = detach.submit_detached(
        planned,
        TrainingContext(batch=32, checkpoint_interval=0.0),
        store,
        out,
        SlurmCluster(array, "cpu", 1),
    )
    assert (
        array.sizes == [1, 2]
        and "Slurm has 2 experiments" in message
        and f"status --out {out}" in message
    )
    first = next(iter([*array.hosts.running, *array.hosts.ended]))
    assert {"dependency": f"afterany:{first}"} in array.updates
    assert array.updates[-1] == {"dependency": None}
    until(lambda: array.hosts.exit_codes() and not array.hosts.running)
    assert set(array.hosts.ended.values()) == {0}
    left, right = results(tmp_path / "here"), results(tmp_path / "there")
    for record in (*left.values(), *right.values()):
        if isinstance(record, dict) and record["status"] == "failed":
            assert "ValueError: no good" in record["failure"].pop("log")
    assert left == right and read_status(out, store.root).runs == []


class Queue:
    """A Cluster that begins nothing."""

    device, settle = "cpu", 0.0

    def __init__(self) -> None:
        self.ran: dict[str, Path] = {}
        self.asked: list[tuple[str, str]] = []
        self.gone: set[str] = set()
        self.closed = False

    def threads(self, job: Any) -> int:
        return 1

    def submit(self, folders: Any) -> list[str]:
        tickets = [f"t{len(self.ran) + i}" for i in range(len(folders))]
        self.ran |= dict(zip(tickets, folders, strict=True))
        return tickets

    def finished_jobs(self, tickets: Any) -> dict[str, Died]:
        death = Died(reason="gone", lost=True)
        return {ticket: death for ticket in tickets if ticket in self.gone}

    def request_stop(self, ticket: str) -> None:
        self.asked.append(("ask", ticket))
        self.gone.add(ticket)

    def forget(self, ticket: str) -> None:
        self.asked.append(("forget", ticket))

    def kill(self, ticket: str) -> None:
        self.asked.append(("kill", ticket))
        self.gone.add(ticket)

    def close(self) -> None:
        self.closed = True


def named_job(name: str) -> Job:
    return Job(name, "prepare", (), JobContext.of(TrainingContext()))


def over(news: JobEvent) -> bool:
    return isinstance(news.event, Ended | Died)


def stopped_event(news: JobEvent) -> object:
    """The outcome of an event that ends a job."""
    assert isinstance(news.event, Ended), news
    return news.event.outcome


def listened(executor: RemoteExecutor, enough: Any) -> list[JobEvent]:
    """What is heard until something is enough."""
    heard: list[JobEvent] = []
    until(lambda: executor.poll(heard.append, 0.05) or any(map(enough, heard)))
    return heard


def until(what: Any, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
