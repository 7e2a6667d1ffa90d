"""What sbatch is told and what squeue says; both are made up, submitit is real."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from adbench.benchmark.executors.selection import ExecutorSelection
from adbench.benchmark.executors.slurm_backend import SlurmCluster, connect
from adbench.benchmark.executors.slurm_options import parse_minutes, parse_options
from adbench.benchmark.scheduling.events import Died
from adbench.benchmark.scheduling.job import Job, experiment_job, prepare_job
from adbench.benchmark.store.artifact_store import Store
from adbench.engine.runtime.context import TrainingContext
from sweeps import small_experiments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("90:30", 91),
        ("1:30:00", 90),
        ("1-12", 2160),
        ("1-12:30", 2190),
        ("2-0:0:1", 2881),
    ],
)
def test_times_are_read_as_sbatch_does(text: str, expected: int) -> None:
    assert parse_minutes(text) == expected


def test_options_are_what_submitit_or_sbatch_knows() -> None:
    assert parse_options(["partition=gpu,time=1:00:00,mem=32G,gpus=1", "cpus-per-task=8"]) == {
        "time": 60,
        "gpus_per_node": 1,
        "cpus_per_task": 8,
        "additional_parameters": {"partition": "gpu", "mem": "32G"},
    }
    with pytest.raises(ValueError, match=r"--slurm takes KEY=VALUE.* not 'gpu'"):
        parse_options(["gpu"])
    with pytest.raises(ValueError, match=r"minutes.*not 'soon'"):
        parse_options(["time=soon"])


def test_sbatch_is_told_what_was_asked_for_and_its_refusal_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, monkeypatch, sbatch=f'cp "$1" {tmp_path}/script; echo Submitted batch job 7')
    cluster = connect(tmp_path / "q", ["partition=gpu", "time=90,mem=2G"], "cuda:1", 1, 3)
    assert (cluster.device, cluster.threads(job_of(""))) == ("cuda", 4)
    (tmp_path / "job").mkdir()
    assert cluster.submit([tmp_path / "job"] * 2) == ["7_0", "7_1"]
    script = (tmp_path / "script").read_text()
    for option in ("partition=gpu", "time=90", "mem=2G", "gpus-per-node=1", "array=0-1%2"):
        assert f"#SBATCH --{option}\n" in script
    commands(tmp_path, monkeypatch, sbatch="echo 'sbatch: error: no such partition' >&2; exit 1")
    with pytest.raises(ValueError, match=r"^Slurm did not take the jobs: no such partition$"):
        cluster.submit([tmp_path / "job"])


def test_a_method_may_be_given_more_than_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = f'n=$(ls {tmp_path}/submitted | wc -l); cp "$1" {tmp_path}/submitted/$n'
    commands(tmp_path, monkeypatch, sbatch=f"{keep}; echo Submitted batch job 7$n")
    (tmp_path / "submitted").mkdir()
    output = ["partition=gpu,mem=2G", "ldm.mem=64G,ldm.cpus=16", "pca.time=5"]
    cluster = connect(tmp_path / "q", output, "cpu", 0, 3)
    jobs = [job_of(name) for name in ("ldm", "pca", "vae", "ldm", "")]
    folders = [tmp_path / str(i) for i in range(5)]
    for folder, job in zip(folders, jobs, strict=True):
        folder.mkdir()
        (folder / "job.json").write_bytes(job.to_json())
    assert [cluster.threads(job) for job in jobs] == [16, 4, 4, 16, 4]
    assert cluster.submit(folders) == ["70_0", "71", "72_0", "70_1", "72_1"]
    ldm, pca, others = ((tmp_path / "submitted" / n).read_text() for n in "012")
    for script, inputs in (
        (ldm, ("partition=gpu", "mem=64G", "cpus-per-task=16", "time=240", "array=0-1%2")),
        (pca, ("partition=gpu", "mem=2G", "cpus-per-task=4", "time=5")),
        (others, ("partition=gpu", "mem=2G", "cpus-per-task=4", "time=240", "array=0-1%2")),
    ):
        assert all(f"#SBATCH --{option}\n" in script for option in inputs)
    where = ExecutorSelection("slurm", slurm=["gpus=1", "anodpm.mem=8G"])
    with pytest.raises(
        ValueError, match=r"no experiment of this run is of a method 'anodpm'; .*walker"
    ):
        where.create_executor(
            TrainingContext(), small_experiments(["walker"]), None, tmp_path, None
        )


def test_how_a_job_ended_is_what_squeue_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "7_0|RUNNING\\n7_1|NODE_FAIL\\n7_2|OUT_OF_MEMORY\\n7_3|REQUEUED\\n7_4|TIMEOUT\\n"
    commands(tmp_path, monkeypatch, squeue=f"printf '{message}'")
    cluster = SlurmCluster(None, "cpu", 1)
    tickets = [f"7_{i}" for i in range(6)]
    results = cluster.finished_jobs(tickets)
    assert set(results) == {"7_1", "7_2", "7_4"}
    assert results["7_1"] == Died(reason="its Slurm job 7_1 ended as NODE_FAIL", lost=True)
    assert results["7_2"].out_of_memory
    assert "not known" in cluster.finished_jobs(tickets)["7_5"].reason, "missed twice"
    commands(tmp_path, monkeypatch, squeue="exit 1")
    for _ in range(3):
        assert cluster.finished_jobs(tickets) == {}, "a controller that is away means nothing"


def test_options_that_do_not_go_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for more in (
        partial(ExecutorSelection, slurm=["a=b"]),
        partial(ExecutorSelection, detach=True),
    ):
        with pytest.raises(ValueError, match="wants --executor slurm, not local"):
            more("local")
    with pytest.raises(ValueError, match="--address wants --executor ray"):
        ExecutorSelection("slurm", "auto")
    assert (
        ExecutorSelection("slurm", slurm=["gpus=1"]).device_context("auto", "auto").device == "cuda"
    )
    assert (
        ExecutorSelection("slurm", slurm=["mem=1G"]).device_context("auto", "auto").device == "cpu"
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="no sbatch here"):
        connect(tmp_path, [], "cpu", 0, 1)


def job_of(method: str) -> Job:
    """A job of a method; of preparing a dataset where it is empty."""
    (experiment,) = small_experiments(["walker"])
    if not method:
        return prepare_job([experiment], TrainingContext())
    experiment = replace(experiment, method=replace(experiment.method, name=method))
    return experiment_job(experiment, TrainingContext(), Store(Path("store")), Path("out"))


def commands(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Put commands of Slurm into the path."""
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    for name, script in {"srun": "exit 0", "sbatch": "exit 1", **scripts}.items():
        (place / name).write_text(f"#!/bin/sh\n{script}\n")
        (place / name).chmod(0o755)
    if str(place) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    "option",
    [
        "partition\ntouch /tmp/x=1",
        "partition\r=1",
        "par tition=1",
        "mem=2G\ntouch /tmp/x",
        "comment=a\x85b",
        "time=90\n",
        "job_name=a\x1b[2J",
        "walker.mem=2G\n",
        "walker.m\nem=2G",
    ],
)
def test_what_would_end_a_line_of_the_script_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    commands(tmp_path, monkeypatch)
    selection = ExecutorSelection("slurm", slurm=[option])
    with pytest.raises(ValueError, match=r"^--slurm [^\n\x1b]*not '[^\n\x1b]*'$"):
        selection.create_executor(
            TrainingContext(), small_experiments(["walker"]), None, tmp_path, None
        )
    assert not list(tmp_path.glob("**/*.sh"))


def test_a_folder_of_results_with_a_newline_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands(tmp_path, monkeypatch)
    selection = ExecutorSelection("slurm")
    with pytest.raises(ValueError, match=r"takes no control characters in --out, not '.*\\n"):
        selection.create_executor(
            TrainingContext(), small_experiments(["walker"]), None, tmp_path / "a\ntouch b", None
        )
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]
