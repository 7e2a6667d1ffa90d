"""Where `adbench run` has its cells worked on, by what its options say: here, or on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...engine.runtime.context import TrainingContext
from ..experiments.matrix import Experiment
from ..scheduling.executor import Executor
from ..store.artifact_store import Store
from .cluster import RemoteExecutor
from .fork_server import ForkServer
from .launch import create_executor, device_context

REMOTE_EXECUTORS = ("ray", "slurm")
"""Executors whose cells may run on a host with other devices than this one."""


@dataclass(frozen=True)
class ExecutorSelection:
    """executor: its name. address: of a Ray cluster. slurm: KEY=VALUE each. detach: hand the cells
    in and leave. Raises ValueError on options that do not go together."""

    executor: str
    address: str | None = None
    slurm: Sequence[str] = ()
    detach: bool = False

    def __post_init__(self) -> None:
        for option, given, name in (
            ("--address", self.address, "ray"),
            ("--slurm", self.slurm, "slurm"),
            ("--detach", self.detach, "slurm"),
        ):
            if given and self.executor != name:
                raise ValueError(f"{option} wants --executor {name}, not {self.executor}")

    def device_context(self, device: str, dtype: str) -> TrainingContext:
        """As executor.circumstances; the GPUs of a cluster need not be here. "auto" means one with
        Slurm where one is asked for, and with Ray where there is one here."""
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
        """The executor. out: the folder of results, in which clusters are told what to do."""
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
        """Give all cells to Slurm; what to tell the user who leaves. more: as detach.hand_in."""
        from .slurm_detached import submit_detached

        return submit_detached(
            experiments,
            context,
            store,
            out,
            self._slurm_cluster(context, experiments, None, out),
            **more,
        )

    def _ray(self, run: TrainingContext, slots: int | None, out: Path) -> RemoteExecutor:
        from .ray_backend import RayCluster, connect, node_resources, slot_resources

        ray = connect(self.address)
        gpu = run.device.startswith("cuda")
        try:
            count, cpus, gpus = slot_resources(node_resources(ray), slots, gpu=gpu)
        except ValueError:
            ray.shutdown()
            raise
        cluster = RayCluster(ray, "cuda" if gpu else run.device, cpus, gpus)
        folder = out / f"ray-{uuid4().hex[:8]}"  # nobody else's: what is left of it runs no more
        return RemoteExecutor(cluster, folder, count, every=0.5, ask_every=1.0)

    def _slurm(
        self, run: TrainingContext, cells: Sequence[Experiment], slots: int | None, out: Path
    ) -> RemoteExecutor:
        from .slurm_backend import DEFAULT_SLOTS

        count = slots or DEFAULT_SLOTS
        return RemoteExecutor(self._slurm_cluster(run, cells, count, out), out / "slurm", count)

    def _slurm_cluster(
        self, run: TrainingContext, cells: Sequence[Experiment], at_once: int | None, out: Path
    ) -> Any:
        from .slurm_backend import connect, options_by_method

        known = {cell.method.name for cell in cells}
        for method, told in options_by_method(self.slurm).items():
            if method and method not in known:
                raise ValueError(
                    f"--slurm {method}.{told[0]}: no experiment of this run is of a method "
                    f"{method!r}; there are {', '.join(sorted(known))}"
                )
        gpus = int(run.device.startswith("cuda") and not self._asks_for_gpus())
        return connect(out / "slurm", self.slurm, run.device, gpus, at_once)

    def _asks_for_gpus(self) -> bool:
        from .slurm_backend import options_by_method, parse_options

        told = parse_options(options_by_method(self.slurm).get("", []))
        named = {*told, *told.get("additional_parameters", {})}
        return any("gpu" in key or key == "gres" for key in named)
