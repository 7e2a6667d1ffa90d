"""Runs cells one after another in this process; what fails is a row, what is stopped is kept."""

from __future__ import annotations

import itertools
import json
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console

from ..datasets.base import DataError, Dataset
from ..engine.parallel import joined
from ..engine.run import Interrupted, Run
from .follow import follow
from .live import Watch
from .plan import Cell
from .runner import headline, run_cell
from .scalars import Scalars, ScalarsError
from .store import Store, atomic_write

FAILED, NO_DATA, STOPPED = 3, 5, 130


def circumstances(device: str, dtype: str) -> Run:
    """Where and how precisely to compute. "auto": the GPU in bfloat16 if there is one, else the
    CPU in float32.

    Raises ValueError on a device that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    team = joined(device)
    device = team.device or device
    kind = torch.device(device).type
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch finds no GPU here (adbench doctor)")
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype == "auto":
        dtype = "bfloat16" if kind == "cuda" else "float32"
    if dtype not in kinds:
        raise ValueError(f"--dtype is one of auto, {', '.join(kinds)}, not {dtype!r}")
    batch = 64 if kind == "cuda" else 32
    return Run(device=device, dtype=kinds[dtype], batch=batch, team=team)


def execute(
    cells: Sequence[Cell],
    run: Run,
    store: Store,
    out: Path,
    watch: Watch,
    curves: Path | None = None,
) -> int:
    """Run every cell that has no record yet; the exit code (0, 3, 5 or 130).

    curves: a folder for TensorBoard. Launched as several processes, the first does all this, and
    the others train along.
    """
    if run.team.rank > 0:
        return _along(cells, run)
    code = 0
    with _asked_to_stop(watch) as stop:
        run = replace(run, stop=stop)
        for _, group in _by_dataset(cells):
            try:
                dataset = prepared(group[0], watch, stop)
            except DataError as error:
                watch.failed(group[0].dataset.name, str(error))
                code = NO_DATA
                continue
            except KeyboardInterrupt:
                watch.line("interrupted: what is prepared is kept; the same command goes on")
                return STOPPED
            for cell in group:
                if cell.company and unfit(cell, dataset):
                    continue
                try:
                    record = _record(cell, dataset, run, store, out, watch, curves)
                except (Interrupted, KeyboardInterrupt) as stopped:
                    watch.line(f"interrupted: {stopped or cell.name}; the same command goes on")
                    return STOPPED
                _write(out, cell, record)
                if record["status"] == "failed":
                    code = code or FAILED
    return code


def prepared(cell: Cell, watch: Watch, stop: Callable[[], bool] = bool) -> Dataset:
    """The cell's dataset, ready. Raises KeyboardInterrupt when asked to stop meanwhile."""
    dataset: Dataset = cell.dataset.load()(**cell.dataset_args)
    with watch.step(f"prepare {cell.dataset.name}") as progress:

        def told(what: str, done: int, total: int) -> None:
            progress(what, done, total)
            if stop():
                raise KeyboardInterrupt

        dataset.prepare(told)
    return dataset


def unfit(cell: Cell, dataset: Dataset) -> str:
    """Why this method cannot look at this dataset; empty if it can."""
    cls, axes = cell.method.load(), len(dataset.spec.shape)
    if axes not in cls.ndims:
        takes = " or ".join(map(str, sorted(cls.ndims)))
        return f"takes samples of {takes} axes, these have {axes}"
    if cls.supervision == "image-labels" and not dataset.spec.labels:
        return "needs labelled abnormal samples to train on, and this dataset has none"
    return ""


def _along(cells: Sequence[Cell], run: Run) -> int:
    """What the other processes of a team do: they train with the first."""
    for _, group in _by_dataset(cells):
        try:
            dataset = prepared(group[0], Watch(Console(quiet=True)))
        except DataError:
            continue  # the first process says so
        try:
            follow([cell for cell in group if not unfit(cell, dataset)], dataset, run)
        except (Interrupted, KeyboardInterrupt):
            return STOPPED
    return 0


def _by_dataset(cells: Sequence[Cell]) -> Iterator[tuple[object, list[Cell]]]:
    for key, group in itertools.groupby(cells, key=lambda c: (c.dataset.name, c.limit)):
        yield key, list(group)


def _record(
    cell: Cell,
    dataset: Dataset,
    run: Run,
    store: Store,
    out: Path,
    watch: Watch,
    curves: Path | None,
) -> dict[str, Any]:
    if reason := unfit(cell, dataset):
        watch.line(f"{cell.name}  skipped: {reason}")
        return headline(cell, dataset, cell.method.load(), "skipped", reason)
    try:
        with watch.cell(cell.name) as tell, ExitStack() as stack:
            told = tell
            if curves is not None:
                told = stack.enter_context(Scalars(curves / cell.name, tell))
            record = run_cell(cell, dataset, store, run, told, out / "pictures")
        watch.done(cell.name, record)
        return record
    except (Interrupted, ScalarsError):
        raise
    except Exception as error:  # a failing method is a row with a reason, not a lost night
        log = out / "logs" / f"{cell.name}.log"
        atomic_write(log, traceback.format_exc())
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        watch.failed(cell.name, f"{reason} (log: {log})")
        return headline(cell, dataset, cell.method.load(), "failed", reason)


def _write(out: Path, cell: Cell, record: dict[str, Any]) -> None:
    """Leave the file alone where it says the same, so that a second run changes nothing."""
    path = out / "records" / f"{cell.name}.json"
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    if not path.exists() or path.read_text() != text:
        atomic_write(path, text)


@contextmanager
def _asked_to_stop(watch: Watch) -> Iterator[Any]:
    """The first Ctrl-C (or SIGTERM) asks, to be answered between steps; the second does not."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        watch.line("stopping after this step, with everything kept; once more stops at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
