"""The process that children are forked from, as its driver sees it (nurse.py is what runs in it).

Importing what a cell needs takes seconds, so it is started before a driver reads its registry, and
imports while the driver does. Nothing heavy is imported here.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

MESSAGE_BYTES = 65536
"""Bytes of a message at most."""

SCRIPT = (
    "import sys; sys.path[:] = sys.argv[3:]; "
    "from adbench.benchmark.executors.fork_server_main import serve; "
    "serve(int(sys.argv[1]), int(sys.argv[2]))"
)
"""What python -P -c runs: modules are found where the driver finds them, and before that path is
set nothing is imported that a file in the working folder could stand for."""

PRELOAD = (
    "adbench.benchmark.scheduling.job",
    "adbench.benchmark.experiments.cache_keys:evaluation_code",
    # what a cell imports while it works: once here is seconds less in every cell
    *("filelock", "scipy.ndimage", "PIL.PngImagePlugin", "torch.utils.flop_counter"),
    "torch._dynamo",
)


class ForkServer:
    """Started when constructed. It ends, and all its children with it, when it is closed or its
    driver dies."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = [folder or os.getcwd() for folder in sys.path]
        # torch then counts GPUs without starting their driver, which would survive no fork
        env = os.environ | {"PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
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
        """Modules; or module:Class, whose code's digest is taken once for all children, so that it
        is of what they have loaded; or module:function, which is called."""
        self.send({"import": list(names)})

    def send(self, message: Mapping[str, Any], files: Iterable[int] = ()) -> None:
        with suppress(OSError):  # whoever listens hears of its end
            socket.send_fds(self.control, [json.dumps(message).encode()], list(files))

    def receive(self) -> dict[str, Any] | None:
        """The next message; None once it has ended."""
        try:
            data = self.control.recv(MESSAGE_BYTES)
        except OSError:
            return None
        return json.loads(data) if data else None

    def close(self) -> None:
        self.control.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:  # it imports: then it has no children yet
            self._process.kill()
            self._process.wait()


def is_supported() -> bool:
    """Whether this system has what supervising takes: it is Linux."""
    return sys.platform == "linux"


@contextmanager
def start_early(executor: str) -> Iterator[ForkServer | None]:
    """A nursery if the executor of this name will want one; closed at the end."""
    wanted = executor == "local" and is_supported() and os.environ.get("WORLD_SIZE", "1") == "1"
    nursery = ForkServer() if wanted else None
    try:
        yield nursery
    finally:
        if nursery is not None:
            nursery.close()
