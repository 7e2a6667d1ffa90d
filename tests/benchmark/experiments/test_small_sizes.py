"""The smallest size is refused in the plan, or a method trains and predicts with it."""

from __future__ import annotations

import pytest

from adbench.benchmark.experiments.argument_conflicts import argument_conflict
from adbench.benchmark.plugins.method_under_test import MethodUnderTest
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import Spec
from adbench.engine.training import selection

METHODS = {
    name: entry
    for name, entry in Registry.read().methods.items()
    if not entry.base and "size" in entry.parameters()
}


@pytest.mark.parametrize("name", METHODS)
def test_a_side_of_one_pixel_is_refused_or_works(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "CALIBRATION_ROWS", 2)  # most of such a training, otherwise
    entry = METHODS[name]
    axes = min(entry.load().ndims & {2} or entry.load().ndims)
    subject = MethodUnderTest(entry, axes, {"size": 1})
    spec = Spec(2, subject.shape, labels=subject.labelled)
    reason = argument_conflict(entry, subject.args, "check", spec)
    assert "\n" not in reason
    if not reason:
        subject.predict(subject.fitted)
