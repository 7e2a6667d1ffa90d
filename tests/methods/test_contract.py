"""What `adbench check` asks, asked of every registered method in one, two and three axes.

A new method is tested by being listed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from adbench.benchmark import check
from adbench.benchmark.check import QUESTIONS, Subject
from adbench.benchmark.registry import Registry

METHODS = Registry.read().methods
COSTLY = {
    check.company_does_not_matter_to_the_bit,
    check.a_sweep_equals_its_levels_one_by_one_to_the_bit,
    check.a_training_goes_on_to_the_same_weights,
}
"""Asked in one and two axes here: volumes go through the same code, at ten times the cost."""


@cache
def subject(name: str, axes: int) -> Subject:
    return Subject(METHODS[name], axes)


@pytest.mark.parametrize(
    ("name", "axes", "question"),
    [
        pytest.param(
            name, axes, question,
            id=f"{name}-{axes}d-{question.__name__}",
            marks=pytest.mark.xdist_group(f"{name}-{axes}"),
        )
        for name, entry in METHODS.items()
        for axes in sorted(entry.load().ndims)
        for question in QUESTIONS
        if not (axes == 3 and question in COSTLY)
    ],
)  # fmt: skip
def test_it_keeps_the_contract(name: str, axes: int, question: Callable[[Subject], None]) -> None:
    question(subject(name, axes))
