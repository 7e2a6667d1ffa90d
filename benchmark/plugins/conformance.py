"""Conformance checks: whether a method does what the benchmark relies on.

They run on a few synthetic samples and with the arguments of profile `check`, so that a method is
checked in seconds. The tests run the same checks on every registered method.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.base import Batch, Sample, Spec
from ...engine.runtime.context import Interrupted, TrainingContext
from ...engine.runtime.determinism import record_nondeterminism, repeat_tolerance
from ...engine.runtime.rng import Rng
from ...methods.base import Detection, Method
from ..registry.registry import Entry
from ..registry.settings import build

SHAPES = {1: (24,), 2: (18, 16), 3: (8, 6, 8)}
PROFILE = "check"
STOP_SECONDS = 10.0
"""Seconds that a training may take to end after a request to stop."""


class ContractViolation(AssertionError):
    """A check failed; the message has the observed and the expected value.

    >>> raise ContractViolation("score has shape (2,), not (3,)")
    Traceback (most recent call last):
    adbench...ContractViolation: score has shape (2,), not (3,)
    """


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one check.

    check: its name
    axes: number of axes of the samples
    violation: what was observed instead; empty where the check passes
    tolerance: how far results that should be equal may lie apart, relative to the largest value:
        0 unless an operation of the method has no deterministic algorithm on the device

    >>> CheckResult("other levels are taken", axes=2).violation
    ''
    """

    check: str
    axes: int
    violation: str = ""
    tolerance: float = 0.0


class MethodUnderTest:
    """A method with synthetic samples; it is fitted once and predicts once for all checks.

    entry: of the method
    axes: number of axes of the samples
    overrides: settings by name, in place of those of profile `check`
    context: with the device and the precision; the CPU and float32 if None

    >>> from adbench.benchmark.registry.registry import Registry
    >>> subject = MethodUnderTest(Registry.read().method("template-z"), axes=2)
    >>> subject.x.shape, subject.detection.map.shape
    (torch.Size([3, 2, 18, 16]), torch.Size([1, 3, 18, 16]))
    """

    def __init__(
        self,
        entry: Entry,
        axes: int,
        overrides: Mapping[str, Any] | None = None,
        context: TrainingContext | None = None,
    ) -> None:
        self.cls, self.axes, self.shape = entry.load(), axes, SHAPES[axes]
        self.batch_dependent = entry.batch_dependent
        self.args = entry.arguments(PROFILE, overrides or {})
        if isinstance(size := self.args.get("size"), int):
            self.args["size"] = min(size, max(self.shape))  # samples are not made larger
        self.labelled = self.cls.supervision == "image-labels"
        self.context = replace(context or TrainingContext(), batch=3)
        self.nondeterministic = set[str]()
        self.train = smooth_samples(self.shape, 6, "train", abnormal=self.labelled)
        self.calibration = smooth_samples(self.shape, 3, "held_out")
        test = smooth_samples(self.shape, 3, "test")
        self.x, self.keys = torch.stack([s.x for s in test]), [s.key for s in test]
        self.x = self.x.to(self.context.device)

    @property
    def tolerance(self) -> float:
        """How far results that should be equal may lie apart, by the operations seen so far."""
        return repeat_tolerance(self.nondeterministic)

    def build(self, seed: int = 0, **more: Any) -> Method:
        """Return the method with its first weights. more: further settings"""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build(self.cls, Spec(2, self.shape, labels=self.labelled), **self.args | more)

    def fit(self, method: Method, train: Sequence[Sample] | None = None, **more: Any) -> Method:
        """Fit a method and return it. more: further fields of its TrainingContext"""
        context = replace(self.context, **more)
        with record_nondeterminism(self.nondeterministic):
            method.fit(train or self.train, self.calibration, context)
        context.place(method)
        return method.eval()

    @cached_property
    def fitted(self) -> Method:
        """The method, fitted."""
        return self.fit(self.build())

    @cached_property
    def levels(self) -> list[int]:
        """The first two of the method's noise levels."""
        return list(self.cls.levels)[:2]

    @cached_property
    def detection(self) -> Detection:
        """Of the fitted method, on all samples at `levels`."""
        return self.predict(self.fitted)

    @torch.no_grad()
    def predict(
        self,
        method: Method,
        levels: Sequence[int] | None = None,
        indices: Sequence[int] = (0, 1, 2),
    ) -> Detection:
        """Return the detection of a method on some of the samples."""
        rng = Rng([self.keys[i] for i in indices], self.context.seed, self.context.device)
        with record_nondeterminism(self.nondeterministic):
            return method.detect(self.x[list(indices)], levels or self.levels, rng)


def class_attributes_are_valid(subject: MethodUnderTest) -> None:
    """Levels, axes, inference arguments and supervision are as `Method` describes them.

    >>> from types import SimpleNamespace
    >>> from adbench.methods.template_z import TemplateZ
    >>> class Wrong(TemplateZ):
    ...     levels, published = (2000,), 2000
    >>> class_attributes_are_valid(SimpleNamespace(cls=Wrong, args={}))
    Traceback (most recent call last):
    adbench...ContractViolation: levels lie in 0..1000: (2000,)
    """
    cls = subject.cls
    _require(cls.ndims <= {1, 2, 3} and cls.ndims, f"ndims are of 1, 2, 3, not {set(cls.ndims)}")
    _require(
        list(cls.levels) == sorted(set(cls.levels)), f"levels rise, without twins: {cls.levels}"
    )
    _require(all(0 <= n <= 1000 for n in cls.levels), f"levels lie in 0..1000: {cls.levels}")
    _require(cls.published in cls.levels, f"published, {cls.published}, is one of the levels")
    odd = cls.inference - subject.args.keys()
    _require(not odd, f"inference names arguments of the constructor, not {sorted(odd)}")
    odd = cls.search_space.keys() - subject.args.keys()
    _require(not odd, f"search_space names arguments of the constructor, not {sorted(odd)}")
    _require(
        cls.supervision in ("normal", "image-labels"), f"supervision is not {cls.supervision!r}"
    )
    takes = list(inspect.signature(cls.detect).parameters)
    _require(
        takes == ["self", "x", "levels", "rng"], f"detect takes x, levels, rng, not {takes[1:]}"
    )


def other_numbers_of_axes_are_refused(subject: MethodUnderTest) -> None:
    """The constructor raises ValueError for axes that are not among `ndims`.

    >>> from types import SimpleNamespace
    >>> class Wrong:
    ...     ndims = frozenset({2})
    ...     def __init__(self, spec): ...
    >>> other_numbers_of_axes_are_refused(SimpleNamespace(cls=Wrong, args={}))
    Traceback (most recent call last):
    adbench...ContractViolation: ndims are {2}, yet it can be built for 1 axes
    """
    for axes in {1, 2, 3} - subject.cls.ndims:
        try:
            build(subject.cls, Spec(2, SHAPES[axes]), **subject.args)
        except ValueError:
            continue
        raise ContractViolation(
            f"ndims are {set(subject.cls.ndims)}, yet it can be built for {axes} axes"
        )


def a_result_for_every_level_and_sample(subject: MethodUnderTest) -> None:
    """`detect`, `score` and `localize` return tensors of the right shape, type and range.

    >>> from types import SimpleNamespace
    >>> wrong = SimpleNamespace(
    ...     detection=Detection(torch.zeros(1, 2)), shape=(24,), levels=[0], x=torch.zeros(3, 1, 24)
    ... )
    >>> a_result_for_every_level_and_sample(wrong)
    Traceback (most recent call last):
    adbench...ContractViolation: score has shape (1, 2), not (1, 3): levels, samples
    """
    detection, shape = subject.detection, subject.shape
    _require_valid(detection, len(subject.levels), subject.x)
    one = subject.x[:1]
    rng = Rng(subject.keys[:1], device=one.device)
    _require_shape("score()", subject.fitted.score(one, rng), (1,))
    if detection.map is not None:
        _require_shape("localize()", subject.fitted.localize(one, rng), (1, *shape))


