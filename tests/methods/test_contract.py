"""What `adbench check` asks, asked of every registered method in one, two and three axes.

A new method is tested by being listed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from itertools import product

import pytest
import torch

from adbench.benchmark.plugins import prediction_checks, training_checks
from adbench.benchmark.plugins.conformance import CHECKS
from adbench.benchmark.plugins.method_under_test import MethodUnderTest
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import Spec

REGISTRY = Registry.read()
METHODS = REGISTRY.methods
ONCE = {
    prediction_checks.nothing_but_x_and_keys_is_read,
    prediction_checks.predicting_leaves_nothing_behind,
    prediction_checks.batch_composition_does_not_change_results,
    prediction_checks.levels_do_not_influence_each_other,
    training_checks.training_depends_on_data_and_seed_alone,
    training_checks.resumed_training_gives_the_same_weights,
    training_checks.training_stops_soon_on_request,
}
"""Asked of images here, or of what a method takes instead: signals and volumes go through the same
code. `adbench check` asks everything of all."""


def cases() -> Iterator[tuple[str, int, Callable[[MethodUnderTest], None]]]:
    for name, entry in METHODS.items():
        ndims = sorted(entry.load().ndims)
        for axes, question in product(ndims, CHECKS):
            once = question in ONCE or entry.base  # a preset has the lines of its base
            if not once or axes == (2 if 2 in ndims else ndims[0]):
                yield name, axes, question


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no broken contract."""
    monkeypatch.setattr(training_checks, "STOP_SECONDS", 120.0)


TURNS = ("bernoulli", "caae")
"""Methods whose third step is unlike the second: of another batch, or of other weights."""


@cache
def subject(name: str, axes: int) -> MethodUnderTest:
    """Trained for two steps, of which the second begins with the moments of the first."""
    two = "steps" in METHODS[name].parameters() and not name.startswith(TURNS)
    return MethodUnderTest(METHODS[name], axes, {"steps": 2} if two else {})


@pytest.mark.parametrize(
    ("name", "axes", "question"),
    [
        pytest.param(
            name, axes, question,
            id=f"{name}-{axes}d-{question.__name__}",
            marks=pytest.mark.xdist_group(f"{name}-{axes}"),
        )
        for name, axes, question in cases()
    ],
)  # fmt: skip
def test_it_keeps_the_contract(
    name: str, axes: int, question: Callable[[MethodUnderTest], None]
) -> None:
    question(subject(name, axes))


@pytest.mark.parametrize("profile", REGISTRY.profiles)
@pytest.mark.parametrize("name", METHODS)
def test_it_can_be_built_in_every_profile(name: str, profile: str) -> None:
    """On the meta device, where the networks of profile `paper` take no memory."""
    entry, cls = METHODS[name], METHODS[name].load()
    shape = (64, 64) if 2 in cls.ndims else (512,)
    with torch.device("meta"):
        method = entry.build(
            Spec(2, shape, labels=cls.supervision == "image-labels"), **entry.arguments(profile)
        )
    assert isinstance(method, cls)
