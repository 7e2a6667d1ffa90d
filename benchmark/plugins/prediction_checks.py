"""Conformance checks of what a fitted method predicts, and of what it depends on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...datasets.base import Batch, Sample
from ...engine.runtime.rng import Rng
from ...methods.base import Detection, Method
from .contract_violation import ContractViolation, require
from .method_under_test import MethodUnderTest


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
    require(growth <= 0, f"each prediction leaves {growth} bytes in the method's attributes")


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
    >>> from adbench.engine.runtime.context import TrainingContext
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
        require(torch.equal(before, torch.get_rng_state()), "detect draws from the global stream")
    _require_same_detection(detection, subject.detection, slice(None), [0, 1, 2], subject.tolerance)


def _require_valid(detection: Detection, levels: int, x: Tensor) -> None:
    """Raise ContractViolation unless a detection has the shapes, types and ranges it should."""
    try:
        detection.check(levels, x)
    except ValueError as error:
        raise ContractViolation(str(error)) from error
    for name in ("score", "map", "reconstruction"):
        value = getattr(detection, name)
        require(value is None or value.isfinite().all(), f"{name} is not finite everywhere")


def _require_shape(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ContractViolation unless a tensor has a shape and is finite."""
    require(tuple(value.shape) == shape, f"{name} has shape {tuple(value.shape)}, not {shape}")
    require(bool(value.isfinite().all()), f"{name} is not finite everywhere")


def _require_same_detection(
    part: Detection, whole: Detection, level: slice, some: Sequence[int], tolerance: float = 0.0
) -> None:
    """Raise ContractViolation unless a detection equals a part of another one: to the bit, or up to
    a tolerance relative to the largest value."""
    for name in ("score", "map"):
        mine, all_of_it = getattr(part, name), getattr(whole, name)
        require((mine is None) == (all_of_it is None), f"{name} is there at one time only")
        if mine is not None:
            expected = all_of_it[level][:, list(some)]
            far = (mine - expected).abs().max().item()
            most = tolerance * expected.abs().max().item()
            require(far <= most, f"{name} differs by {far:.2g}")
