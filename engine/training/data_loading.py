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

from ..runtime.run import TrainingContext


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


def evenly_spaced_indices(size: int, maximum: int) -> list[int]:
    """Up to `maximum` of the indices below `size`, evenly spread, in order."""
    count = min(size, maximum)
    return [i * size // count for i in range(count)]


class DataWorkerLost(RuntimeError):
    """A process that reads samples was killed, as a rule for the memory it took."""


def iterate_batches(
    data: Examples, index_batches: Iterable[list[int]], context: TrainingContext
) -> Generator[tuple[Tensor, Tensor]]:
    """x (N, C, *S) and label (N,) bool of every list of indices, in order, on the run's device.

    run.workers processes read ahead, and end with the iterator: close it. They leave Ctrl-C and
    SIGTERM to their parent, whose end they notice. Their errors are raised here, as they were.
    """
    workers = context.num_workers
    loader = DataLoader(
        _BatchDataset(data),
        batch_sampler=index_batches,
        collate_fn=_identity_collate,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=context.kind == "cuda",
        worker_init_fn=_ignore_signals,
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
                raise DataWorkerLost(
                    f"a process that reads samples ended ({what}); "
                    f"with fewer workers than {workers} less memory is needed"
                ) from error
            if isinstance(got, _WorkerError):
                raise got.rebuild()
            x, label = got
            yield (
                x.to(context.device, non_blocking=True),
                label.to(context.device, non_blocking=True),
            )
    finally:
        stop = getattr(reading, "_shutdown_workers", None)
        if stop is not None:
            try:
                stop()
            except RuntimeError as error:  # of a reader that had ended, when nothing more was asked
                if "DataLoader worker" not in str(error):
                    raise


class _WorkerError:
    """An error on its way from a reader: its class and text travel, and what it was doing."""

    def __init__(self, error: Exception) -> None:
        self.kind, self.text = type(error), str(error)
        self.trace = traceback.format_exc()

    def rebuild(self) -> Exception:
        try:
            made = self.kind(self.text)
        except TypeError:  # its class wants more than a text
            made = RuntimeError(f"{self.kind.__name__}: {self.text}")
        made.add_note(f"raised in a process that reads samples:\n{self.trace}")
        return made


class _BatchDataset(Dataset[Example]):
    """Reads a whole batch at a time."""

    def __init__(self, data: Examples) -> None:
        self.data = data

    def __getitem__(self, index: int) -> Example:
        return self.data[index]

    def __getitems__(self, index: Sequence[int]) -> tuple[Tensor, Tensor] | _WorkerError:
        try:
            examples = [self.data[i] for i in index]
            return torch.stack([e.x for e in examples]), torch.tensor([e.label for e in examples])
        except Exception as error:
            if get_worker_info() is None:
                raise
            return _WorkerError(error)


def _identity_collate(batch: object) -> object:
    return batch


def _ignore_signals(worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
