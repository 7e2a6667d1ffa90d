"""Processes launched together on this machine, as torchrun launches them, but forked: at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.distributed import join_team


def run_team(function: Callable[[TrainingContext], Any], size: int = 2) -> list[Any]:
    """What `function` returns in each process of a team of `size`, launched as torchrun would."""
    fork = get_context("fork")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pairs, children = [fork.Pipe(False) for _ in range(size)], []
    for rank, (_, out) in enumerate(pairs):
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        children.append(fork.Process(target=run_member, args=({**where, **env}, function, out)))
        children[-1].start()
    answers = [read.recv() if read.poll(60) else TimeoutError() for read, _ in pairs]
    for child in children:
        child.join(20)
        child.kill()
    return answers


def run_member(
    env: Mapping[str, object], function: Callable[[TrainingContext], Any], out: Connection
) -> None:
    os.environ.update({key: str(value) for key, value in env.items()})
    try:
        out.send(function(TrainingContext(team=join_team("cpu"))))
    except Exception as caught:
        out.send(caught)
