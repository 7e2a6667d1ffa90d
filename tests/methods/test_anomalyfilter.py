"""AnomalyFilter: masked noise, the chain without noise in float64, and closed-form denoisers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import Schedule, linear_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.amplitude import moving_average
from adbench.methods.anomalyfilter import AnomalyFilter, MaskedNoise
from known import ConstantX0
from small import build_small

SPEC = Spec(2, (64,))
KEYS = [f"k{i}" for i in range(16)]


class Toy(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + 0.1 * t.view(-1, 1, 1).to(x.dtype) / 1000


class MaskedPosterior(nn.Module):
    """The exact mean of the masked noise, for white data of mean 0 and this variance.

    A value without noise is normal with variance a v, one with noise with a v + 1 - a.
    """

    def __init__(self, schedule: Schedule, variance: float, share: float) -> None:
        super().__init__()
        self.schedule, self.variance, self.share = schedule, variance, share

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a = self.schedule.alpha_bar[t + 1].view(-1, 1, 1)
        y, quiet = x.double(), a * self.variance
        loud = quiet + 1 - a
        like = [(-(y**2) / (2 * v)).exp() / v.sqrt() for v in (quiet, loud)]
        noisy = self.share * like[1] / (self.share * like[1] + (1 - self.share) * like[0] + 1e-300)
        return (noisy * (1 - a).sqrt() * y / loud).to(x.dtype)


def filter_of(net: nn.Module, prediction: Any = "noise", **more: Any) -> Any:
    built = build_small(AnomalyFilter, SPEC, amplitude="none", **{"sampling_steps": None} | more)
    built.denoiser = Denoiser(net, linear_schedule(), prediction_type=prediction).eval()
    return built.eval()


def white(keys: list[str], size: float = 0.1) -> Tensor:
    return 0.5 + size * Rng(keys).normal((2, 64))


def test_noise_is_masked_value_by_value_and_belongs_to_its_sample() -> None:
    level = torch.ones(2, dtype=torch.int64)
    noise = MaskedNoise(0.3)(Rng(["a", "b"]), (1, 20_000), level)
    assert (noise != 0).double().mean().item() == pytest.approx(0.3, abs=0.01)
    drawn = noise[noise != 0]
    assert drawn.mean().abs() < 0.03 and drawn.std().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(MaskedNoise(0.3)(Rng(["b"]), (1, 20_000), level[:1])[0], noise[1])
    assert (MaskedNoise(1.0)(Rng(["a"]), (1, 1000), level[:1]) != 0).all()


@torch.no_grad()
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_chain_adds_no_noise_golden_in_float64(eta: float) -> None:
    x = white(["a"])
    built = filter_of(Toy(), sampling_steps=4, eta=eta)
    detection = built.detect(x, [200], Rng(["a"]))
    a = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
    z = x.double().numpy() - 0.5
    y = a[200] ** 0.5 * z
    for start, end in ((200, 150), (150, 100), (100, 50), (50, 0)):
        eps = 0.3 * y + 0.1 * (start - 1) / 1000
        clean = (y - (1 - a[start]) ** 0.5 * eps) / a[start] ** 0.5
        if eta:  # the mean of the posterior, Ho et al. 2020, equation 7
            ratio = a[start] / a[end]
            y = a[end] ** 0.5 * (1 - ratio) * clean + ratio**0.5 * (1 - a[end]) * y
            y = y / (1 - a[start])
        else:
            y = a[end] ** 0.5 * clean + (1 - a[end]) ** 0.5 * eps
    np.testing.assert_allclose(detection.reconstruction[0, 0], 0.5 + y[0], atol=2e-6)
    np.testing.assert_allclose(detection.map[0, 0], ((y - z)[0] ** 2).mean(0), atol=2e-6)
    again = built.detect(x, [200], Rng(["another stream"]))
    assert torch.equal(again.map, detection.map)  # nothing is drawn


@torch.no_grad()
def test_an_oracle_leaves_the_normal_and_removes_the_rest() -> None:
    x = white(["a"])
    burst = x.repeat(2, 1, 1)
    burst[0, :, 20:30] += 0.3
    built = filter_of(ConstantX0(x - 0.5), "clean", sampling_steps=5)
    for level in (50, 750):
        detection = built.detect(burst, [level], Rng(["a", "b"]))
        normal = detection.reconstruction[0]
        torch.testing.assert_close(normal, x.expand(2, -1, -1), atol=1e-5, rtol=0)
        expected = torch.zeros(2, 64)
        expected[0, 20:30] = 0.09
        torch.testing.assert_close(detection.map[0], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_closed_form_minimises_the_loss_and_tells_normal_from_abnormal() -> None:
    """A plain diffusion model shrinks all that it is shown; one of masked noise only what is
    far out."""
    schedule, v = linear_schedule(), 0.04
    z = v**0.5 * Rng([f"s{i}" for i in range(400)]).normal((1, 64))
    losses = []
    for scale in (0.8, 1.0, 1.2):
        net = MaskedPosterior(schedule, v, 0.5)
        denoiser = Denoiser(Scaled(net, scale), schedule).train()
        losses.append(denoiser.loss(z, Rng([f"s{i}" for i in range(400)]),
            noise=MaskedNoise(0.5)).mean().item())  # fmt: skip
    assert losses[1] < min(losses[0], losses[2])
    x = white(KEYS, v**0.5)
    x[:, :, 32] = 0.5 + 8 * v**0.5
    normal = torch.arange(64) != 32
    errors = {}
    for share in (0.5, 1.0):
        built = filter_of(MaskedPosterior(schedule, v, share), sampling_steps=20)
        map = built.detect(x, [250], Rng(KEYS)).map[0]
        errors[share] = map[:, normal].mean().item(), map[:, 32].min().item()
    assert errors[0.5][0] < 0.6 * errors[1.0][0]
    assert errors[0.5][1] > 20 * errors[0.5][0]


class Scaled(nn.Module):
    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.inner, self.scale = net, scale

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.scale * self.inner(x, t)


@torch.no_grad()
def test_a_map_is_in_units_and_may_be_smoothed() -> None:
    x = white(["a"], 0.2)
    built = filter_of(ConstantX0(torch.zeros(1, 2, 64)), "clean")
    built.amplitude = "train"
    built.unit.fill_(0.2)
    map = built.detect(x, [100], Rng(["a"])).map
    torch.testing.assert_close(map[0], ((x - 0.5) / 0.2).square().mean(1), rtol=1e-4, atol=1e-5)
    smooth = filter_of(ConstantX0(torch.zeros(1, 2, 64)), "clean", smooth=5)
    smooth.amplitude = "train"
    smooth.unit.fill_(0.2)
    torch.testing.assert_close(
        smooth.detect(x, [100], Rng(["a"])).map[0], moving_average(map[0], 5)
    )


def test_padding_is_silence_and_the_unit_is_learnt() -> None:
    built = build_small(AnomalyFilter, Spec(2, (61,)))
    data = [Sample(row, k, k, False) for row, k in zip(white(KEYS)[..., :61], KEYS, strict=True)]
    built.fit(data[:12], data[12:], TrainingContext())
    assert built.unit.item() == pytest.approx(0.1, rel=0.05)
    inside = built._normalise(torch.rand(1, 2, 61, generator=torch.Generator().manual_seed(0)))
    assert inside.shape == (1, 2, 62) and (inside[..., -1] == 0).all()
    assert math.isfinite(built.eval().detect(data[0].x[None], [100], Rng(["a"])).score.item())
