"""How time and memory grow with the amount of data: made-up images, records and artifacts.

Each figure is of a process of its own, whose highest memory the system tells (getrusage). What it
works on is made up beforehand: images of 256 x 256 with their maps at nine levels, which compress
well; records that are copies of one another; artifacts of a few bytes with key inputs of usual
length. The figures are of the program, not of a network: the method copies its input.

    python -m adbench.benchmark.speed.growth TASK SIZE FOLDER     is what is measured
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

SIDE = 256
LEVELS = tuple(range(100, 1000, 100))
WARM_UP = 40
CYCLE = 12
"""Made-up images that differ; the others are copies with other keys."""


class Process(NamedTuple):
    """What a process took: seconds by the clock, seconds of CPU, and its highest memory in MB.

    >>> Process(2.0, 1.5, 100.0).seconds
    2.0
    """

    seconds: float
    cpu_seconds: float
    memory_mb: float


LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
cpu = usage.ru_utime + usage.ru_stime
print()
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, cpu, usage.ru_maxrss * 1024 / 1e6]))
"""
"""A small process between ours and the measured one, which begins with the memory of its parent."""


def run_task(task: str, size: int, folder: Path) -> Process:
    """Run a task of this file in a process of its own; its imports and a first small run are not
    in its seconds.

    task: predict made-up images into the folder, or evaluate what was predicted there

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     run_task("predict", 10, Path(scratch)).memory_mb > 1
    True
    """
    module = ["-m", "adbench.benchmark.speed.growth"]
    process, lines = _run([sys.executable, *module, task, str(size), str(folder)])
    seconds, cpu = json.loads(lines[-1])
    return Process(seconds, cpu, process.memory_mb)


def run_process(command: Sequence[str]) -> Process:
    """Run a command, and return its time and its highest memory, as the system tells.

    Raises RuntimeError with what it printed where it fails.

    >>> run_process([sys.executable, "-c", "x = bytearray(10**8)"]).memory_mb > 95
    True
    """
    return _run(command)[0]


