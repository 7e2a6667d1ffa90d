"""Cells as jobs of Slurm, handed in as arrays through submitit, one for each kind of resources.

submitit pickles what it submits into a folder of ours, and reads it back on the other host; here
nothing of that is read, only the folder of each job (errand.py).
"""

from __future__ import annotations

import json
import os
import re
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

from .fork_server import ForkServer
from .job_folder import JOB, STOP, run_job_folder, write_last_event

if TYPE_CHECKING:
    from ..scheduling.job import Job

DEFAULTS: dict[str, Any] = {"time": 240, "cpus_per_task": 4, "job_name": "adbench"}
"""time: minutes, after which a job is requeued and goes on"""

SUBMITIT_NAMES = (
    "cpus_per_task",
    "gpus_per_node",
    "job_name",
    "array_parallelism",
    "signal_delay_s",
)
"""Options that submitit wants to know; cpus and gpus are short for two of them."""

REQUEUES = 100
"""Times that a job may run into its time limit."""

DEFAULT_SLOTS = 256
"""Cells that are handed in at a time, if the user does not say."""

MAX_ARRAY_SIZE = 1000
"""Jobs in an array, as Slurm's usual MaxArraySize has it."""

MISSING = "executor 'slurm' needs submitit: pip install 'diffusion-adbench[slurm]'"

ACTIVE_STATES = (
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "CONFIGURING",
    "COMPLETING",
    "REQUEUED",
    "RESIZING",
)
ACTIVE_STATES += (
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
)
"""States of a job that may run, or run again."""

DURATION_PATTERN = re.compile(r"(?:(?P<d>\d+)-)?(?P<a>\d+)(?::(?P<b>\d+))?(?::(?P<c>\d+))?")


