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

from ..runtime.context import TrainingContext
from ..runtime.rng import Rng


class Example(Protocol):
    """What training reads of a sample; the Sample of the package datasets has more.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from adbench.engine.training.data_loading import Example, indices_by_label
    >>> normal: Example = SimpleNamespace(x=torch.zeros(1, 4), label=False)
    >>> abnormal: Example = SimpleNamespace(x=torch.ones(1, 4), label=True)
    >>> indices_by_label([normal, abnormal, normal])
    ([0, 2], [1])
    """

    @property
    def x(self) -> Tensor: ...
    @property
    def label(self) -> bool: ...


class Examples(Protocol):
    """Samples read one at a time, by index. Each worker process has its own copy, so the cost of
    a copy counts: a file that is opened at the first read costs nothing.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.training.data_loading import Examples, iterate_batches
    >>> class Squares:
    ...     def __len__(self):
    ...         return 10
    ...     def __getitem__(self, index):
    ...         return SimpleNamespace(x=torch.tensor([index**2]), label=index > 5)
    >>> data: Examples = Squares()
    >>> next(iterate_batches(data, [[2, 9]], TrainingContext()))
    (tensor([[ 4],
            [81]]), tensor([False,  True]))
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...


def evenly_spaced_indices(size: int, maximum: int) -> list[int]:
    """Return up to `maximum` of the indices below `size`, evenly spaced, in order.

    size: number of samples, 0 or more
    maximum: of indices returned

    >>> from adbench.engine.training.data_loading import evenly_spaced_indices
    >>> evenly_spaced_indices(10, 4)
    [0, 2, 5, 7]
    """
    count = min(size, maximum)
    return [i * size // count for i in range(count)]


def indices_by_label(data: Examples) -> tuple[list[int], list[int]]:
    """Return the indices of the normal and of the abnormal samples, each in order.

    Reads every sample once.

    data: the training split; ValueError where one of the two kinds is missing

    >>> from adbench.engine.training.data_loading import indices_by_label
    >>> from types import SimpleNamespace
    >>> indices_by_label([SimpleNamespace(x=None, label=i == 1) for i in range(4)])
    ([0, 2, 3], [1])
    """
    indices: tuple[list[int], list[int]] = ([], [])
    for i in range(len(data)):
        indices[bool(data[i].label)].append(i)
    if not all(indices):
        kind = "abnormal" if indices[0] else "normal"
        raise ValueError(
            f"balanced training needs normal and abnormal samples; of {len(data)} training samples "
            f"none is {kind}: train with balanced=False"
        )
    return indices


def draw_balanced_indices(rng: Rng, indices: Sequence[Sequence[int]]) -> list[int]:
    """Draw an index for each stream: first the kind of sample, then one of that kind, each evenly.

    rng: one stream per row of the batch
    indices: of each kind of sample, as `indices_by_label` returns them

    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.training.data_loading import draw_balanced_indices
    >>> draw_balanced_indices(Rng(["a", "b", "c", "d"], 4), [[0, 2, 3], [1]])
    [0, 2, 2, 1]
    """
    kinds, shares = rng.integers(len(indices)).tolist(), rng.uniform().tolist()
    return [
        indices[kind][int(share * len(indices[kind]))]
        for kind, share in zip(kinds, shares, strict=True)
    ]


class DataWorkerLost(RuntimeError):
    """A process that reads samples was killed, as a rule for the memory it took.

    >>> import os
    >>> import signal
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.training.data_loading import DataWorkerLost, iterate_batches
    >>> class Killed:
    ...     parent = os.getpid()
    ...     def __len__(self):
    ...         return 1
    ...     def __getitem__(self, index):
    ...         if os.getpid() != self.parent:
    ...             os.kill(os.getpid(), signal.SIGKILL)
    >>> try:
    ...     next(iterate_batches(Killed(), [[0]], TrainingContext(workers=1)))
    ... except DataWorkerLost as error:
    ...     print(error)
    a process that reads samples ended (...); with fewer workers than 1 less memory is needed
    """


def iterate_batches(
    data: Examples, index_batches: Iterable[list[int]], context: TrainingContext
) -> Generator[tuple[Tensor, Tensor]]:
    """Yield x (N, C, *S) and label (N,) bool of every list of indices, in order, on the device.

    context.num_workers processes read ahead, and end with the iterator: close it. They leave
    Ctrl-C and SIGTERM to their parent, whose end they notice. Their errors are raised here, as
    they were; DataWorkerLost where a process was killed.

    data: the training split
    index_batches: the samples of every step
    context: of the training

    >>> import torch
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.training.data_loading import iterate_batches
    >>> from types import SimpleNamespace
    >>> data = [SimpleNamespace(x=torch.ones(1, 2), label=False)]
    >>> x, label = next(iterate_batches(data, [[0, 0]], TrainingContext()))
    >>> x.shape, label
    (torch.Size([2, 1, 2]), tensor([False, False]))
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
    iterator = iter(loader)
    try:
        while True:
            try:
                batch = next(iterator)
            except StopIteration:
                return
            except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as error:
                # a worker's own errors come as _WorkerError; these are of a pipe without a reader
                lost = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
                if not workers or not lost:
                    raise
                reason = str(error).partition("\n")[0]
                raise DataWorkerLost(
                    f"a process that reads samples ended ({reason}); "
                    f"with fewer workers than {workers} less memory is needed"
                ) from error
            if isinstance(batch, _WorkerError):
                raise batch.rebuild()
            x, label = batch
            device = context.device
            yield x.to(device, non_blocking=True), label.to(device, non_blocking=True)
    finally:
        stop = getattr(iterator, "_shutdown_workers", None)
        if stop is not None:
            try:
                stop()
            except RuntimeError as error:  # of a worker that had ended, after the last batch
                if "DataLoader worker" not in str(error):
                    raise


class _WorkerError:
    """An error on its way from a worker: its class, its text and its traceback."""

    def __init__(self, error: Exception) -> None:
        self.kind, self.text = type(error), str(error)
        self.trace = traceback.format_exc()

    def rebuild(self) -> Exception:
        """The error, or a RuntimeError of the same text, with the traceback as a note."""
        try:
            error = self.kind(self.text)
        except TypeError:  # its class needs more than a text
            error = RuntimeError(f"{self.kind.__name__}: {self.text}")
        error.add_note(f"raised in a process that reads samples:\n{self.trace}")
        return error


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
