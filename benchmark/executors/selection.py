"""The executor of a run by the options of `adbench run`: on this machine, or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...engine.runtime.context import TrainingContext
from ..experiments.matrix import Experiment
from ..experiments.run_config import ExecutorName, option_name
from ..registry.setting_types import convert_fields
from ..scheduling.executor import Executor
from ..store.artifact_store import Store
from .cluster import RemoteExecutor
from .fork_server import ForkServer
from .launch import create_executor, device_context

REMOTE_EXECUTORS = ("ray", "slurm")
"""Executors whose jobs may run on a host with other devices than this one."""


@dataclass(frozen=True)
class ExecutorSelection:
    """The options that select an executor. Raises ValueError on some that do not go together.

    executor: its name
    address: of a Ray cluster
    slurm: KEY=VALUE each
    detach: submit the experiments and leave

    >>> from adbench.benchmark.executors.selection import ExecutorSelection
    >>> ExecutorSelection("local", detach=True)
    Traceback (most recent call last):
    ValueError: --detach wants --executor slurm, not local
    """

    executor: ExecutorName
    address: str | None = None
    slurm: Sequence[str] = ()
    detach: bool = False

    def __post_init__(self) -> None:
        convert_fields(self, option_name)
        for option, value, name in (
            ("--address", self.address, "ray"),
            ("--slurm", self.slurm, "slurm"),
            ("--detach", self.detach, "slurm"),
        ):
            if value and self.executor != name:
                raise ValueError(f"{option} wants --executor {name}, not {self.executor}")

    def device_context(self, device: str, dtype: str) -> TrainingContext:
        """Return the device and the dtype as launch.device_context does; the GPUs of a cluster need
        not be here. "auto" is a GPU with Slurm where the options ask for one, and with Ray where
        this host has one."""
        if self.executor == "slurm" and device == "auto":
            device = "cuda" if self._asks_for_gpus() else "cpu"
        return device_context(device, dtype, remote=self.executor in REMOTE_EXECUTORS)

    def create_executor(
        self,
        context: TrainingContext,
        experiments: Sequence[Experiment],
        slots: int | None,
        out: Path,
        fork_server: ForkServer | None,
    ) -> Executor | None:
        """Return the executor; None for this process. out: the folder of results, in which the
        folders of jobs on a cluster lie"""
        if self.executor not in REMOTE_EXECUTORS:
            return create_executor(self.executor, context, experiments, slots, fork_server)
        if context.team.size > 1:
            raise ValueError(
                f"--executor {self.executor} starts its own processes, without torchrun"
            )
        return (
            self._slurm(context, experiments, slots, out)
            if self.executor == "slurm"
            else self._ray(context, slots, out)
        )

    def submit_detached(
        self,
        experiments: Sequence[Experiment],
        context: TrainingContext,
        store: Store,
        out: Path,
        **more: Any,
    ) -> str:
        """Submit all experiments to Slurm, and return what to tell the user. more: as of
        slurm_detached.submit_detached"""
        from .slurm_detached import submit_detached

        return submit_detached(
            experiments,
            context,
            store,
            out,
            self._slurm_cluster(context, experiments, None, out),
            **more,
        )

    def _ray(self, context: TrainingContext, slots: int | None, out: Path) -> RemoteExecutor:
        from .ray_backend import RayCluster, connect, node_resources, slot_resources

        ray = connect(self.address)
        gpu = context.device.startswith("cuda")
        try:
            count, cpus, gpus = slot_resources(node_resources(ray), slots, gpu=gpu)
        except ValueError:
            ray.shutdown()
            raise
        cluster = RayCluster(ray, "cuda" if gpu else context.device, cpus, gpus)
        folder = out / f"ray-{uuid4().hex[:8]}"  # nobody else's: what is left of it runs no more
        return RemoteExecutor(cluster, folder, count, every=0.5, ask_every=1.0)

    def _slurm(
        self,
        context: TrainingContext,
        experiments: Sequence[Experiment],
        slots: int | None,
        out: Path,
    ) -> RemoteExecutor:
        from .slurm_backend import DEFAULT_SLOTS

        count = slots or DEFAULT_SLOTS
        cluster = self._slurm_cluster(context, experiments, count, out)
        return RemoteExecutor(cluster, out / "slurm", count)

    def _slurm_cluster(
        self,
        context: TrainingContext,
        experiments: Sequence[Experiment],
        at_once: int | None,
        out: Path,
    ) -> Any:
        from .slurm_backend import connect
        from .slurm_options import options_by_method

        methods = {each.method.name for each in experiments}
        for method, options in options_by_method(self.slurm).items():
            if method and method not in methods:
                raise ValueError(
                    f"--slurm {method}.{options[0]}: no experiment of this run is of a method "
                    f"{method!r}; there are {', '.join(sorted(methods))}"
                )
        gpus = int(context.device.startswith("cuda") and not self._asks_for_gpus())
        return connect(out / "slurm", self.slurm, context.device, gpus, at_once)

    def _asks_for_gpus(self) -> bool:
        from .slurm_options import options_by_method, parse_options

        parameters = parse_options(options_by_method(self.slurm).get("", []))
        names = {*parameters, *parameters.get("additional_parameters", {})}
        return any("gpu" in name or name == "gres" for name in names)