class SlurmTask:
    """What submitit runs on the other host: the job of a folder. At a time limit and when it is
    preempted, the job is stopped with everything kept, and requeued.

    alone: without a driver (detach.py)
    """

    def __init__(self, *, alone: bool = False) -> None:
        self.alone = alone

    def __call__(self, folder: str) -> None:
        from .slurm_detached import run_detached

        place, limit = Path(folder), _block_time_limit_signal()
        theirs = signal.getsignal(limit)
        asked: set[int] = set()

        def ask(number: int, frame: FrameType | None) -> None:
            asked.add(number)

        for number in (limit, signal.SIGTERM):
            signal.signal(number, ask)
        last = (run_detached if self.alone else run_job_folder)(
            place, lambda: bool(asked), ShieldedForkServer
        )
        if last is None:
            return
        stopped = last[0] == "ended" and last[1]["end"] == "stopped"
        if stopped and asked == {limit} and callable(theirs) and not (place / STOP).exists():
            try:
                theirs(limit, None)  # requeues, and exits
            except Exception as error:
                last = "died", {"said": f"not requeued at its time limit: {error}", "lost": True}
        write_last_event(place, last)

    def checkpoint(self, folder: str) -> Any:
        """What a requeued job runs: the same; it goes on from what is kept."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder)


class ShieldedForkServer(ForkServer):
    """Slurm sends the signal of a time limit to every process of a job; these leave it to the one
    that knows what it means."""

    def __init__(self) -> None:
        before = signal.signal(
            _block_time_limit_signal(), signal.SIG_IGN
        )  # which a new process inherits
        try:
            super().__init__()
        finally:
            signal.signal(_block_time_limit_signal(), before)


def _block_time_limit_signal() -> int:
    """The signal that submitit has Slurm send before a time limit, and when it preempts."""
    import submitit

    return getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")


class SlurmCluster:
    """A Cluster (remote.py). executor: of submitit, set up. own: by method, where its cells are
    given other resources, an executor and the CPUs of a job"""

    settle = 20.0

    def __init__(
        self,
        executor: Any,
        device: str,
        threads: int,
        own: Mapping[str, tuple[Any, int]] | None = None,
    ) -> None:
        self._executor, self.device, self._threads = executor, device, threads
        self._own = own or {}
        self._missed: set[str] = set()
        self._done: set[str] = set()

    def submit(
        self, folders: Sequence[Path], *, alone: bool = False, after: str | None = None
    ) -> list[str]:
        """alone: without a driver. after: a ticket, whose job ends before these begin"""
        arrays: dict[str, list[int]] = defaultdict(list)
        for i, folder in enumerate(folders):
            method = method_of(json.loads((folder / JOB).read_bytes())) if self._own else ""
            arrays[method if method in self._own else ""].append(i)
        found: dict[int, str] = {}
        for method, some in arrays.items():
            executor = self._own[method][0] if method else self._executor
            tickets = _submit_array(
                executor, [folders[i] for i in some], SlurmTask(alone=alone), after
            )
            found |= zip(some, tickets, strict=True)
        return [found[i] for i in range(len(folders))]

    def threads(self, job: Job) -> int:
        return self._own.get(method_of(job), (None, self._threads))[1]

    def finished_jobs(self, tickets: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        tickets = list(tickets)
        states = _query_states() if tickets else None
        if states is None:
            return {}
        missed = {ticket for ticket in tickets if ticket not in states}
        gone = {ticket: "is not known to Slurm any more" for ticket in missed & self._missed}
        self._missed = missed - set(gone)
        for ticket in set(tickets) - missed:
            if states[ticket] not in ACTIVE_STATES:
                gone[ticket] = f"ended as {states[ticket]}"
        return {ticket: _death_facts(ticket, said) for ticket, said in gone.items()}

    def request_stop(self, ticket: str) -> None:
        _scancel("--state=PENDING", ticket)
        _scancel("--signal=TERM", ticket)

    def kill(self, ticket: str) -> None:
        _scancel(ticket)

    def forget(self, ticket: str) -> None:
        self._done.add(ticket)

    def close(self) -> None:
        """Slurm goes on without us; what submitit wrote of the jobs that ended well goes."""
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
    folder: Path, told: Sequence[str], device: str, gpus: int, at_once: int | None
) -> SlurmCluster:
    """Slurm as this host has it. told: KEY=VALUE each. gpus: of each job, if these do not say.

    at_once: jobs of an array that may run at a time, if these do not say. Raises ValueError where
    there is no Slurm, or no submitit.
    """
    shared = DEFAULTS | ({"gpus_per_node": gpus} if gpus else {})
    if at_once is not None:
        shared |= {"array_parallelism": at_once}
    wishes = options_by_method(told)
    for_all = wishes.pop("", [])
    if shutil.which("sbatch") is None:
        raise ValueError("--executor slurm: no sbatch here (run this where jobs are submitted)")
    if find_spec("submitit") is None:
        raise ValueError(MISSING)
    import submitit

    def executor(wishes: Sequence[str]) -> tuple[Any, int]:
        wished = shared | parse_options(wishes)
        made = submitit.SlurmExecutor(folder.absolute() / "submitit", max_num_timeout=REQUEUES)
        try:
            made.update_parameters(**wished)
        except (TypeError, ValueError) as error:
            raise ValueError(f"--slurm: {_submission_error(error)}") from error
        return made, wished["cpus_per_task"]

    own = {method: executor([*for_all, *wish]) for method, wish in wishes.items()}
    made, threads = executor(for_all)
    return SlurmCluster(made, "cuda" if device.startswith("cuda") else device, threads, own)


def options_by_method(told: Sequence[str]) -> dict[str, list[str]]:
    """KEY=VALUE each, by the method that METHOD.KEY=VALUE is for; "" for what is for all."""
    found: dict[str, list[str]] = {}
    for part in _split_options(told):
        key, equals, value = part.partition("=")
        method, _, key = key.strip().rpartition(".")
        found.setdefault(method, []).append(f"{key}{equals}{value}")
    return found


def _split_options(told: Sequence[str]) -> list[str]:
    return [part for text in told for part in text.split(",") if part]


def method_of(job: Job) -> str:
    """Whose cell it is; empty for a dataset to make ready."""
    return job.get("experiment", {}).get("method", {}).get("name", "")


def _submit_array(
    executor: Any, folders: Sequence[Path], attend: SlurmTask, after: str | None
) -> list[str]:
    """A ticket for each, in their order."""
    if after is not None:
        executor.update_parameters(dependency=f"afterany:{after}")
    found: list[str] = []
    try:
        for k in range(0, len(folders), MAX_ARRAY_SIZE):
            some = [str(folder) for folder in folders[k : k + MAX_ARRAY_SIZE]]
            found += [job.job_id for job in executor.map_array(attend, some)]
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise ValueError(f"Slurm did not take the jobs: {_submission_error(error)}") from error
    finally:
        if after is not None:
            executor.update_parameters(dependency=None)
    return found


def parse_options(told: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE as submitit wants them; what it need not know goes to sbatch as it is.

    time: minutes, or as Slurm writes it. Raises ValueError on what is no KEY=VALUE.
    """
    found: dict[str, Any] = {}
    more: dict[str, Any] = {}
    for part in _split_options(told):
        key, equals, value = part.partition("=")
        key = key.strip().lstrip("-").replace("-", "_")
        if not equals or not key:
            raise ValueError(f"--slurm takes KEY=VALUE, such as partition=gpu,gpus=1, not {part!r}")
        key = {"gpus": "gpus_per_node", "cpus": "cpus_per_task"}.get(key, key)
        if key == "time":
            found[key] = parse_minutes(value)
        elif key in SUBMITIT_NAMES:
            found[key] = int(value) if value.isdigit() else value
        else:
            more[key.replace("_", "-")] = value
    return found | ({"additional_parameters": more} if more else {})


def parse_minutes(text: str) -> int:
    """Of "90", "90:00", "1:30:00" or "1-12", "1-12:30", rounded up, as sbatch reads them."""
    match = DURATION_PATTERN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"--slurm time is in minutes or as D-HH:MM:SS, not {text!r}")
    parts = [int(match[key] or 0) for key in "abc"]
    if match["d"] is not None:
        hours, mins, seconds = parts
        hours += 24 * int(match["d"])
    elif match["c"] is not None:
        hours, mins, seconds = parts
    else:
        hours, (mins, seconds, _) = 0, parts
    return 60 * hours + mins + (seconds > 0)


def _query_states() -> dict[str, str] | None:
    """The state of every job of this user, also of those that ended lately; None where Slurm does
    not answer, which means nothing."""
    asked = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T"]
    try:
        told = subprocess.run(
            [*asked, f"--user={os.getuid()}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    pairs = (line.strip().partition("|") for line in told.stdout.splitlines())
    return {ticket: state for ticket, _, state in pairs}


def _death_facts(ticket: str, said: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"said": f"its Slurm job {ticket} {said}", "lost": True}
    if said.endswith("OUT_OF_MEMORY"):
        facts["memory"] = True
    return facts


def _scancel(*words: str) -> None:
    try:
        subprocess.run(["scancel", "--quiet", *words], capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return  # the file `stop` says the same


def _submission_error(error: BaseException) -> str:
    """The line in which sbatch says why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("sbatch: error")] or lines
    return " ".join(told[:2]).replace("sbatch: error: ", "") or type(error).__name__
