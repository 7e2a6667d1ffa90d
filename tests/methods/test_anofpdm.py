"""AnoFPDM: the path, its errors and their cosine by hand; an oracle that knows what is healthy."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.anofpdm import AnoFPDM
from small import build_small, samples

ALPHA_BAR = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])


class Toy(nn.Module):
    """eps(x, t) = 0.3 x + 0.1 t / 1000, t counted from 0, and 0.2 more with the label of health."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        time, healthy = (v.view(-1, 1, 1, 1).to(x.dtype) for v in (t, label == 0))
        return 0.3 * x + 0.1 * time / 1000 + 0.2 * healthy


class LabelledX0(nn.Module):
    """Says that x_0 is `healthy` with the label of health, and `diseased` without a label."""

    def __init__(self, healthy: Tensor, diseased: Tensor) -> None:
        super().__init__()
        self.healthy, self.diseased = healthy, diseased

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return torch.where((label == 0).view(-1, 1, 1, 1), self.healthy, self.diseased)


def anofpdm(net: nn.Module, prediction_type: Any = "noise", **settings: Any) -> Any:
    method = build_small(AnoFPDM, Spec(2, (8, 8), labels=True), size=None, **settings).eval()
    method.denoiser = Denoiser(net, linear_schedule(), prediction_type=prediction_type).eval()
    return method


def by_hand(
    image: np.ndarray, levels: list[int], w: float, healthy: bool
) -> tuple[np.ndarray, float]:
    """Map and score of one image (C, H, W) in 0..1; x_0 is clipped to -1..1."""
    target = x = 2 * image - 1
    errors, distances, curves = [], [], []
    for low, high in pairwise(levels):
        at = max(low, 1)
        a = ALPHA_BAR[at]
        free = 0.3 * x + 0.1 * (at - 1) / 1000
        of_health = free + 0.2
        guided, plain, unguided = (
            np.clip((x - (1 - a) ** 0.5 * eps) / a**0.5, -1, 1)
            for eps in ((1 + w) * of_health - w * free, of_health, free)
        )
        errors.append((guided - target) ** 2)
        compared = plain if healthy else unguided
        distances.append(((guided - compared) ** 2).mean((1, 2)))
        curves.append((errors[-1].mean(), ((compared - target) ** 2).mean()))
        eps = (x - a**0.5 * unguided) / (1 - a) ** 0.5
        b, a = ALPHA_BAR[high], ALPHA_BAR[low]
        x = b**0.5 * (x - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps
    last = np.argmax(distances, 0)
    map = np.mean([np.mean(errors[: k + 1], 0)[c] for c, k in enumerate(last)], 0) / 4
    one, other = np.array(curves).T
    return map, 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@torch.no_grad()
@pytest.mark.parametrize(("w", "unguided"), [(2.0, "none"), (0.5, "healthy")])
def test_map_and_score_are_those_by_hand(w: float, unguided: str) -> None:
    method = anofpdm(Toy(), guidance=w, sampling_steps=4, unguided=unguided)
    x = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    detection = method.detect(x, [200, 600], Rng([*"abc"]))
    for i, levels in enumerate(([0, 50, 100, 150, 200], [0, 150, 300, 450, 600])):
        for n, image in enumerate(x.double().numpy()):
            map, score = by_hand(image, levels, w, unguided == "healthy")
            np.testing.assert_allclose(detection.map[i, n].numpy(), map, rtol=1e-3, atol=1e-6)
            assert detection.score[i, n].item() == pytest.approx(score, abs=1e-5)
    assert method.denoiser.evaluations == 3 * (4 + 4) * 2


@torch.no_grad()
def test_an_oracle_finds_the_lesion_and_says_what_is_healthy_there() -> None:
    diseased = torch.full((2, 8, 8), 0.0)
    diseased[0, 2:5, 2:5] = 0.6  # 0.8 in [0, 1]
    oracle = LabelledX0(torch.zeros(2, 8, 8), diseased)
    method = anofpdm(oracle, "clean", guidance=0.0, sampling_steps=5)
    x = (diseased[None] + 1) / 2
    detection = method.detect(x, [600], Rng(["a"]))
    torch.testing.assert_close(detection.map[0, 0], (x[0] - 0.5).square().mean(0))
    torch.testing.assert_close(detection.reconstruction[0, 0], torch.full((2, 8, 8), 0.5))
    assert detection.score.item() == pytest.approx(1)  # without a label there is no error at all
    assert anofpdm(oracle, "clean", judged="map").detect(x, [600], Rng(["a"])).score < 1


def test_a_share_of_the_labels_is_left_out() -> None:
    """Of 400 rows that are trained on about a tenth has no label; the others have their own."""
    shown: list[Tensor] = []

    class Listening(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))

        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            shown.append(label)
            return x * self.weight

    method = anofpdm(Listening(), unlabelled=0.1, steps=4, batch=100)
    train = [replace(s, label=i == 1) for i, s in enumerate(samples((8, 8), 4))]
    method.fit(train, train, TrainingContext())
    labels = torch.cat(shown)
    assert len(labels) == 400
    assert (labels == -1).float().mean().item() == pytest.approx(0.1, abs=0.05)
    assert (labels == 1).float().mean().item() == pytest.approx(0.9 / 4, abs=0.07)
