"""A method that keeps the contract passes; every way to break it is found, by its own question."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from adbench.benchmark.cli.main import app
from adbench.benchmark.plugins import declaration_checks, prediction_checks, training_checks
from adbench.benchmark.plugins.conformance import CHECKS, CheckResult, check_method
from adbench.benchmark.plugins.method_under_test import PROFILE, MethodUnderTest
from adbench.benchmark.registry.registry import Entry, Registry
from adbench.datasets.base import Spec, Split
from adbench.engine.runtime.context import Interrupted, StateStore, TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.base import Detection, Method

PLUGIN = Path(__file__).parents[2] / "plugin" / "registry.yaml"


class Good(Method):
    """The mean of the training samples, found a sample at a time; noise as a diffusion method has.
    With labels it learns from the normal ones only."""

    levels, published = (100, 300), 300
    ndims = frozenset({2})
    mean: Tensor

    def __init__(self, spec: Spec, *, steps: int = 3) -> None:
        super().__init__(spec)
        self.steps = steps
        self.register_buffer("mean", torch.zeros(spec.channels, *spec.shape))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        stored = context.state_store.load("mean") or {}
        start = int(stored.get("step", torch.tensor(0)))
        self.mean.copy_(stored.get("mean", self.mean))
        for step in range(start, self.steps):
            if context.stop():
                context.state_store.save("mean", {"mean": self.mean, "step": torch.tensor(step)})
                raise Interrupted("stopped")
            self.mean.mul_(0.9).add_(0.1 * self.pick(train, step))

    def pick(self, train: Split, step: int) -> Tensor:
        return train[step % len(train)].x

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        noise = rng.fork("predict").normal(tuple(x.shape[1:]))
        maps = [((x - self.mean) + level / 1000 * noise).square().mean(1) for level in levels]
        return Detection.from_map(torch.stack(maps))


class Cohort(Good):
    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        maps = super().detect(x, levels, rng).map
        assert maps is not None
        return Detection.from_map(maps / maps.amax(tuple(range(1, maps.ndim)), keepdim=True))


class Leaning(Good):
    """A level leans on the one before it."""

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        maps = super().detect(x, levels, rng).map
        assert maps is not None
        return Detection.from_map(maps.cumsum(0))


class Forgetful(Good):
    """Part of what it learns is not in the state dict."""

    scale = 1.0

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        super().fit(train, calibration, context)
        self.scale = 2.0

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        maps = super().detect(x, levels, rng).map
        assert maps is not None
        return Detection.from_map(self.scale * maps)


class Global(Good):
    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        torch.rand(1)
        return super().detect(x, levels, rng)


class Shuffling(Good):
    def pick(self, train: Split, step: int) -> Tensor:
        return train[int(torch.randint(len(train), ()))].x


class Peeking(Good):
    """It reads labels and does not say so."""

    def pick(self, train: Split, step: int) -> Tensor:
        return train[step].x * (not train[step].label)


class Masked(Good):
    supervision = "image-labels"

    def pick(self, train: Split, step: int) -> Tensor:
        mask = train[step].mask
        return train[step].x if mask is None else train[step].x * ~mask


class Beginning(Good):
    """It remembers that it was stopped, and not what it knew by then."""

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        super().fit(train, calibration, replace(context, state_store=Steps(context.state_store)))


class Steps:
    def __init__(self, keep: StateStore) -> None:
        self.keep = keep

    def load(self, name: str) -> dict[str, Tensor] | None:
        stored = self.keep.load(name)
        return None if stored is None else {"step": stored["step"]}

    def save(self, name: str, state: Any) -> None:
        self.keep.save(name, state)


class Deaf(Good):
    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        end = time.monotonic() + 30 * (self.steps > 100)
        while time.monotonic() < end:
            pass


class Thin(Good):
    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        detection = super().detect(x, levels, rng)
        return replace(detection, map=None if detection.map is None else detection.map[..., 1:])


class Endless(Good):
    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        detection = super().detect(x, levels, rng)
        return replace(detection, score=detection.score / 0)


class Signed(Good):
    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        detection = super().detect(x, levels, rng)
        return replace(detection, map=None if detection.map is None else detection.map - 1)


class Surplus(Good):
    """One level too many."""

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return super().detect(x, [*levels, levels[0]], rng)


class Complex(Good):
    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        detection = super().detect(x, levels, rng)
        return replace(detection, score=detection.score + 0j)


class Picky(Good):
    """It has a table for its own levels alone."""

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return super().detect(x, [{100: 100, 300: 300}[level] for level in levels], rng)


class Framed(Good):
    """It reads the masks in the frames of its callers."""

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        detection, frame = super().detect(x, levels, rng), sys._getframe()
        while frame is not None:
            batch = frame.f_locals.get("batch")
            if batch is not None and detection.map is not None:
                return Detection.from_map(detection.map + batch.mask)
            frame = frame.f_back
        return detection


class Growing(Good):
    def __init__(self, spec: Spec, *, steps: int = 3) -> None:
        super().__init__(spec, steps=steps)
        self.batches: list[dict[str, Tensor]] = []

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        self.batches.append({"x": x.clone()})
        return super().detect(x, levels, rng)


class Elsewhere(Good):
    published = 250


class Open(Good):
    def __init__(self, spec: Spec, *, steps: int = 3) -> None:
        super().__init__(replace(spec, shape=(18, 16)), steps=steps)


class Ordered(Good):
    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        maps = super().detect(x, levels, rng).map
        assert maps is not None
        return Detection.from_map(maps.cumsum(1))


def answers(cls: type[Method], *, batch_dependent: bool = False) -> list[CheckResult]:
    target = f"{__name__}:{cls.__name__}"
    profiles = Registry.read().profiles
    entry = Entry(
        "toy", "methods", target, "a test", target, profiles=profiles,
        batch_dependent=batch_dependent,
    )  # fmt: skip
    object.__setattr__(entry, "load", lambda: cls)
    return list(check_method(entry))


def broken(cls: type[Method]) -> dict[str, str]:
    return {a.check.replace(" ", "_"): a.violation for a in answers(cls) if a.violation}


def test_a_method_that_keeps_it_passes() -> None:
    results = answers(Good)
    assert len(results) == len(CHECKS) and {a.axes for a in results} == {2}
    assert not broken(Good)


def test_a_registered_batch_dependence_is_allowed_but_the_order_may_not_count() -> None:
    assert not any(a.violation for a in answers(Cohort, batch_dependent=True))
    (order,) = (a for a in answers(Ordered, batch_dependent=True) if a.violation)
    assert order.check == "batch composition does not change results"


@pytest.mark.parametrize(
    ("cls", "question", "message"),
    [
        (Cohort, prediction_checks.batch_composition_does_not_change_results, "differs by"),
        (Leaning, prediction_checks.levels_do_not_influence_each_other, "differs by"),
        (Forgetful, prediction_checks.the_state_dict_holds_all_that_was_learnt, "differs by"),
        (Global, prediction_checks.the_state_dict_holds_all_that_was_learnt, "global stream"),
        (Shuffling, training_checks.training_depends_on_data_and_seed_alone, "global stream"),
        (Peeking, training_checks.training_depends_on_data_and_seed_alone, "mean differs"),
        (Masked, training_checks.training_depends_on_data_and_seed_alone, "mean differs"),
        (Beginning, training_checks.resumed_training_gives_the_same_weights, "mean differs"),
        (
            Thin,
            prediction_checks.a_result_for_every_level_and_sample,
            r"(2, 3, 18, 15), not (2, 3, 18, 16)",
        ),
        (Endless, prediction_checks.a_result_for_every_level_and_sample, "not finite"),
        (Signed, prediction_checks.a_result_for_every_level_and_sample, "at least 0"),
        (
            Surplus,
            prediction_checks.a_result_for_every_level_and_sample,
            "score has shape (3, 3), not (2, 3)",
        ),
        (Complex, prediction_checks.a_result_for_every_level_and_sample, "score is complex"),
        (Picky, prediction_checks.other_levels_are_taken, "KeyError"),
        (Framed, prediction_checks.nothing_but_x_and_keys_is_read, "differs by"),
        (
            Growing,
            prediction_checks.predicting_leaves_nothing_behind,
            "bytes in the method's attributes",
        ),
        (Elsewhere, declaration_checks.class_attributes_are_valid, "published, 250"),
        (Open, declaration_checks.other_numbers_of_axes_are_refused, "built for"),
    ],
)
def test_it_is_found(cls: type[Method], question: Callable[..., None], message: str) -> None:
    assert message in broken(cls)[question.__name__]


def test_a_training_that_does_not_ask_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_checks, "STOP_SECONDS", 0.5)
    assert "does not call context.stop" in broken(Deaf)["training_stops_soon_on_request"]


def test_what_it_raises_is_an_answer() -> None:
    done = CliRunner().invoke(
        app, ["check", "brightness", "--registry", str(PLUGIN), "--set", "fail=fit", "--axes", "2"]
    )
    assert done.exit_code == 4
    assert "broken  brightness, 2-d" in done.output and "this plugin always fails" in done.output


def test_a_plugin_from_outside_is_asked_by_name() -> None:
    done = CliRunner().invoke(app, ["check", "brightness", "--registry", str(PLUGIN)])
    assert done.exit_code == 0, done.output
    count = 3 * len(CHECKS)
    assert f"{count} of {count} checks keep the contract" in done.output


def test_no_sample_is_made_larger_and_the_profile_is_for_everything() -> None:
    names = Registry.read().methods
    for axes, side in ((1, 16), (3, 8)):
        assert MethodUnderTest(names["dae"], axes).args["size"] == side
    assert names["dae"].arguments(PROFILE)["steps"] == 3
