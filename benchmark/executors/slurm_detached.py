"""A sweep that nobody waits for: Slurm is given every cell at once, and each keeps its own record.

On its host a cell is a sweep of one, under the local executor: it is retried, fails, is logged and
shown by `adbench status` as any other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from ..scheduling.exit_codes import STOPPED
from ..store.atomic_files import atomic_write
from .fork_server import Nursery
from .job_folder import JOB, TICKET, Last

if TYPE_CHECKING:
    from ...engine.runtime.context import TrainingContext
    from ..experiments.matrix import Experiment
    from ..scheduling.job import Job
    from ..store.artifact_store import Store
    from .slurm_backend import Slurm


def hand_in(
    cells: Sequence[Experiment],
    run: TrainingContext,
    store: Store,
    out: Path,
    cluster: Slurm,
    *,
    curves: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Give Slurm, for every dataset, a job that makes it ready, and an array of its cells. What to
    tell the user."""
    from ..scheduling.job import described, preparing
    from .launch import by_dataset

    folder, tickets = out.absolute() / "slurm", []
    for _, group in by_dataset(cells):
        first = _written(folder, preparing(group, run), cluster)
        tickets += (begun := _handed([first], cluster))
        told = [described(cell, run, store, out, curves) | {"timeout": timeout} for cell in group]
        places = [_written(folder, job, cluster) for job in told]
        tickets += _handed(places, cluster, alone=True, after=begun[0])
    ids = ", ".join(dict.fromkeys(ticket.partition("_")[0] for ticket in tickets))
    return (
        f"Slurm has {len(cells)} cell{'s' * (len(cells) != 1)} (jobs {ids}); how they do: "
        f"adbench status --out {out}; what there is: adbench report --out {out}; "
        "the same command without --detach waits for them, and does what they left"
    )


def alone(
    folder: Path, asked: Callable[[], bool] = bool, born: Callable[[], Nursery] | None = None
) -> Last | None:
    """Work on the cell of a folder without a driver, and keep its record; None once that is done.

    asked: whether to stop; then it is `ended` as stopped. born: the nursery to have
    """
    if not (folder / JOB).exists():
        return None
    nursery = (born or Nursery)()  # it imports while this process does
    from rich.console import Console

    from ..scheduling.console import Watch
    from ..scheduling.job import cell_of, run_of
    from ..scheduling.scheduler import Sweep
    from ..store.artifact_store import Store
    from .local import Local, Place

    job = json.loads((folder / JOB).read_bytes())
    local = Local([Place(job["run"]["device"], job["threads"])], nursery=nursery)
    curves = Path(job["curves"]) if job["curves"] else None
    sweep = Sweep(
        [cell_of(job["cell"])], run_of(job["run"]), Store(Path(job["store"])), Path(job["out"]),
        Watch(Console(stderr=True, width=200)), local, curves, timeout=job["timeout"],
    )  # fmt: skip
    if sweep.run(asked) == STOPPED:
        return "ended", {"end": "stopped", "said": ""}
    shutil.rmtree(folder, ignore_errors=True)
    return None


def _written(folder: Path, job: Job, cluster: Slurm) -> Path:
    run: dict[str, Any] = job["run"] | {"device": cluster.device}
    place = folder / uuid4().hex[:12]
    atomic_write(place / JOB, json.dumps(job | {"threads": cluster.threads(job), "run": run}))
    return place


def _handed(places: Sequence[Path], cluster: Slurm, **more: Any) -> list[str]:
    tickets = cluster.submit(places, **more)
    for place, ticket in zip(places, tickets, strict=True):
        atomic_write(place / TICKET, ticket)
    return tickets
