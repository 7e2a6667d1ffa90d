"""A sweep that nobody waits for: Slurm is given every cell at once, and each keeps its own record.

On its host a cell is a sweep of one, under the local executor: it is retried, fails, is logged and
shown by `adbench status` as any other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

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
    """What a cluster offers to a run that nobody waits for. device: of its experiments"""

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
    tensorboard_folder: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Give Slurm, for every dataset, a job that makes it ready, and an array of its cells. What to
    tell the user."""
    from ..scheduling.executor import group_by_dataset
    from ..scheduling.job import experiment_job, prepare_job

    folder, tickets = out.absolute() / "slurm", []
    for _, group in group_by_dataset(experiments):
        first = _write_job_folder(folder, prepare_job(group, context), cluster)
        tickets += (begun := _submit_folders([first], cluster))
        told = [
            experiment_job(cell, context, store, out, tensorboard_folder) | {"timeout": timeout}
            for cell in group
        ]
        places = [_write_job_folder(folder, job, cluster) for job in told]
        tickets += _submit_folders(places, cluster, alone=True, after=begun[0])
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
    """Work on the cell of a folder without a driver, and keep its record; None once that is done.

    stop_requested: whether to stop; then it is `ended` as stopped. create_fork_server: the nursery
    to have
    """
    if not (folder / JOB).exists():
        return None
    nursery = (create_fork_server or ForkServer)()  # it imports while this process does
    from rich.console import Console

    from ..scheduling.console import ConsoleReporter
    from ..scheduling.job import context_from_json, experiment_from_json
    from ..scheduling.scheduler import Scheduler
    from ..store.artifact_store import Store
    from .local import DeviceSlot, LocalExecutor

    job = json.loads((folder / JOB).read_bytes())
    local = LocalExecutor([DeviceSlot(job["run"]["device"], job["threads"])], fork_server=nursery)
    curves = Path(job["curves"]) if job["curves"] else None
    sweep = Scheduler(
        [experiment_from_json(job["experiment"])],
        context_from_json(job["run"]),
        Store(Path(job["store"])),
        Path(job["out"]),
        ConsoleReporter(Console(stderr=True, width=200)),
        local,
        curves,
        timeout=job["timeout"],
    )
    if sweep.run(stop_requested) == STOPPED:
        return "ended", {"end": "stopped", "said": ""}
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _write_job_folder(folder: Path, job: Job, cluster: DetachedCluster) -> Path:
    run: dict[str, Any] = job["run"] | {"device": cluster.device}
    place = folder / uuid4().hex[:12]
    atomic_write(place / JOB, json.dumps(job | {"threads": cluster.threads(job), "run": run}))
    return place


def _submit_folders(places: Sequence[Path], cluster: DetachedCluster, **more: Any) -> list[str]:
    tickets = cluster.submit(places, **more)
    for place, ticket in zip(places, tickets, strict=True):
        atomic_write(place / TICKET, ticket)
    return tickets
