"""The fork server: a process that has everything imported and forks a child per job, so that a job
costs no start of Python and leaves nothing behind.

The driver holds the other end of a socket. When that end closes, in whatever way the driver died,
every child is killed with all that it started; when this process dies, the kernel kills its
children. Messages are small JSON texts, with three open files where a job begins: the job, the
pipe that takes its events, the pipe that takes what it prints.

A child adopts whatever of its descendants loses its parent, also in a session of its own; when the
child ends, this process adopts them, and kills them.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import importlib
import json
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from time import sleep
from typing import Any, NoReturn

from .fork_server import MESSAGE_BYTES

HEARTBEAT_SECONDS = 1.0
"""Seconds between two signs of life of a child."""

PDEATHSIG = 1
"""prctl's number for: the signal to get when the parent dies."""

CHILD_SUBREAPER = 36
"""prctl's number for: adopt descendants that lose their parent."""


def serve(control: int, parent: int) -> None:
    """Answer requests until the driver is gone.

    control: descriptor of the socket
    parent: process number of the driver

    >>> import subprocess
    >>> from adbench.benchmark.executors.fork_server import SCRIPT
    >>> driver, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    >>> words = [str(control.fileno()), str(os.getpid()), *sys.path]
    >>> process = subprocess.Popen(
    ...     [sys.executable, "-P", "-c", SCRIPT, *words], pass_fds=[control.fileno()]
    ... )
    >>> control.close(), driver.close()
    (None, None)
    >>> process.wait()
    0
    """
    _die_with_parent(parent)  # at first: while it imports, it does not listen
    _adopt_orphans()
    driver = socket.socket(fileno=control)
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the driver decides
    children: dict[str, int] = {}
    try:
        while True:
            ready, _, _ = select.select([driver, woken], [], [])
            if woken in ready:
                with suppress(BlockingIOError):
                    os.read(woken, 4096)
                for name, status in _reap_children(children):
                    driver.send(json.dumps({"dead": name, "status": status}).encode())
            if driver in ready:
                data, files, _, _ = socket.recv_fds(driver, MESSAGE_BYTES, 3)
                if not data:
                    return
                _handle_request(json.loads(data), files, driver, children)
    except OSError as error:  # the driver is gone
        if error.errno not in (errno.EPIPE, errno.ECONNRESET):
            raise
    finally:
        for pid in children.values():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        _kill_orphans(())


def _handle_request(
    request: Mapping[str, Any], files: list[int], driver: socket.socket, children: dict[str, int]
) -> None:
    if "import" in request:
        for name in request["import"]:
            with suppress(Exception):  # whoever needs it will hear why
                _import(name)
    elif "signal" in request:
        if request["name"] in children:
            with suppress(ProcessLookupError):
                if request["group"]:
                    os.killpg(children[request["name"]], request["signal"])
                else:
                    os.kill(children[request["name"]], request["signal"])
    elif "start" in request:
        ctypes.CDLL(None).prctl(PDEATHSIG, 0)  # from now on there may be children to end first
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            death = {"dead": request["start"], "status": None, "reason": f"cannot start: {error}"}
            driver.send(json.dumps(death).encode())
            pid = -1
        if pid == 0:
            _run_child(parent, driver, *files)
        for file in files:
            os.close(file)
        if pid > 0:
            with suppress(OSError):  # the child does it too: whoever comes first
                os.setpgid(pid, pid)
            children[request["start"]] = pid
            driver.send(json.dumps({"born": request["start"], "pid": pid}).encode())


def _import(name: str) -> None:
    """See ForkServer.preload."""
    module, _, inner = name.partition(":")
    imported = importlib.import_module(module)
    if inner:
        from ..registry.code_fingerprint import loaded_code_digest

        named = getattr(imported, inner)
        loaded_code_digest(named) if isinstance(named, type) else named()


def _die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(1)


def _adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    ctypes.CDLL(None).prctl(CHILD_SUBREAPER, 1)


def _kill_orphans(workers: Collection[int]) -> None:
    """Kill all children but the workers, then those that are adopted from them, and so on."""
    while orphans := set(_own_children()) - set(workers):
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _own_children() -> Iterator[int]:
    for task in os.listdir("/proc/self/task"):
        with suppress(OSError), open(f"/proc/self/task/{task}/children") as file:
            yield from map(int, file.read().split())


def _reap_children(children: dict[str, int]) -> Iterator[tuple[str, int]]:
    """Children that ended, and how (negative: the signal). Processes they left behind are ended."""
    for name, pid in list(children.items()):
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            continue
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # before the number can be anybody else's
        _, status = os.waitpid(pid, 0)
        del children[name]
        _kill_orphans(children.values())
        yield name, os.waitstatus_to_exitcode(status)


def _run_child(parent: int, driver: socket.socket, job: int, events: int, output: int) -> NoReturn:
    """Run one job in a child, and end it."""
    code = 1
    try:
        os.setpgid(0, 0)
        _die_with_parent(parent)
        _adopt_orphans()
        driver.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with open(os.devnull) as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        faulthandler.enable(file=2)  # where it was when it crashed, in the log
        with os.fdopen(job, "rb") as file:
            _run_job(file.read(), events)
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run_job(job: bytes, events: int) -> None:
    from ..scheduling.events import Ended, Event, Heartbeat, format_event, progress_event
    from ..scheduling.job import Job
    from ..scheduling.worker import run_job

    parsed = Job.from_json(job)
    device = parsed.context.device if parsed.context.device.startswith("cuda") else "cuda"
    pid, stopping, lock = os.getpid(), False, Lock()

    def request_stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    def stop() -> bool:
        if os.getpid() != pid:  # a plugin forked: only one of them goes on
            os._exit(0)
        return stopping

    def send(event: Event) -> None:
        stop()
        data = format_event(event)
        with lock:
            while data:
                data = data[os.write(events, data) :]

    def log(event: str, facts: Mapping[str, Any]) -> None:
        send(progress_event(event, facts))

    def send_heartbeats() -> None:
        while True:
            with suppress(OSError):
                send(Heartbeat(*memory_usage(device)))
            sleep(HEARTBEAT_SECONDS)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    Thread(target=send_heartbeats, daemon=True).start()
    with _forward_warnings(log):
        outcome = run_job(parsed, log, stop)
    send(Ended(outcome))


def memory_usage(device: str = "cuda") -> tuple[float, float | None]:
    """Return the memory of this process in MB, and that of its GPU; None if it uses none.

    device: of the job; "cuda" is the current device of the calling thread

    >>> from adbench.benchmark.executors.fork_server_main import memory_usage
    >>> memory_usage()[0] > 1
    True
    """
    with open("/proc/self/statm") as file:
        memory = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return memory, None
    return memory, torch.cuda.max_memory_reserved(device) / 1e6


@contextmanager
def _forward_warnings(log: Callable[[str, Mapping[str, Any]], None]) -> Iterator[None]:
    """Send warnings that are for users to the driver; print the others, which go to the log."""
    with warnings.catch_warnings():
        plain = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, UserWarning):
                log("note", {"text": str(message)})
            else:
                plain(message, category, *where)

        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield
