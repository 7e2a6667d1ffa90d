"""Conformance checks of a training: what it depends on, that it resumes, that it stops."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import FrameType

import torch
from torch import Tensor

from ...engine.runtime.context import Interrupted
from ...methods.base import Method
from .contract_violation import ContractViolation, require
from .method_under_test import MethodUnderTest

STOP_SECONDS = 10.0
"""Seconds that a training may take to end after a request to stop."""


def training_depends_on_data_and_seed_alone(subject: MethodUnderTest) -> None:
    """Training depends neither on the global random state nor on masks.

    It depends on labels only where the method's supervision says so.

    >>> from types import SimpleNamespace
    >>> from adbench.benchmark.plugins.method_under_test import smooth_samples
    >>> wrong = SimpleNamespace(
    ...     train=smooth_samples((24,), 2, "train"), labelled=False, shape=(24,),
    ...     build=lambda: None, fit=lambda method, train: torch.rand(1), tolerance=0.0,
    ... )
    >>> training_depends_on_data_and_seed_alone(wrong)
    Traceback (most recent call last):
    adbench...ContractViolation: fit draws from the global stream
    """
    other = []
    for i, sample in enumerate(subject.train):
        label = sample.label if subject.labelled else i % 2 == 0
        other.append(replace(sample, label=label, mask=torch.rand(subject.shape) < 0.5))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        before = torch.get_rng_state()
        twin = subject.fit(subject.build(), other)
        require(torch.equal(before, torch.get_rng_state()), "fit draws from the global stream")
    _require_same_weights(twin, subject.fitted, subject.tolerance)


def resumed_training_gives_the_same_weights(subject: MethodUnderTest) -> None:
    """A training that was stopped and resumed gives the weights of one without a stop.

    The first training is stopped at its second call of `stop`, saves its state and raises
    Interrupted; the second one resumes from that state.

    >>> from types import SimpleNamespace
    >>> def fit(method, stop=None, **more):
    ...     if stop is not None:
    ...         raise Interrupted("stopped")
    ...     return method
    >>> wrong = SimpleNamespace(
    ...     build=lambda: torch.nn.PReLU(init=0.1), fit=fit, fitted=torch.nn.PReLU(init=0.2),
    ...     tolerance=0.0,
    ... )
    >>> resumed_training_gives_the_same_weights(wrong)
    Traceback (most recent call last):
    adbench...ContractViolation: weight differs
    """
    store, stops = _InMemoryStateStore(), iter([False, True])
    try:
        subject.fit(
            subject.build(),
            state_store=store,
            stop=lambda: next(stops, True),
            checkpoint_interval=0.0,
        )
    except Interrupted:
        _require_same_weights(
            subject.fit(subject.build(), state_store=store, checkpoint_interval=0.0),
            subject.fitted,
            subject.tolerance,
        )


def training_stops_soon_on_request(subject: MethodUnderTest) -> None:
    """A training ends within STOP_SECONDS after a request to stop.

    Arguments named steps or …_steps are raised, so that training takes long enough.

    >>> from types import SimpleNamespace
    >>> steps = []
    >>> def fit(method, stop):
    ...     while not stop():
    ...         steps.append(time.sleep(0.05))
    >>> training_stops_soon_on_request(SimpleNamespace(args={}, build=lambda: None, fit=fit))
    >>> len(steps) < 100
    True
    """
    inference_steps = ("sampling_steps", "inpaint_steps")
    long = {
        k: 10**6 for k in subject.args if f"_{k}".endswith("_steps") and k not in inference_steps
    }
    method, start = subject.build(**long), time.monotonic()
    with _time_limit(STOP_SECONDS), contextlib.suppress(Interrupted):
        subject.fit(method, stop=lambda: time.monotonic() > start + 0.2)


class _InMemoryStateStore:
    """A StateStore that holds copies in memory."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Tensor]] = {}

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        return self.states.get(name)

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        self.states[name] = {key: value.detach().clone() for key, value in state.items()}


def _require_same_weights(a: Method, b: Method, tolerance: float = 0.0) -> None:
    """Raise ContractViolation unless two methods have the same weights: to the bit, or up to a
    tolerance relative to a tensor's largest value."""
    mine, theirs = a.state_dict(), b.state_dict()
    require(mine.keys() == theirs.keys(), "the two state dicts have different names")
    for key, value in mine.items():
        other = theirs[key]
        same = torch.equal(value, other)
        if not same and tolerance and value.is_floating_point():
            same = bool((value - other).abs().max() <= tolerance * other.abs().max())
        require(same, f"{key} differs")


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise ContractViolation in a block that takes longer than so many seconds.

    Only the main thread can be interrupted; in others there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise ContractViolation(f"fit does not call context.stop: it went on for {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