def _run(command: Sequence[str]) -> tuple[Process, list[str]]:
    """The process, and the lines that it printed. Interrupted, it ends the process first."""
    launcher = subprocess.Popen(
        [sys.executable, "-S", "-c", LAUNCHER, *command],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        stdout, stderr = launcher.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()
        raise
    *lines, last = stdout.strip().splitlines() or [""]
    code, seconds, cpu, memory = json.loads(last) if launcher.returncode == 0 else (1, 0, 0, 0)
    if code:
        raise RuntimeError(f"{' '.join(command)} failed: {stderr[-2000:]}")
    return Process(seconds, cpu, memory), [line for line in lines if line]


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield a new folder in `parent` that is removed after the block, however it ends.

    What a killed process has left there is removed first: its lock is no longer held.

    >>> with tempfile.TemporaryDirectory() as parent:
    ...     with scratch_folder(Path(parent)) as scratch:
    ...         before = scratch.is_dir()
    ...     before, list(Path(parent).iterdir())
    (True, [])
    """
    from filelock import FileLock

    from ..store.leases import is_locked

    parent.mkdir(parents=True, exist_ok=True)
    for lock in parent.glob(".growth-*.lock"):
        if not is_locked(lock):
            with suppress(FileNotFoundError):
                shutil.rmtree(lock.with_suffix(""))
            lock.unlink(missing_ok=True)
    scratch = parent / f".growth-{uuid4().hex}"
    lock = scratch.with_suffix(".lock")
    with FileLock(lock):
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch)
            lock.unlink(missing_ok=True)


def growth_measurement(
    task: str,
    sizes: Sequence[int],
    processes: Sequence[Process],
    machine: Mapping[str, Any],
    *,
    asked: Sequence[int] = (),
    code: str = "",
) -> dict[str, Any]:
    """A task at several sizes as a measurement of results/speed.md.

    `exponent` is the power of the size with which the seconds of CPU grow (1: in proportion).

    sizes, processes: what has been measured        machine: from `describe_machine`, of the CPU
    asked: the sizes that are to be measured altogether        code: digest of the measured program

    >>> facts = growth_measurement("list", [10, 100], [Process(2, 1, 5), Process(20, 10, 5)], {})
    >>> round(facts["exponent"], 6), facts["seconds"]
    (1.0, [2, 20])
    """
    seconds = [process.cpu_seconds for process in processes]
    return {
        "what": "growth",
        "task": task,
        "sizes": list(sizes),
        "asked": list(asked or sizes),
        "code": code,
        "seconds": [process.seconds for process in processes],
        "cpu_seconds": seconds,
        "memory_mb": [process.memory_mb for process in processes],
        "exponent": exponent(sizes, seconds) if len(sizes) > 1 else None,
        "machine": dict(machine),
    }


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The power of the size with which the seconds grow, by least squares of their logarithms.

    >>> round(exponent([1, 10, 100], [2.0, 20.0, 200.0]), 6)
    1.0
    """
    x, y = ([math.log(value) for value in values] for values in (sizes, seconds))
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


class MadeUpImages:
    """Images (1, 256, 256) that are made when they are read; every second one has a lesion.

    >>> images = MadeUpImages("test", 4)
    >>> len(images), images[1].label, int(images[1].mask.sum()), images[0].x.shape
    (4, True, 576, torch.Size([1, 256, 256]))
    """

    def __init__(self, name: str, size: int, *, normal: bool = False) -> None:
        self.name, self.size, self.normal = name, size, normal
        self._made: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int, /) -> Any:
        from dataclasses import replace

        number = index % CYCLE
        if number not in self._made:
            self._made[number] = self._make(number)
        key = f"{self.name}/{index:07d}"
        return replace(self._made[number], key=key, group=key)

    def _make(self, number: int) -> Any:
        import numpy as np
        import torch

        from ...datasets.base import Sample

        rng = np.random.default_rng([number, len(self.name)])
        coarse = rng.uniform(0, 0.75, (SIDE // 8, SIDE // 8))
        image = np.kron(coarse, np.ones((8, 8))).astype(np.float32)
        mask = np.zeros((SIDE, SIDE), bool)
        label = number % 2 == 1 and not self.normal
        if label:
            row, column = rng.integers(0, SIDE - 24, 2)
            mask[row : row + 24, column : column + 24] = True
            image[mask] += 0.25
        return Sample(
            torch.from_numpy(image)[None], "", "", label=label, mask=torch.from_numpy(mask)
        )


def image_splits(size: int) -> dict[str, MadeUpImages]:
    """Three splits of so many images: a fifth, a fifth and the rest.

    >>> {name: len(split) for name, split in image_splits(10).items()}
    {'held_out': 2, 'val': 2, 'test': 6}
    """
    fifth = size // 5
    return {
        "held_out": MadeUpImages("held_out", fifth, normal=True),
        "val": MadeUpImages("val", fifth),
        "test": MadeUpImages("test", size - 2 * fifth),
    }


def _predict(size: int, folder: Path) -> None:
    from ...datasets.base import Spec
    from ...engine.runtime.context import TrainingContext
    from ...methods.base import Detection, Method
    from ..experiments.fit_predict import predict
    from ..store.partial_state import PartialState

    class Copies(Method):
        """Its map is its input, a little more at every level."""

        def fit(self, train: Any, calibration: Any, context: Any) -> None:
            pass

        def detect(self, x: Any, levels: Any, rng: Any) -> Any:
            import torch

            return Detection.from_map(torch.stack([x[:, 0] + level / 4000 for level in levels]))

    folder.mkdir(parents=True, exist_ok=True)

    for name, split in image_splits(size).items():
        state = PartialState(folder / f"shards-{name}")
        context = TrainingContext(state_store=state)
        method = Copies(Spec(1, (SIDE, SIDE)))
        predict(folder / f"{name}.h5", method, split, LEVELS, context, name=name)
        state.clear()


def _evaluate(size: int, folder: Path) -> None:
    from ..evaluation.evaluate import evaluate
    from ..evaluation.load_predictions import load_predictions
    from ..evaluation.protocol import Protocol

    calibration, val, test = (
        load_predictions(split, folder / f"{name}.h5", scratch=folder)
        for name, split in image_splits(size).items()
    )
    record, _ = evaluate(calibration, val, test, LEVELS, LEVELS[0], Protocol())
    print(f"pixel AP {record['metrics']['pixel_ap']['value']}, off by {record['pixel_error']}")


def make_artifacts(size: int, folder: Path) -> None:
    """Make a store of so many artifacts up; those that are there stay.

    >>> import tempfile
    >>> from adbench.benchmark.store.artifact_store import Store
    >>> with tempfile.TemporaryDirectory() as scratch:
    ...     make_artifacts(5, Path(scratch))
    ...     len([*Store(Path(scratch)).artifacts(verify=True)])
    5
    """
    from ..store.artifact_store import Store
    from ..store.cache_key import cache_key, canonical_json
    from ..store.marker import mark_store

    store = Store(folder)
    mark_store(store.root, lambda: True)
    payload = b"made up"
    for number in range(size):
        checkpoint = {
            "data": {
                "dataset": f"data-{number // 4 % 10}",
                "args": {"size": 256, "root": "x" * 200},
                "samples": {"train": "0" * 32, "held_out": "1" * 32},
            },
            "method": f"methods.made:Method{number // 40 % 50}",
            "supervision": "normal",
            "args": {f"argument_{i}": i / 7 for i in range(20)},
            "seed": number // 2000,
            "numerics": "float32",
            "code": "2" * 32,
        }
        part = ("checkpoint", "held_out", "val", "test")[number % 4]
        inputs: dict[str, Any] = checkpoint
        if part != "checkpoint":
            data = {**checkpoint["data"], "samples": {part: "3" * 32}}
            inputs = {"train": checkpoint, "data": data, "args": {}, "levels": [50], "part": part}
        kind = "checkpoint" if part == "checkpoint" else "maps"
        target = store.folder(kind, cache_key(inputs))
        if target.is_dir():
            continue
        target.mkdir(parents=True)
        (target / "made.bin").write_bytes(payload)
        fields = {
            "identity": inputs,
            "sha256": hashlib.sha256(payload).hexdigest(),
            "bytes": len(payload),
            "took": 1.0,
            "meta": {"device": "cpu", "threads": 2, "seconds": 0.1, "versions": {"torch": "2"}},
        }
        seal = hashlib.sha256(canonical_json(fields).encode()).hexdigest()
        (target / "made.bin.json").write_text(json.dumps({**fields, "seal": seal}, indent=1))


TASKS: dict[str, Callable[[int, Path], None]] = {"predict": _predict, "evaluate": _evaluate}


def _measure_task(task: str, size: int, folder: Path) -> None:
    """Run a small task and then the task, and print its seconds by the clock and of CPU."""
    with tempfile.TemporaryDirectory(dir=folder) as small:
        _predict(WARM_UP, Path(small))
        TASKS[task](WARM_UP, Path(small))
    clock, cpu = time.perf_counter(), time.process_time()
    TASKS[task](size, folder)
    print(json.dumps([time.perf_counter() - clock, time.process_time() - cpu]))


if __name__ == "__main__":
    _measure_task(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
