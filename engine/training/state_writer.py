"""Saving the state of a training beside it: copied in a moment, written by a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from ..runtime.context import NullStateStore, StateStore
from ..runtime.transfer import HostCopies

COST_RATIO = 50.0
"""Two saves are so many times further apart than what one took from the training, or more."""


class StateWriter:
    """Saves the states of a training in a store, in less than 2 % of the training's time.

    A state is copied (from a GPU into pinned memory, without waiting for the device) and written by
    a thread. What a save takes from the training is the time of the copy and the processor time of
    the thread; there are at least COST_RATIO times as many seconds between two saves. A save begins
    when the one before has ended, so that the store always has a whole state, the last or the one
    before. To be used as a context: it ends when the last state has been written.

    store, name: of the states
    interval: least number of seconds between two saves; 0 saves whenever it is asked, and waits

    Raises what the thread raised in the next call, or at the end.

    >>> import torch
    >>> from adbench.engine.training.state_writer import StateWriter
    >>> class Memory(dict):
    ...     load, save = dict.get, dict.__setitem__
    >>> store, weight = Memory(), torch.ones(2)
    >>> with StateWriter(store, "fit", interval=0.0) as writer:
    ...     writer.is_due()
    ...     writer.save(lambda: {"weight": weight})
    ...     _ = weight.zero_()  # training goes on
    True
    >>> store["fit"]
    {'weight': tensor([1., 1.])}
    """

    def __init__(self, store: StateStore, name: str, interval: float) -> None:
        self._store, self._name, self._interval = store, name, interval
        self._cost, self._last = 0.0, time.monotonic()
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[float] | None = None

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._thread is not None:
            self._thread.shutdown()
        if kind is None:
            self._settle()

    def is_due(self) -> bool:
        """Whether a state should be saved now."""
        if self._writing is not None and self._writing.done():
            self._settle()
        if self._writing is not None or isinstance(self._store, NullStateStore):
            return False
        now, bound = time.monotonic(), COST_RATIO * self._cost if self._interval else 0.0
        return now - self._last >= max(self._interval, bound)

    def save(self, state: Callable[[], Mapping[str, Tensor]], *, wait: bool = False) -> None:
        """Copy a state and let the thread write it.

        state: returns the tensors, by name, of any device
        wait: return when it has been written
        """
        self._settle()
        if isinstance(self._store, NullStateStore):
            return
        start = time.monotonic()
        copies = HostCopies(state())
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "adbench-state")
        self._writing = self._thread.submit(self._write, copies)
        self._last = time.monotonic()
        self._cost = self._last - start
        if wait or not self._interval:
            self._settle()

    def _write(self, copies: HostCopies) -> float:
        start = time.thread_time()
        self._store.save(self._name, copies.read())
        return time.thread_time() - start

    def _settle(self) -> None:
        """Wait for the thread, and raise what it raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            self._cost += writing.result()
