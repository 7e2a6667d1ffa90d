"""Jobs of Slurm, submitted as arrays through submitit, one for each kind of resources.

submitit pickles what it submits into a folder of ours, and reads it back on the other host; here
nothing of that is read, only the folder of each job (job_folder.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..scheduling.events import Died, Ended, Stopped
from ..scheduling.printable import error_reason
from .fork_server import ForkServer
from .job_folder import JOB, STOP, run_job_folder, write_last_event
from .slurm_options import CONTROL_PATTERN, DEFAULTS, options_by_method, parse_options

if TYPE_CHECKING:
    from ..scheduling.job import Job

REQUEUES = 100
"""Times that a job is requeued at its time limit."""

DEFAULT_SLOTS = 256
"""Jobs that are submitted at a time, if the user does not say."""

MAX_ARRAY_SIZE = 1000
"""Jobs in an array, as Slurm's usual MaxArraySize has it."""

MISSING = "executor 'slurm' needs submitit: pip install 'diffusion-adbench[slurm]'"

ACTIVE_STATES = (
    *("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUED", "RESIZING"),
    *("REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "STOPPED", "SIGNALING", "STAGE_OUT"),
)
"""States of a job that may run, or run again."""


class SlurmTask:
    """What submitit runs on the other host: the job of a folder. At a time limit and when it is
    preempted, the job is stopped with everything kept, and requeued.

    alone: without a driver (slurm_detached.py)

    >>> requeued = SlurmTask(alone=True).checkpoint("jobs/phantom.dae")
    >>> requeued.function.alone, requeued.args
    (True, ('jobs/phantom.dae',))
    """

    def __init__(self, *, alone: bool = False) -> None:
        self.alone = alone

    def __call__(self, folder: str) -> None:
        from .slurm_detached import run_detached

        path, limit = Path(folder), _time_limit_signal()
        requeue = signal.getsignal(limit)
        received: set[int] = set()

        def on_signal(number: int, frame: FrameType | None) -> None:
            received.add(number)

        for number in (limit, signal.SIGTERM):
            signal.signal(number, on_signal)
        last = (run_detached if self.alone else run_job_folder)(
            path, lambda: bool(received), ShieldedForkServer
        )
        if last is None:
            return
        is_stopped = isinstance(last, Ended) and isinstance(last.outcome, Stopped)
        if is_stopped and received == {limit} and callable(requeue) and not (path / STOP).exists():
            try:
                requeue(limit, None)  # and exits
            except Exception as error:
                cause = error_reason(error, name_type=False)
                last = Died(reason=f"not requeued at its time limit: {cause}", lost=True)
        write_last_event(path, last)

    def checkpoint(self, folder: str) -> Any:
        """Return what a requeued job runs: the same, which goes on from what is kept."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder)


class ShieldedForkServer(ForkServer):
    """A fork server that ignores the signal of a time limit, as its children do: Slurm sends it to
    every process of a job, and the job's own process handles it.

    >>> from unittest.mock import patch
    >>> def started(self):
    ...     print(signal.getsignal(_time_limit_signal()).name)
    >>> with patch.object(ForkServer, "__init__", started):
    ...     server = ShieldedForkServer()
    SIG_IGN
    """

    def __init__(self) -> None:
        before = signal.signal(_time_limit_signal(), signal.SIG_IGN)  # which a new process inherits
        try:
            super().__init__()
        finally:
            signal.signal(_time_limit_signal(), before)


def _time_limit_signal() -> int:
    """The signal that submitit has Slurm send before a time limit, and when it preempts."""
    import submitit

    return getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")


class SlurmCluster:
    """A Cluster (cluster.py) of Slurm.

    executor: of submitit, with its parameters
    threads: CPUs of a job
    by_method: for methods with other resources, their executor and CPUs

    >>> from types import SimpleNamespace
    >>> cluster = SlurmCluster(None, "cuda", threads=4, by_method={"ldm": (None, 8)})
    >>> [cluster.threads(SimpleNamespace(method=method)) for method in ("dae", "ldm")]
    [4, 8]
    """

    settle = 20.0

    def __init__(
        self,
        executor: Any,
        device: str,
        threads: int,
        by_method: Mapping[str, tuple[Any, int]] | None = None,
    ) -> None:
        self._executor, self.device, self._threads = executor, device, threads
        self._by_method = by_method or {}
        self._missed: set[str] = set()
        self._done: set[str] = set()

    def submit(
        self, folders: Sequence[Path], *, alone: bool = False, after: str | None = None
    ) -> list[str]:
        """Submit the jobs of folders, and return a ticket for each.

        alone: without a driver        after: a ticket, whose job ends before these begin
        """
        arrays: dict[str, list[int]] = defaultdict(list)
        for i, folder in enumerate(folders):
            method = _read_method(folder) if self._by_method else ""
            arrays[method if method in self._by_method else ""].append(i)
        tickets: dict[int, str] = {}
        for method, indices in arrays.items():
            executor = self._by_method[method][0] if method else self._executor
            array = [folders[i] for i in indices]
            ids = _submit_array(executor, array, SlurmTask(alone=alone), after)
            tickets |= zip(indices, ids, strict=True)
        return [tickets[i] for i in range(len(folders))]

    def threads(self, job: Job) -> int:
        return self._by_method.get(job.method, (None, self._threads))[1]

    def finished_jobs(self, tickets: Iterable[str]) -> Mapping[str, Died]:
        tickets = list(tickets)
        states = _query_states() if tickets else None
        if states is None:
            return {}
        missed = {ticket for ticket in tickets if ticket not in states}
        ends = {ticket: "is not known to Slurm any more" for ticket in missed & self._missed}
        self._missed = missed - set(ends)
        for ticket in set(tickets) - missed:
            if states[ticket] not in ACTIVE_STATES:
                ends[ticket] = f"ended as {states[ticket]}"
        return {
            ticket: Died(
                reason=f"its Slurm job {ticket} {end}",
                out_of_memory=end.endswith("OUT_OF_MEMORY"),
                lost=True,
            )
            for ticket, end in ends.items()
        }

    def request_stop(self, ticket: str) -> None:
        _scancel("--state=PENDING", ticket)
        _scancel("--signal=TERM", ticket)

    def kill(self, ticket: str) -> None:
        _scancel(ticket)

    def forget(self, ticket: str) -> None:
        self._done.add(ticket)

    def close(self) -> None:
        """Remove the files that submitit wrote of the jobs that ended well."""
        folder: Path = self._executor.folder
        names = {f"{ticket}_*" for ticket in self._done}
        names |= {f"{ticket.partition('_')[0]}_submission.sh" for ticket in self._done}
        for path in (path for name in names for path in folder.glob(name)):
            path.unlink(missing_ok=True)
        for link in folder.glob(".submission_file_*"):
            if not link.exists():  # what it led to is gone
                link.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()


def connect(
    folder: Path, options: Sequence[str], device: str, gpus: int, at_once: int | None
) -> SlurmCluster:
    """Return the Slurm of this host.

    folder: of submitit's files
    options: KEY=VALUE or METHOD.KEY=VALUE each
    gpus: of each job, where the options do not say
    at_once: jobs of an array that may run at a time, where the options do not say

    Raises ValueError on options and paths that no script for sbatch can hold, and where there is no
    Slurm, or no submitit.

    >>> connect(Path("a\\tb"), ["partition=gpu"], "cuda", gpus=1, at_once=None)
    Traceback (most recent call last):
    ValueError: --executor slurm takes no control characters in --out, not '...a\\tb'
    """
    if CONTROL_PATTERN.search(str(folder.absolute())):
        path = str(folder.absolute())
        raise ValueError(f"--executor slurm takes no control characters in --out, not {path!r}")
    shared = DEFAULTS | ({"gpus_per_node": gpus} if gpus else {})
    if at_once is not None:
        shared |= {"array_parallelism": at_once}
    by_method = options_by_method(options)
    common = by_method.pop("", [])
    if shutil.which("sbatch") is None:
        raise ValueError("--executor slurm: no sbatch here (run this where jobs are submitted)")
    if find_spec("submitit") is None:
        raise ValueError(MISSING)
    import submitit

    def create_executor(options: Sequence[str]) -> tuple[Any, int]:
        parameters = shared | parse_options(options)
        try:
            executor = submitit.SlurmExecutor(
                folder.absolute() / "submitit", max_num_timeout=REQUEUES
            )
            executor.update_parameters(**parameters)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"--slurm: {_submission_error(error)}") from error
        return executor, parameters["cpus_per_task"]

    own = {method: create_executor([*common, *some]) for method, some in by_method.items()}
    executor, threads = create_executor(common)
    return SlurmCluster(executor, "cuda" if device.startswith("cuda") else device, threads, own)


def _read_method(folder: Path) -> str:
    """The method of a folder's job; empty where it prepares a dataset."""
    from ..scheduling.job import Job

    return Job.from_json((folder / JOB).read_bytes()).method


def _submit_array(
    executor: Any, folders: Sequence[Path], task: SlurmTask, after: str | None
) -> list[str]:
    """Submit the jobs of folders as arrays, and return a ticket for each, in their order."""
    if after is not None:
        executor.update_parameters(dependency=f"afterany:{after}")
    tickets: list[str] = []
    try:
        for k in range(0, len(folders), MAX_ARRAY_SIZE):
            array = [str(folder) for folder in folders[k : k + MAX_ARRAY_SIZE]]
            tickets += [job.job_id for job in executor.map_array(task, array)]
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise ValueError(f"Slurm did not take the jobs: {_submission_error(error)}") from error
    finally:
        if after is not None:
            executor.update_parameters(dependency=None)
    return tickets


def _query_states() -> dict[str, str] | None:
    """The state of every job of this user, also of those that ended lately; None where Slurm does
    not answer, which means nothing."""
    command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T"]
    try:
        answer = subprocess.run(
            [*command, f"--user={os.getuid()}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.strip().partition("|") for line in answer.stdout.splitlines())
    return {ticket: state for ticket, _, state in pairs}


def _scancel(*words: str) -> None:
    try:
        subprocess.run(["scancel", "--quiet", *words], capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return  # the file `stop` says the same


def _submission_error(error: BaseException) -> str:
    """The line in which sbatch says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("sbatch: error")] or lines
    return " ".join(errors[:2]).replace("sbatch: error: ", "") or type(error).__name__
