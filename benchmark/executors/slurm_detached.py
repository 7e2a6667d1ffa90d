"""A run that nobody waits for: all experiments are submitted to Slurm, and each writes its record.

On its host an experiment is a run of one, under the local executor: it is retried, fails, is logged
and shown by `adbench status` as any other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from ..scheduling.events import Ended, Stopped
from ..scheduling.exit_codes import STOPPED
from ..store.atomic_files import atomic_write
from .fork_server import ForkServer
from .job_folder import JOB, TICKET, Last

if TYPE_CHECKING:
    from ...engine.runtime.context import TrainingContext
    from ..experiments.matrix import Experiment
    from ..scheduling.job import Job
    from ..store.artifact_store import Store


class DetachedCluster(Protocol):
    """What a cluster offers to a run that nobody waits for.

    device: of its experiments

    >>> from adbench.benchmark.executors.slurm_backend import SlurmCluster
    >>> cluster: DetachedCluster = SlurmCluster(None, "cpu", threads=4)
    >>> cluster.device
    'cpu'
    """

    device: str

    def threads(self, job: Job) -> int:
        """How many threads a job may use."""
        ...

    def submit(
        self, folders: Sequence[Path], *, alone: bool = False, after: str | None = None
    ) -> list[str]:
        """Submit job folders and return a ticket for each. after: a ticket to wait for"""
        ...


def submit_detached(
    experiments: Sequence[Experiment],
    context: TrainingContext,
    store: Store,
    out: Path,
    cluster: DetachedCluster,
    *,
    loggers: Sequence[str] = (),
    timeout: float | None = None,
) -> str:
    """Submit, for every dataset, a job that prepares it, and an array of its experiments.

    Returns what the user sees: the numbers of the jobs, and the commands that follow them.

    timeout: seconds an experiment may take, None for any

    >>> import tempfile
    >>> from types import SimpleNamespace
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> experiments = example_experiments(shape=(16,), limit=4)
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> cluster = SimpleNamespace(
    ...     device="cpu", threads=lambda job: 1, submit=lambda folders, **options: ["17_0"]
    ... )
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     out, store = Path(folder, "results"), Store(Path(folder, "store"))
    ...     text = submit_detached(experiments, TrainingContext(), store, out, cluster)
    ...     text.partition(";")[0], len(list(out.glob("slurm/*/job.json")))
    ('Slurm has 1 experiment (jobs 17)', 2)
    """
    from ..scheduling.executor import group_by_dataset
    from ..scheduling.job import experiment_job, prepare_job

    folder, tickets = out.absolute() / "slurm", []
    for _, group in group_by_dataset(experiments):
        first = _write_job_folder(folder, prepare_job(group, context), cluster)
        tickets += (preparation := _submit_folders([first], cluster))
        jobs = [
            replace(experiment_job(each, context, store, out, loggers), timeout=timeout)
            for each in group
        ]
        folders = [_write_job_folder(folder, job, cluster) for job in jobs]
        tickets += _submit_folders(folders, cluster, alone=True, after=preparation[0])
    ids = ", ".join(dict.fromkeys(ticket.partition("_")[0] for ticket in tickets))
    return (
        f"Slurm has {len(experiments)} experiment{'s' * (len(experiments) != 1)} (jobs {ids}); "
        "how they do: "
        f"adbench status --out {out}; what there is: adbench report --out {out}; "
        "the same command without --detach waits for them, and does what they left"
    )


def run_detached(
    folder: Path,
    stop_requested: Callable[[], bool] = bool,
    create_fork_server: Callable[[], ForkServer] | None = None,
) -> Last | None:
    """Run the experiment of a folder without a driver, and write its record.

    Returns None once that is done, or where the folder holds no job any more, and the last event
    where the experiment was stopped.

    stop_requested: whether to stop
    create_fork_server: what makes the fork server; None for ForkServer itself

    >>> run_detached(Path("/no/such/folder")) is None
    True
    """
    if not (folder / JOB).exists():
        return None
    fork_server = (create_fork_server or ForkServer)()  # it imports while this process does
    from rich.console import Console

    from ..scheduling.console import ConsoleReporter
    from ..scheduling.job import Job
    from ..scheduling.scheduler import Scheduler
    from ..store.artifact_store import Store
    from .local import DeviceSlot, LocalExecutor

    job = Job.from_json((folder / JOB).read_bytes())
    slot = DeviceSlot(job.context.device, job.threads)
    scheduler = Scheduler(
        job.experiments,
        job.context.training_context(),
        Store(Path(job.store)),
        Path(job.out),
        ConsoleReporter(Console(stderr=True, width=200)),
        LocalExecutor([slot], fork_server=fork_server),
        job.loggers,
        timeout=job.timeout,
    )
    if scheduler.run(stop_requested) == STOPPED:
        return Ended(Stopped())
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _write_job_folder(folder: Path, job: Job, cluster: DetachedCluster) -> Path:
    context = replace(job.context, device=cluster.device)
    job_folder = folder / uuid4().hex[:12]
    job = replace(job, threads=cluster.threads(job), context=context)
    atomic_write(job_folder / JOB, job.to_json())
    return job_folder


def _submit_folders(folders: Sequence[Path], cluster: DetachedCluster, **options: Any) -> list[str]:
    tickets = cluster.submit(folders, **options)
    for folder, ticket in zip(folders, tickets, strict=True):
        atomic_write(folder / TICKET, ticket)
    return tickets
