"""The metadata of a checkpoint: the learning curves, and the step its weights are of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.benchmark.experiments.fit_predict import fit
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import Spec, Split
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module
from adbench.methods.base import Detection, Method
from small import build_small, samples
from trainings import MemoryStateStore

TRAIN, CALIBRATION = samples((16, 16), 6, 1), samples((16, 16), 4, 1, name="c")
SELECTING = ["pddpm", "mddpm", "cddpm", "ddpm-ood", "ldm-ood"]


class TwoStages(Method):
    """A gain that a first training warms up, and whose training collapses half way."""

    def __init__(self, spec: Spec, select: str = "best") -> None:
        super().__init__(spec)
        self.gain = nn.Parameter(torch.ones(1))
        self.plan = Training(40, 4, 0.05, ema=None, select="best" if select == "best" else "last")
        self.first = Training(4, 4, 0.01, ema=None)

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            sign = 1 - 2 * ((rng.step >= 20) & self.training).float()
            return sign * (self.gain * x).square().flatten(1).mean(1)

        train_module(loss, self, train, context, self.first, "warm")
        train_module(loss, self, train, context, self.plan, validation=calibration)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        return Detection.from_map((self.gain * x)[None, :, 0])


def fitted(
    path: Path, select: str = "best", context: TrainingContext | None = None
) -> dict[str, Any]:
    method = TwoStages(Spec(1, (16, 16)), select)
    return fit(path, method, TRAIN, CALIBRATION, context or TrainingContext())


def test_a_user_sees_a_late_collapse(tmp_path: Path) -> None:
    best, last = fitted(tmp_path / "a"), fitted(tmp_path / "b", "last")
    assert best == json.loads(json.dumps(best))
    assert last["selected_step"] == 40 and 15 <= best["selected_step"] <= 25
    warm, curve = best["curve"]
    assert [warm["training"], curve["training"]] == ["warm", "fit"]
    assert warm["selected_step"] == 4 and warm["calibration_loss"] == [None] * 4
    assert curve["selected_step"] == best["selected_step"]
    assert curve["step"] == [*range(2, 41, 2)]
    lowest = min(curve["calibration_loss"])
    assert curve["calibration_loss"][curve["step"].index(curve["selected_step"])] == lowest
    assert curve["calibration_loss"][-1] > 3 * lowest
    assert len(curve["loss"]) == 20 and curve["loss"][-1] < 0 < curve["loss"][0]


def test_an_interrupted_fit_has_the_same_curve_and_weights(tmp_path: Path) -> None:
    whole = fitted(tmp_path / "a")
    memory, asked = MemoryStateStore(), iter([False] * (4 + 30) + [True])
    with pytest.raises(Interrupted):
        fitted(
            tmp_path / "b",
            context=TrainingContext(state_store=memory, stop=lambda: next(asked)),
        )
    resumed = fitted(tmp_path / "b", context=TrainingContext(state_store=memory))
    assert resumed["curve"][1] == whole["curve"][1]
    assert resumed["selected_step"] == whole["selected_step"]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", SELECTING)
def test_these_methods_select_their_weights_as_published(name: str) -> None:
    method = build_small(Registry.read().method(name).load(), Spec(1, (16, 16)), steps=3)
    curves: list[tuple[str, int, int]] = []
    context = TrainingContext(
        on_curve=lambda curve: curves.append(
            (
                curve.name,
                curve.selected_step,
                sum(p.calibration_loss is not None for p in curve.points),
            )
        )
    )
    method.fit(TRAIN, CALIBRATION, context)
    assert method.training_plans()[0].select == "best"
    assert curves[-1][2] == 3 and 1 <= curves[-1][1] <= 3
    assert all(measured == 0 for _, _, measured in curves[:-1])
