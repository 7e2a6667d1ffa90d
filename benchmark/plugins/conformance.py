"""Conformance checks: whether a method does what the benchmark relies on.

They run on a few synthetic samples and with the arguments of profile `check`, so that a method is
checked in seconds. The tests run the same checks on every registered method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...engine.runtime.context import TrainingContext
from ..registry.registry import Entry
from .contract_violation import ContractViolation
from .declaration_checks import class_attributes_are_valid, other_numbers_of_axes_are_refused
from .method_under_test import MethodUnderTest
from .prediction_checks import (
    a_result_for_every_level_and_sample,
    batch_composition_does_not_change_results,
    levels_do_not_influence_each_other,
    nothing_but_x_and_keys_is_read,
    other_levels_are_taken,
    predicting_leaves_nothing_behind,
    the_state_dict_holds_all_that_was_learnt,
)
from .training_checks import (
    resumed_training_gives_the_same_weights,
    training_depends_on_data_and_seed_alone,
    training_stops_soon_on_request,
)


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
