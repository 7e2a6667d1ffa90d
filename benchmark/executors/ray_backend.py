"""Jobs as tasks of a Ray cluster: Ray finds a host, and says when a process or a host is lost.

No artifact and no event goes through Ray: a task receives the name of a folder (job_folder.py), and
Ray retries nothing, so that every attempt is recorded.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..scheduling.events import Died
from ..scheduling.printable import error_reason
from .job_folder import run_job_folder, write_last_event

if TYPE_CHECKING:
    from ..scheduling.job import Job

MISSING = "executor 'ray' needs ray: pip install 'diffusion-adbench[ray]'"


def ray_task(folder: str) -> None:
    """Run the job of a folder, and write its last event there: what Ray runs on the other host.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("job.json", "stop"):
    ...         Path(folder, name).touch()
    ...     ray_task(folder)
    ...     print(Path(folder, "last.json").read_text().strip())
    {"kind": "ended", "outcome": {"end": "stopped", "reason": ""}}
    """
    # Ray's workers block it, as would every process below, which are asked to stop by it.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    if (last := run_job_folder(Path(folder))) is not None:
        write_last_event(Path(folder), last)


class RayCluster:
    """A Cluster (cluster.py) of Ray.

    ray: the module, connected
    cpus, gpus: of each job

    >>> from types import SimpleNamespace
    >>> task = SimpleNamespace(remote=lambda folder: f"task of {folder}")
    >>> ray = SimpleNamespace(  # which never finishes
    ...     remote=lambda **options: lambda function: SimpleNamespace(options=lambda **more: task),
    ...     wait=lambda tasks, num_returns, timeout: ([], tasks),
    ... )
    >>> cluster = RayCluster(ray, "cpu", cpus=4, gpus=0)
    >>> tickets = cluster.submit([Path("jobs/phantom.dae")])
    >>> tickets, cluster.finished_jobs(tickets)
    (['jobs/phantom.dae'], {})
    """

    settle = 10.0

    def __init__(self, ray: Any, device: str, cpus: int, gpus: int) -> None:
        self._ray, self.device, self._cpus = ray, device, cpus
        # One process per job, which frees the GPU's memory and whatever a plugin left behind.
        begin = ray.remote(max_retries=0, max_calls=1)(ray_task)
        self._begin = begin.options(num_cpus=cpus, num_gpus=gpus)
        self._tasks: dict[str, Any] = {}

    def submit(self, folders: Sequence[Path]) -> list[str]:
        tickets = [str(folder) for folder in folders]
        self._tasks |= {ticket: self._begin.remote(ticket) for ticket in tickets}
        return tickets

    def threads(self, job: Job) -> int:
        return self._cpus

    def finished_jobs(self, tickets: Iterable[str]) -> Mapping[str, Died]:
        tasks = {self._tasks[ticket]: ticket for ticket in tickets if ticket in self._tasks}
        if not tasks:
            return {}
        done, _ = self._ray.wait(list(tasks), num_returns=len(tasks), timeout=0)
        return {tasks[each]: self._death(self._tasks.pop(tasks[each])) for each in done}

    def request_stop(self, ticket: str) -> None:
        """Cancel a job that waits for a host; one that has a host sees the file `stop`, or is
        interrupted as by Ctrl-C, which means the same."""
        self._cancel(ticket, force=False)

    def kill(self, ticket: str) -> None:
        self._cancel(ticket, force=True)

    def forget(self, ticket: str) -> None:
        """Ray wrote nothing."""

    def close(self) -> None:
        self._ray.shutdown()

    def _cancel(self, ticket: str, *, force: bool) -> None:
        if ticket in self._tasks:
            self._ray.cancel(self._tasks[ticket], force=force)

    def _death(self, done: Any) -> Died:
        """How a task ended, should its folder not say so."""
        errors = self._ray.exceptions
        try:
            self._ray.get(done)
        except errors.RayTaskError as error:  # of this module: adbench is not there, or a bug
            cause = getattr(error, "cause", None) or error
            reason = error_reason(cause, name_type=False)
            return Died(code=1, reason=f"its Ray task failed: {reason}")
        except errors.OutOfMemoryError:
            reason = "killed by Ray: its host has not enough memory"
            return Died(reason=reason, out_of_memory=True)
        except (errors.NodeDiedError, errors.LocalRayletDiedError):
            return Died(reason="its host was lost", lost=True)
        except errors.WorkerCrashedError:
            return Died(reason="its Ray worker died, or its host was lost", lost=True)
        except errors.TaskCancelledError:
            return Died(reason="cancelled", lost=True)
        except errors.RayError as error:
            reason = error_reason(error, name_type=False)
            return Died(reason=f"Ray lost it: {reason}", lost=True)
        return Died(reason="its Ray task ended without a word", lost=True)


def connect(address: str | None) -> Any:
    """Return the module ray, connected to a cluster.

    address: auto, or host:port; None for a cluster of this machine, while this process lives

    Raises ValueError where there is none, or Ray is not installed.

    >>> from unittest.mock import patch
    >>> with patch("adbench.benchmark.executors.ray_backend.find_spec", return_value=None):
    ...     connect(None)
    Traceback (most recent call last):
    ValueError: executor 'ray' needs ray: pip install 'diffusion-adbench[ray]'
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if find_spec("ray") is None:
        raise ValueError(MISSING)
    ray: Any = import_module("ray")  # not known where this is checked
    here = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="error", **here)
    except (ConnectionError, ValueError, RuntimeError) as error:
        problem = f"no Ray cluster at {address}" if address else "Ray does not start here"
        hint = "ray status says how it is; one with tokens wants RAY_AUTH_MODE=token here, too"
        cause = error_reason(error, name_type=False)
        raise ValueError(f"{problem}: {cause} ({hint})") from error
    return ray


def slot_resources(
    nodes: Sequence[Mapping[str, float]], slots: int | None, *, gpu: bool
) -> tuple[int, int, int]:
    """Return how many jobs run at a time, and the CPUs and GPUs of each.

    There is one job per GPU, or one per host on the CPU; or as many as `slots` says, which then
    share the CPUs.

    nodes: the resources of every host that lives

    Raises ValueError where no host has what is needed.

    >>> from adbench.benchmark.executors.ray_backend import slot_resources
    >>> slot_resources([{"CPU": 8}, {"CPU": 4}], None, gpu=False)
    (2, 4, 0)
    """
    kind = "GPU" if gpu else "CPU"
    able = [node for node in nodes if node.get(kind, 0) >= 1]
    if not able:
        raise ValueError(f"no host of the Ray cluster has a {kind}{' (--device cpu)' * gpu}")
    if gpu:
        each = min(int(node.get("CPU", 0) // node["GPU"]) for node in able)
        count = sum(int(node["GPU"]) for node in able)
        return slots or count, max(1, each), 1
    count = slots or len(able)
    most = int(max(node["CPU"] for node in able))
    fitting = (k for k in range(most, 0, -1) if sum(node["CPU"] // k for node in able) >= count)
    return count, next(fitting, 1), 0


def node_resources(ray: Any) -> list[dict[str, float]]:
    """Return the resources of every host that lives.

    ray: the module, connected

    >>> from types import SimpleNamespace
    >>> hosts = [{"Alive": True, "Resources": {"CPU": 8.0}}, {"Alive": False, "Resources": {}}]
    >>> node_resources(SimpleNamespace(nodes=lambda: hosts))
    [{'CPU': 8.0}]
    """
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
