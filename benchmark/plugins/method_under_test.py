"""A method with a few synthetic samples, which conformance checks fit once and ask often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch

from ...datasets.base import Sample, Spec
from ...engine.runtime.context import TrainingContext
from ...engine.runtime.determinism import record_nondeterminism, repeat_tolerance
from ...engine.runtime.rng import Rng
from ...methods.base import Detection, Method
from ..registry.registry import Entry
from ..registry.settings import build

SHAPES = {1: (24,), 2: (18, 16), 3: (8, 6, 8)}
PROFILE = "check"


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
