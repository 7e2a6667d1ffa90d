"""TransFusion's own: its loss, the way down and the map, golden values and an oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor, nn

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.transfusion import TransFusion
from equations import agree, pictures, tensor
from small import build_small, samples

SPEC, KEYS = Spec(1, (16, 16)), [f"s{i}" for i in range(64)]
INSIDE = torch.zeros(1, 1, 16, 16)
INSIDE[..., 5:9, 5:9] = 1


class Oracle(nn.Module):
    """Knows the normal sample, where the anomaly is, and how it looks."""

    def __init__(self, normal: Tensor, appearance: Tensor, T: int = 20) -> None:
        super().__init__()
        self.normal, self.appearance, self.T = normal, appearance, T
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.shown.append(x)
        opacity = ((timesteps + 1) / self.T).view(-1, 1, 1, 1)
        parts = (opacity * INSIDE * self.appearance, self.normal, 40 * INSIDE - 20)
        return torch.cat([part.expand(len(x), -1, -1, -1) for part in parts], 1)


class ToyHeads(nn.Module):
    """Appearance 0.3 x, normal 0.5 x + 0.1 t, and a mask that is likely in the upper half alone."""

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        image, t = x[:, :-1], timesteps.view(-1, 1, 1, 1)
        logit = torch.full_like(image[:, :1], -1.0)
        logit[:, :, :8] = 2.0
        return torch.cat([0.3 * image, 0.5 * image + 0.1 * t, logit], 1)


def transfusion(**more: Any) -> Any:
    return build_small(TransFusion, SPEC, **{"augment": False} | more).eval()


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(TransFusion, Spec(3, (256, 256)))
    assert built.process.schedule.T == 20 and built.plan.batch == 8 and built.plan.lr == 1e-5
    assert (built.mask_weight, built.smooth, built.anomalies.chance) == (0.95, 7, 0.5)
    inputs, outputs = (p.shape for p in (next(built.parameters()), [*built.parameters()][-2]))
    assert inputs[:2] == (64, 4) and outputs[:2] == (7, 64)


@torch.no_grad()
def test_with_an_oracle_the_anomaly_becomes_transparent() -> None:
    """The map is 0.95 of the mask and 0.05 of the difference, and what is left is the normal
    sample; the mask of the step before is shown from the second step on."""
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built = transfusion(smooth=1)
    x = healthy + 0.2 * INSIDE
    built.denoiser.net = net = Oracle(healthy, x)
    results = built.detect(x, [1000], Rng(["a"]))
    torch.testing.assert_close(results.reconstruction[0], healthy, rtol=0, atol=1e-5)
    expected = INSIDE[0, 0] * (0.95 + 0.05 * 0.2)
    torch.testing.assert_close(results.map[0, 0], expected, rtol=1e-4, atol=1e-6)
    assert results.score[0, 0] == results.map.max() and len(net.shown) == 20
    assert net.shown[0][0, -1].max() == 0 and torch.equal(net.shown[1][0, -1], INSIDE[0, 0])
    half = net.shown[10][0, :1] - healthy[0]  # after ten steps half as opaque
    torch.testing.assert_close(half, 0.1 * INSIDE[0], rtol=1e-3, atol=1e-5)


GOLDEN = (0.521047982, 0.547842071)
"""Means of reconstruction and map."""


@torch.no_grad()
def test_steps_map_and_score() -> None:
    """Two levels in float64: half of the anomaly goes at each, in the upper half of the sample;
    SciPy's mean of 3 x 3 pixels, away from the edges."""
    x = pictures()
    built = transfusion(T=2, smooth=3)
    built.denoiser.net = ToyHeads()
    y, inside = x.copy(), np.zeros((16, 16))
    inside[:8] = 1
    for level in (2, 1):
        appearance, normal = 0.3 * y, 0.5 * y + 0.1 * (level - 1)
        y = y - 0.5 / (level / 2) * inside * appearance + 0.5 * inside * normal
    probability = np.where(inside > 0, 1 / (1 + np.exp(-2)), 1 / (1 + np.exp(1)))
    heat = 0.95 * probability + 0.05 * np.abs(y - x).mean(1)
    heat = np.stack([uniform_filter(m, 3) for m in heat])[:, 1:-1, 1:-1]
    results = built.detect(tensor(x), [1000], Rng(["a", "b"]))
    agree(results.reconstruction[0], np.clip(y, 0, 1), GOLDEN[0])
    agree(results.map[0][:, 1:-1, 1:-1], heat, GOLDEN[1])
    assert (results.score[0] >= tensor(heat.max((1, 2))) - 1e-6).all()


def test_the_loss_of_true_predictions_is_none_but_of_the_mask() -> None:
    """With an anomaly everywhere alike, whose appearance and normal the oracle knows: the focal
    error of a sure mask is next to nothing."""
    built, normal = transfusion(), torch.full((64, 1, 16, 16), 0.5)
    appearance = torch.full((1, 1, 16, 16), 0.9)

    def anomaly(rng: Rng, shape: Any, level: Tensor) -> Tensor:
        return torch.cat([appearance, INSIDE], 1).expand(len(rng), -1, -1, -1)

    built.denoiser.net = Oracle(normal[:1], appearance)
    assert built.loss(normal, anomaly, Rng(KEYS)).max() < 1e-4
    built.denoiser.net = Oracle(normal[:1] + 0.1, appearance)
    loss = built.loss(normal, anomaly, Rng(KEYS))
    assert loss.min() > 0.1  # |n - x| alone is 0.1, and there are the similarity and the next step


def test_the_mask_before_is_shown_to_some_below_the_highest_level() -> None:
    built, shown, levels = transfusion(), [], []

    class Keep(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            shown.append(x[:, -1].amax((1, 2)))
            levels.append(timesteps + 1)
            return torch.zeros(len(x), 3, 16, 16)

    def anomaly(rng: Rng, shape: Any, level: Tensor) -> Tensor:
        return torch.ones(len(rng), 2, 16, 16)

    built.denoiser.net = Keep().train()
    built.denoiser.train()
    keys = [f"k{i}" for i in range(600)]
    built.loss(torch.zeros(600, 1, 16, 16), anomaly, Rng(keys))
    mask, level = torch.cat(shown), torch.cat(levels)
    assert (mask[level == 20] == 0).all() and set(level.tolist()) == {*range(1, 21)}
    assert mask[level < 20].mean().item() == pytest.approx(0.5, abs=0.06)


def test_training_goes_down() -> None:
    losses: list[float] = []
    built = transfusion(steps=60, lr=3e-3, batch=8, T=4)
    context = TrainingContext(
        on_event=lambda event, facts: losses.append(facts["loss"]) if "loss" in facts else None,
        event_interval=0.0,
    )
    built.fit(samples((16, 16), 4, 1), [], context)
    assert len(losses) == 60 and sum(losses[-10:]) < 0.6 * sum(losses[:10])
