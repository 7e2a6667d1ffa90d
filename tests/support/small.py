"""Methods at the size of profile `check`, which train in a second, and samples for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from adbench.benchmark.plugins.method_under_test import PROFILE, MethodUnderTest, smooth_samples
from adbench.benchmark.registry.registry import Registry
from adbench.benchmark.registry.settings import build, setting_parameters
from adbench.datasets.base import Sample, Spec

SMALL = Registry.read().profile(PROFILE).args["methods"]["*"]


def small_method(name: str, spec: Spec, **more: Any) -> Any:
    """The method, small; Any, so that a test may touch what is its own."""
    entry = Registry.read().method(name)
    reference = {key: value for key, value in more.items() if key in entry.parameters()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return entry.build(spec, **entry.arguments(PROFILE) | reference)


def build_small(cls: type, spec: Spec, **more: Any) -> Any:
    """A method by its class, small, listed or not."""
    takes = setting_parameters(cls)
    small = {key: value for key, value in SMALL.items() if key in takes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build(cls, spec, **small | more)


def shorten_trainings(subject: MethodUnderTest, steps: int) -> MethodUnderTest:
    """The subject, not built yet, whose trainings take at most so many steps and measure the
    calibration loss after the last alone: every step runs the same lines."""
    for key, value in subject.args.items():
        training = f"_{key}".endswith("_steps") and key != "sampling_steps"
        training = training and key not in subject.cls.inference
        if training and isinstance(value, int):
            subject.args[key] = min(value, steps)
    if "select_every" in subject.args:
        subject.args["select_every"] = steps
    return subject


def samples(
    shape: Sequence[int], count: int = 5, channels: int = 2, name: str = "s"
) -> list[Sample]:
    """Smooth normal samples in [0, 1], each of its own group."""
    return smooth_samples(shape, count, name, channels)