def other_levels_are_taken(subject: MethodUnderTest) -> None:
    """A run may sweep any levels, also outside of the method's own.

    >>> from types import SimpleNamespace
    >>> wrong = SimpleNamespace(
    ...     cls=SimpleNamespace(levels=(100, 300)), fitted=None, x=torch.zeros(3, 1, 24),
    ...     predict=lambda method, levels: Detection(torch.zeros(1, 3)),
    ... )
    >>> other_levels_are_taken(wrong)
    Traceback (most recent call last):
    adbench...ContractViolation: score has shape (1, 3), not (2, 3): levels, samples
    """
    cls = subject.cls
    if tuple(cls.levels) == (0,):
        return
    others = [level for level in (max(cls.levels[0] // 2, 1) + 1, 900) if level not in cls.levels]
    _require_valid(subject.predict(subject.fitted, others), len(others), subject.x)


def nothing_but_x_and_keys_is_read(subject: MethodUnderTest) -> None:
    """What lies in the frames of the callers, such as a batch with masks, changes no result.

    >>> import sys
    >>> from types import SimpleNamespace
    >>> wrong = SimpleNamespace(
    ...     shape=(24,), x=torch.zeros(3, 1, 24), keys=["a", "b", "c"], fitted=None, tolerance=0.0,
    ...     detection=Detection(torch.zeros(1, 3)),
    ...     predict=lambda method: Detection(sys._getframe(1).f_locals["mask"][:, 0][None] + 2),
    ... )
    >>> nothing_but_x_and_keys_is_read(wrong)
    Traceback (most recent call last):
    adbench...ContractViolation: score differs by 2
    """
    for value in (0.0, 1.0):
        mask = torch.full((3, *subject.shape), value)
        label = torch.full((3,), value)
        detection = _predict_beside(subject, mask, label)
        _require_same_detection(
            detection, subject.detection, slice(None), [0, 1, 2], subject.tolerance
        )


def _predict_beside(subject: MethodUnderTest, mask: Tensor, label: Tensor) -> Detection:
    """Predict in a frame that holds samples, a batch and a split with this mask and label."""
    samples = [
        Sample(x, key, key, bool(one), truth > 0)
        for x, key, one, truth in zip(subject.x, subject.keys, label, mask, strict=True)
    ]
    batch, split, sample = Batch.from_samples(samples), samples, samples[0]
    detection = subject.predict(subject.fitted)
    del batch, split, sample
    return detection


def predicting_leaves_nothing_behind(subject: MethodUnderTest) -> None:
    """The tensors of the method and its classes do not grow from one prediction to the next.

    >>> from types import SimpleNamespace
    >>> method = torch.nn.Identity()
    >>> method.seen = []
    >>> def predict(method):
    ...     method.seen.append(torch.zeros(4))
    >>> wrong = SimpleNamespace(predict=predict, fitted=method, detection=None)
    >>> predicting_leaves_nothing_behind(wrong)
    Traceback (most recent call last):
    adbench...ContractViolation: each prediction leaves 16 bytes in the method's attributes
    """
    sizes, _ = list[int](), subject.detection  # the first prediction may keep tables for all others
    for _ in range(2):
        subject.predict(subject.fitted)
        sizes.append(_tensor_bytes(subject.fitted))
    growth = sizes[1] - sizes[0]
    _require(growth <= 0, f"each prediction leaves {growth} bytes in the method's attributes")


def _tensor_bytes(method: Method) -> int:
    """The bytes of all tensors and arrays in the attributes of a method, its parts and classes."""
    total, seen = 0, set[int]()
    classes = [cls for part in method.modules() for cls in type(part).__mro__]
    stack: list[Any] = [vars(part) for part in method.modules()]
    stack += [
        vars(cls) for cls in dict.fromkeys(classes) if cls.__module__.split(".")[0] != "torch"
    ]
    while stack:
        value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor | np.ndarray):
            total += value.nbytes
        elif isinstance(value, Mapping):
            stack += value.values()
        elif isinstance(value, (list, tuple, set, deque)):
            stack += value
        elif isinstance(value, Detection):
            stack += [value.score, value.map, value.reconstruction]
    return total


def batch_composition_does_not_change_results(subject: MethodUnderTest) -> None:
    """A sample's result does not depend on the other samples of its batch.

    For a method that is registered as `batch_dependent`: it does not depend on their order.

    >>> from types import SimpleNamespace
    >>> wrong = SimpleNamespace(
    ...     batch_dependent=False, fitted=None, tolerance=0.0,
    ...     detection=Detection(torch.zeros(1, 3)),
    ...     predict=lambda method, indices: Detection(torch.full((1, len(indices)), 0.5)),
    ... )
    >>> batch_composition_does_not_change_results(wrong)
    Traceback (most recent call last):
    adbench...ContractViolation: score differs by 0.5
    """
    for some in [[2, 0, 1]] if subject.batch_dependent else ([2, 0], [1]):
        _require_same_detection(
            subject.predict(subject.fitted, indices=some),
            subject.detection,
            slice(None),
            some,
            subject.tolerance,
        )


def levels_do_not_influence_each_other(subject: MethodUnderTest) -> None:
    """A level alone gives the same result as among others.

    >>> from types import SimpleNamespace
    >>> wrong = SimpleNamespace(
    ...     levels=[100, 300], fitted=None, tolerance=0.0, detection=Detection(torch.zeros(2, 3)),
    ...     predict=lambda method, levels: Detection(torch.ones(1, 3)),
    ... )
    >>> levels_do_not_influence_each_other(wrong)
    Traceback (most recent call last):
    adbench...ContractViolation: score differs by 1
    """
    for i, level in enumerate(subject.levels):
        _require_same_detection(
            subject.predict(subject.fitted, [level]),
            subject.detection,
            slice(i, i + 1),
            [0, 1, 2],
            subject.tolerance,
        )


def the_state_dict_holds_all_that_was_learnt(subject: MethodUnderTest) -> None:
    """Another instance predicts the same with the state dict of the fitted one.

    Also, predictions do not depend on the global random state.

    >>> from types import SimpleNamespace
    >>> wrong = SimpleNamespace(
    ...     build=lambda seed: torch.nn.PReLU(), fitted=torch.nn.PReLU(), context=TrainingContext(),
    ...     predict=lambda method: torch.rand(1), tolerance=0.0,
    ... )
    >>> the_state_dict_holds_all_that_was_learnt(wrong)
    Traceback (most recent call last):
    adbench...ContractViolation: detect draws from the global stream
    """
    twin = subject.build(seed=1)
    for p in twin.parameters():
        p.data.fill_(0.5)
    twin.load_state_dict({key: value.clone() for key, value in subject.fitted.state_dict().items()})
    subject.context.place(twin)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        before = torch.get_rng_state()
        detection = subject.predict(twin.eval())
        _require(torch.equal(before, torch.get_rng_state()), "detect draws from the global stream")
    _require_same_detection(detection, subject.detection, slice(None), [0, 1, 2], subject.tolerance)


def training_depends_on_data_and_seed_alone(subject: MethodUnderTest) -> None:
    """Training depends neither on the global random state nor on masks.

    It depends on labels only where the method's supervision says so.

    >>> from types import SimpleNamespace
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
        _require(torch.equal(before, torch.get_rng_state()), "fit draws from the global stream")
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


CHECKS: tuple[Callable[[MethodUnderTest], None], ...] = (
    class_attributes_are_valid,
    other_numbers_of_axes_are_refused,
    a_result_for_every_level_and_sample,
    other_levels_are_taken,
    nothing_but_x_and_keys_is_read,
    predicting_leaves_nothing_behind,
    batch_composition_does_not_change_results,
    levels_do_not_influence_each_other,
    the_state_dict_holds_all_that_was_learnt,
    training_depends_on_data_and_seed_alone,
    resumed_training_gives_the_same_weights,
    training_stops_soon_on_request,
)


def check_method(
    entry: Entry,
    overrides: Mapping[str, Any] | None = None,
    axes: Sequence[int] = (1, 2, 3),
    context: TrainingContext | None = None,
) -> Iterator[CheckResult]:
    """Run all checks on a method, and yield their results one by one.

    entry: the method
    overrides: settings by name
    axes: numbers of axes to check, of those that the method takes
    context: with the device and the precision; the CPU and float32 if None

    An exception of the method is a violation.

    >>> from adbench.benchmark.registry.registry import Registry
    >>> results = list(check_method(Registry.read().method("template-z"), axes=[1]))
    >>> len(results), [result.check for result in results if result.violation]
    (12, [])
    """
    for count in sorted(set(axes) & set(entry.load().ndims)):
        subject = MethodUnderTest(entry, count, overrides, context)
        for check in CHECKS:
            title = check.__name__.replace("_", " ")
            try:
                check(subject)
            except ContractViolation as broken:
                yield CheckResult(title, count, str(broken))
            except Exception as error:  # a plugin may fail in any way
                first = next(iter(str(error).splitlines()), "")
                yield CheckResult(title, count, f"{type(error).__name__}: {first}")
            else:
                yield CheckResult(title, count, tolerance=subject.tolerance)


def smooth_samples(
    shape: Sequence[int], count: int, name: str, channels: int = 2, *, abnormal: bool = False
) -> list[Sample]:
    """Return synthetic smooth samples in [0, 1], each of its own group.

    shape: S
    count: number of samples
    name: prefix of their keys
    channels: C
    abnormal: every other sample has a bright region, and its mask

    >>> [sample.x.shape for sample in smooth_samples((4, 4), 2, "train")]
    [torch.Size([2, 4, 4]), torch.Size([2, 4, 4])]
    """
    axes = torch.meshgrid(*[torch.linspace(0, 3, n) for n in shape], indexing="ij")
    samples = []
    for i in range(count):
        phase = Rng([f"{name}{i}"]).uniform((channels, len(axes)))[0].float()
        waves = [[torch.sin(a + 6 * p) for a, p in zip(axes, row, strict=True)] for row in phase]
        x = 0.5 + torch.stack([torch.stack(row).sum(0) for row in waves]) / (2 * len(axes) + 1)
        ill = abnormal and i % 2 == 1
        place = torch.stack([(a - 1.5) ** 2 for a in axes]).sum(0) < 0.5
        mask = place & ill
        samples.append(Sample((x + 0.3 * mask).clamp(0, 1), f"{name}{i}", f"{name}{i}", ill, mask))
    return samples


class _InMemoryStateStore:
    """A StateStore that holds copies in memory."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Tensor]] = {}

    def load(self, name: str) -> Mapping[str, Tensor] | None:
        return self.states.get(name)

    def save(self, name: str, state: Mapping[str, Tensor]) -> None:
        self.states[name] = {key: value.detach().clone() for key, value in state.items()}


def _require(condition: object, message: str) -> None:
    """Raise ContractViolation with the message unless the condition is true."""
    if not condition:
        raise ContractViolation(message)


def _require_valid(detection: Detection, levels: int, x: Tensor) -> None:
    """Raise ContractViolation unless a detection has the shapes, types and ranges it should."""
    try:
        detection.check(levels, x)
    except ValueError as error:
        raise ContractViolation(str(error)) from error
    for name in ("score", "map", "reconstruction"):
        value = getattr(detection, name)
        _require(value is None or value.isfinite().all(), f"{name} is not finite everywhere")


def _require_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ContractViolation unless a tensor has a shape and is finite."""
    _require(tuple(value.shape) == shape, f"{name} has shape {tuple(value.shape)}, not {shape}")
    _require(bool(value.isfinite().all()), f"{name} is not finite everywhere")


def _require_same_detection(
    part: Detection, whole: Detection, level: slice, some: Sequence[int], tolerance: float = 0.0
) -> None:
    """Raise ContractViolation unless a detection equals a part of another one: to the bit, or up to
    a tolerance relative to the largest value."""
    for name in ("score", "map"):
        mine, all_of_it = getattr(part, name), getattr(whole, name)
        _require((mine is None) == (all_of_it is None), f"{name} is there at one time only")
        if mine is not None:
            expected = all_of_it[level][:, list(some)]
            far = (mine - expected).abs().max().item()
            most = tolerance * expected.abs().max().item()
            _require(far <= most, f"{name} differs by {far:.2g}")


def _require_same_weights(a: Method, b: Method, tolerance: float = 0.0) -> None:
    """Raise ContractViolation unless two methods have the same weights: to the bit, or up to a
    tolerance relative to a tensor's largest value."""
    mine, theirs = a.state_dict(), b.state_dict()
    _require(mine.keys() == theirs.keys(), "the two state dicts have different names")
    for key, value in mine.items():
        other = theirs[key]
        same = torch.equal(value, other)
        if not same and tolerance and value.is_floating_point():
            same = bool((value - other).abs().max() <= tolerance * other.abs().max())
        _require(same, f"{key} differs")


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
