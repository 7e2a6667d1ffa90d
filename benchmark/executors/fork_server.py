"""The fork server as its driver sees it: a process of which the processes of jobs are forked
(fork_server_main.py is what runs in it).

Importing what a job needs takes seconds, so it is started before a driver reads its registry, and
imports while the driver does. Nothing heavy is imported here.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

MESSAGE_BYTES = 65536
"""Bytes of a message at most."""

SCRIPT = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from adbench.benchmark.executors.fork_server_main import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2]))"
)
"""What python -P -c runs: modules are found where the driver finds them, and before that path is
set nothing is imported that a file in the working folder could stand for."""

MARKER = "ADBENCH_FORK_SERVER"
"""The environment variable, of a value of its own, by which descendants of a server are known."""

PRELOAD = (
    "adbench.benchmark.scheduling.worker",
    "adbench.benchmark.experiments.cache_keys:evaluation_code",
    # what a job imports while it works: once here is seconds less in every job
    *("filelock", "scipy.ndimage", "PIL.PngImagePlugin", "torch.utils.flop_counter"),
    "torch._dynamo",
)


class ForkServer:
    """The fork server of a driver, started when constructed.

    It ends, and all its children with it, when it is closed or its driver dies.

    control: the socket on which it gets messages

    >>> server = object.__new__(ForkServer)  # without its process
    >>> server.control, process = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    >>> server.preload(["json"])
    >>> process.recv(MESSAGE_BYTES)
    b'{"import": ["json"]}'
    >>> _ = process.send(b'{"born": "phantom.dae.s0", "pid": 7}')
    >>> server.receive()
    {'born': 'phantom.dae.s0', 'pid': 7}
    >>> process.close(), server.receive(), server.control.close()
    (None, None, None)
    """

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = [folder or os.getcwd() for folder in sys.path]
        # torch then counts GPUs without starting their driver, which would survive no fork
        self._mark = uuid4().hex
        env = os.environ | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1", MARKER: self._mark}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", SCRIPT, str(theirs.fileno()), str(os.getpid()), *path],
            pass_fds=[theirs.fileno()],
            process_group=0,  # a terminal's Ctrl-C is for the driver
            env=env,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        self.preload(PRELOAD)

    def preload(self, names: Iterable[str]) -> None:
        """Import modules before children are forked. "module:Class" also takes the digest of the
        class's code, once for all children, so that it is of what they have loaded;
        "module:function" also calls the function."""
        self.send({"import": list(names)})

    def send(self, message: Mapping[str, Any], files: Iterable[int] = ()) -> None:
        """Send a message with open files. A server that is gone is noticed by `receive`."""
        with suppress(OSError):
            socket.send_fds(self.control, [json.dumps(message).encode()], list(files))

    def receive(self) -> dict[str, Any] | None:
        """Return the next message of the server; None once it is gone."""
        try:
            data = self.control.recv(MESSAGE_BYTES)
        except OSError:
            return None
        return json.loads(data) if data else None

    def close(self) -> None:
        """End the server and all its descendants."""
        self.control.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # it imports: then it has no children yet
            self._process.kill()
            self._process.wait()
        _kill_marked(self._mark)


def is_supported() -> bool:
    """Whether this system has what the supervision of processes needs: it is Linux.

    >>> import sys
    >>> from adbench.benchmark.executors.fork_server import is_supported
    >>> is_supported() == (sys.platform == "linux")
    True
    """
    return sys.platform == "linux"


@contextmanager
def start_early(executor: str) -> Iterator[ForkServer | None]:
    """Start a fork server if the executor of this name uses one; it is closed after the block.

    >>> from adbench.benchmark.executors.fork_server import start_early
    >>> with start_early("inline") as fork_server:
    ...     print(fork_server)
    None
    """
    is_used = executor == "local" and is_supported() and os.environ.get("WORLD_SIZE", "1") == "1"
    fork_server = ForkServer() if is_used else None
    try:
        yield fork_server
    finally:
        if fork_server is not None:
            fork_server.close()


def _kill_marked(mark: str) -> None:
    """Kill the processes that outlived a server which was killed: those with its environment.

    Searched for until there is none: a killed process may have begun another one, and one that
    begins a program has no environment for a moment.
    """
    marked, quiet_passes = f"{MARKER}={mark}".encode(), 0
    for _ in range(100):
        quiet_passes += 1
        for name in filter(str.isdigit, os.listdir("/proc")):
            with suppress(OSError):
                with open(f"/proc/{name}/environ", "rb") as file:
                    if marked not in file.read().split(b"\0"):
                        continue
                os.kill(int(name), signal.SIGKILL)
                quiet_passes = 0
        if quiet_passes == 2:
            break
        time.sleep(0.02)
