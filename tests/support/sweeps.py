"""Runs of small experiments under the local executor, whose children are forked from the test
itself: nothing has to be imported anew."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from adbench.benchmark.executors.fork_server import ForkServer
from adbench.benchmark.executors.fork_server_main import serve
from adbench.benchmark.executors.launch import run_experiments
from adbench.benchmark.executors.local import DeviceSlot, LocalExecutor
from adbench.benchmark.experiments.matrix import Experiment, expand_matrix
from adbench.benchmark.experiments.run_config import RunConfig
from adbench.benchmark.registry.registry import Registry
from adbench.benchmark.scheduling.console import ConsoleReporter
from adbench.benchmark.store.artifact_store import Store
from adbench.engine.runtime.context import TrainingContext

PLUGIN = Path(__file__).parents[1] / "plugin"


class Warm(ForkServer):
    """Forked instead of started."""

    def __init__(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent, self.pid = os.getpid(), os.fork()
        if self.pid == 0:
            os.setpgid(0, 0)
            self.control.close()
            try:
                serve(theirs.detach(), parent)
            finally:
                os._exit(0)
        theirs.close()

    def close(self) -> None:
        self.control.close()
        os.waitpid(self.pid, 0)


def local(slots: int = 1) -> LocalExecutor:
    return LocalExecutor([DeviceSlot("cpu", 1)] * slots, fork_server=Warm())


def small_experiments(
    methods: Sequence[str] = ("walker",), seeds: Sequence[int] = (0,), **args: dict[str, Any]
) -> list[Experiment]:
    """Experiments on small smooth fields. args: of a method or of `bumps`, by its name."""
    registry = Registry.read(PLUGIN / "registry.yaml", PLUGIN / "trouble.yaml")
    config = RunConfig(methods, ["bumps"], "tiny", seeds=seeds, settings=args, baselines=False)
    return expand_matrix(config, registry)


def run_planned(
    planned: Sequence[Experiment], folder: Path, executor: Any = None, **limits: Any
) -> tuple[int, str]:
    """The exit code, and what a user read."""
    output = io.StringIO()
    reporter = ConsoleReporter(Console(file=output, width=200))
    store, out = Store(folder / "store"), folder / "out"
    run = TrainingContext(batch=32, checkpoint_interval=0.0)
    code = run_experiments(planned, run, store, out, reporter, executor=executor, **limits)
    return code, output.getvalue()


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """By method and seed."""
    outcome = [json.loads(path.read_text()) for path in folder.glob("out/records/[!.]*.json")]
    return {f"{r['method']['name']} {r['seed']}": r for r in outcome}


def results(folder: Path) -> dict[str, Any]:
    """All that a run leaves and that does not depend on the clock, the memory and on how often it
    was disturbed: records, figures per sample, maps to the bit."""
    outcome: dict[str, Any] = {}
    for path in sorted(folder.glob("out/records/[!.]*.json")):
        record = json.loads(path.read_text())
        cost = record.get("cost", {})
        for measured in ("train_seconds", "seconds_per_image", "peak_memory_mb"):
            cost.pop(measured, None)
        for field in ("attempts", "seal"):
            record.pop(field, None)
        outcome[path.name] = record
    for path in sorted(
        [*folder.glob("out/samples/[!.]*"), *folder.glob("store/maps/*/[!.]*/*.h5")]
    ):
        outcome[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return outcome
