"""Processes launched together on this machine, as torchrun launches them, but forked: at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from adbench.engine.runtime.distributed import joined
from adbench.engine.runtime.run import Run


def together(work: Callable[[Run], Any], size: int = 2) -> list[Any]:
    """What `work` returns in each process of a team of `size`, launched as torchrun would."""
    fork = get_context("fork")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pairs, children = [fork.Pipe(False) for _ in range(size)], []
    for rank, (_, out) in enumerate(pairs):
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        children.append(fork.Process(target=member, args=({**where, **env}, work, out)))
        children[-1].start()
    answers = [read.recv() if read.poll(60) else TimeoutError() for read, _ in pairs]
    for child in children:
        child.join(20)
        child.kill()
    return answers


def member(env: Mapping[str, object], work: Callable[[Run], Any], out: Connection) -> None:
    os.environ.update({key: str(value) for key, value in env.items()})
    try:
        out.send(work(Run(team=joined("cpu"))))
    except Exception as caught:
        out.send(caught)
