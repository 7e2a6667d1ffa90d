"""Reading training samples ahead of the step that needs them.

Which samples a step needs is known beforehand, so they can be read by other processes while the
network computes; what is read, and in which order, does not depend on how many there are.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ..runtime.run import Run


class Example(Protocol):
    """What training reads of a sample; the dataset room's Sample has more."""

    @property
    def x(self) -> Tensor: ...
    @property
    def label(self) -> bool: ...


class Examples(Protocol):
    """Read one at a time, by index. With several readers each has its own copy, so what a copy
    costs counts: a file that is opened when asked costs nothing."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...


def evenly(size: int, most: int) -> list[int]:
    """Up to `most` of the indices below `size`, evenly spread, in order."""
    count = min(size, most)
    return [i * size // count for i in range(count)]


class ReaderLost(RuntimeError):
    """A process that reads samples was killed, as a rule for the memory it took."""


def batches(
    data: Examples, picks: Iterable[list[int]], run: Run
) -> Generator[tuple[Tensor, Tensor]]:
    """x (N, C, *S) and label (N,) bool of every list of indices, in order, on the run's device.

    run.workers processes read ahead, and end with the iterator: close it. They leave Ctrl-C and
    SIGTERM to their parent, whose end they notice. Their errors are raised here, as they were.
    """
    workers = run.readers
    loader = DataLoader(
        _Reads(data),
        batch_sampler=picks,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=run.kind == "cuda",
        worker_init_fn=_leave_signals_to_parent,
        generator=torch.Generator(),  # it draws a seed, and would take it from the global one
    )
    reading = iter(loader)
    try:
        while True:
            try:
                got = next(reading)
            except StopIteration:
                return
            except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
                # a reader's own errors come as _Failed; these are of a pipe with nobody behind it
                gone = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
                if not workers or not gone:
                    raise
                what = str(error).partition("\n")[0]
                raise ReaderLost(
                    f"a process that reads samples ended ({what}); "
                    f"with fewer workers than {workers} less memory is needed"
                ) from error
            if isinstance(got, _Failed):
                raise got.error()
            x, label = got
            yield x.to(run.device, non_blocking=True), label.to(run.device, non_blocking=True)
    finally:
        stop = getattr(reading, "_shutdown_workers", None)
        if stop is not None:
            try:
                stop()
            except RuntimeError as error:  # of a reader that had ended, when nothing more was asked
                if "DataLoader worker" not in str(error):
                    raise


class _Failed:
    """An error on its way from a reader: its class and text travel, and what it was doing."""

    def __init__(self, error: Exception) -> None:
        self.kind, self.text = type(error), str(error)
        self.trace = traceback.format_exc()

    def error(self) -> Exception:
        try:
            made = self.kind(self.text)
        except TypeError:  # its class wants more than a text
            made = RuntimeError(f"{self.kind.__name__}: {self.text}")
        made.add_note(f"raised in a process that reads samples:\n{self.trace}")
        return made


class _Reads(Dataset[Example]):
    """Reads a whole batch at a time."""

    def __init__(self, data: Examples) -> None:
        self.data = data

    def __getitem__(self, index: int) -> Example:
        return self.data[index]

    def __getitems__(self, index: Sequence[int]) -> tuple[Tensor, Tensor] | _Failed:
        try:
            examples = [self.data[i] for i in index]
            return torch.stack([e.x for e in examples]), torch.tensor([e.label for e in examples])
        except Exception as error:
            if get_worker_info() is None:
                raise
            return _Failed(error)


def _as_it_is(batch: object) -> object:
    return batch


def _leave_signals_to_parent(worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
