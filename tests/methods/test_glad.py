"""GLAD's own: the noise that leads back, steps of the sample's own, the threshold and the map."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.codecs.codec import Identity
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.glad import GLAD
from equations import Array, ToyNetwork, linear_alpha_bar, pictures, q_sample, tensor, toy
from equations import x0_from_noise as x0_of
from known import NoiseField
from small import build_small, samples

SPEC, A = Spec(1, (16, 16)), linear_alpha_bar()
KEYS = ["a", "b"]
LEVELS = (500, 375, 250, 125, 0)


class Features(nn.Module):
    """The stand-in for features: the distance of two images is that of their pixels."""

    def distance(self, x: Tensor, y: Tensor, *, smooth: int) -> Tensor:
        return (x - y).abs().mean(1)


def glad(**more: Any) -> Any:
    settings = {"sampling_steps": 4, "beta": "linear", "features": "effperc-random"} | more
    built = build_small(GLAD, SPEC, **settings).eval()
    built.codec, built.features = Identity((1, 16, 16), (-1.0, 1.0)), Features()
    built.denoiser.net = ToyNetwork()
    return built


def unit(x: Array) -> Array:
    return np.clip((x + 1) / 2, 0, 1)


def chain(z: Array, noise: Array, threshold: float, lowest: float = 0.7) -> tuple[Array, list[int]]:
    """The authors' steps of one sample, and the levels at which its own estimate is taken over."""
    x, levels, over = q_sample(z, noise, A[500]), list[int](), False
    for level, end in pairwise(LEVELS):
        eps = toy(x, level)
        clean, own = x0_of(x, eps, A[level]), x0_of(q_sample(z, noise, A[level]), eps, A[level])
        distance = np.abs(unit(own) - unit(clean)).mean(0)
        peak = np.sort(distance.ravel())[::-1][:3].mean()  # 0.0125 of 256 positions
        last = level < lowest * 500
        if not over and (peak > threshold or last):
            share = 1 / (1 + np.exp(-distance))
            clean = share * clean + (1 - share) * own if peak > threshold else own
            over = True
            levels.append(level)
        x = np.sqrt(A[end]) * clean + np.sqrt(1 - A[end]) * eps
    return x, levels


def test_the_defaults_are_what_the_paper_has() -> None:
    with torch.device("meta"):
        built = build(GLAD, Spec(3, (256, 256)))
    assert built.codec.latent == (4, 32, 32) and built.sampling_steps == 25
    assert built.published == 500 and built.adaptive.lowest == 350 / 500
    assert built.top == pytest.approx(250 / 512**2, rel=0.05)


@torch.no_grad()
@pytest.mark.parametrize(
    ("threshold", "taken"), [(-1.0, [500]), (0.05, [375]), (float("inf"), [250])]
)
def test_the_way_down_is_that_of_the_equations(threshold: float, taken: list[int]) -> None:
    """In float64, sample by sample: at the first level, in between, or at the latest."""
    built, z = glad(peak=0.0125), 2 * pictures() - 1
    noise = Rng(KEYS).fork("start").normal((1, 16, 16))
    ours = built._reconstruct(tensor(z), [500], Rng(KEYS), torch.tensor(threshold))
    for i in range(2):
        end, levels = chain(z[i], noise[i].double().numpy(), threshold)
        assert levels == taken
        np.testing.assert_allclose(ours.ends[i].numpy(), end, rtol=0, atol=1e-4)


@torch.no_grad()
def test_a_chain_that_never_takes_over_is_ddim() -> None:
    built, z = glad(lowest=0.0), 2 * pictures() - 1
    noise = Rng(KEYS).fork("start").normal((1, 16, 16)).double().numpy()
    x = q_sample(z, noise, A[500])
    for level, end in pairwise(LEVELS):
        eps = toy(x, level)
        x = np.sqrt(A[end]) * x0_of(x, eps, A[level]) + np.sqrt(1 - A[end]) * eps
    ours = built._reconstruct(tensor(z), [500], Rng(KEYS), torch.tensor(float("inf")))
    np.testing.assert_allclose(ours.ends.numpy(), x, rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_noise_to_be_predicted_leads_back_to_the_normal_code() -> None:
    """What the network is shown is the mixed code with noise, and with a network that says 0 the
    loss is the power of (shown - sqrt(alpha_bar) z) / sqrt(1 - alpha_bar)."""
    built, shown = glad(), []
    built.denoiser.net = NoiseField(torch.zeros(1, 16, 16))
    built.denoiser.net.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    z, abnormal = tensor(2 * pictures() - 1), torch.zeros(2, 1, 16, 16)
    rng = Rng(KEYS)
    loss = built.loss(z, abnormal, rng)
    level = 1 + rng.fork("level").integers(1000)
    a = torch.from_numpy(A)[level].view(-1, 1, 1, 1)
    share = (level / 1000).view(-1, 1, 1, 1)
    mixed = share * abnormal + (1 - share) * z
    noisy = a.sqrt() * mixed + (1 - a).sqrt() * rng.fork("noise").normal((1, 16, 16))
    torch.testing.assert_close(shown[0][:2].double(), noisy, rtol=1e-4, atol=1e-5)
    back = (noisy - a.sqrt() * z) / (1 - a).sqrt()
    expected = back.square().flatten(1).mean(1)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_map_is_the_distance_and_the_score_the_mean_of_its_highest() -> None:
    built = glad(blur=0.0, top=4 / 256)
    built.threshold.fill_(float("inf"))
    x = tensor(pictures())
    results = built.detect(x, [500], Rng(KEYS))
    ends = built._reconstruct(2 * x - 1, [500], Rng(KEYS), built.threshold).ends
    expected = (tensor(unit(ends.double().numpy())) - x).abs().mean(1)
    torch.testing.assert_close(results.map[0], expected, rtol=1e-4, atol=1e-5)
    highest = expected.flatten(1).sort(1, descending=True).values[:, :4].mean(1)
    torch.testing.assert_close(results.score[0], highest, rtol=1e-4, atol=1e-5)


def test_a_share_of_calibration_samples_exceeds_the_threshold() -> None:
    built = glad(exceeding=0.25, calibration=8)
    built._calibrate(samples((16, 16), 8, 1), TrainingContext())
    x = torch.stack([s.x for s in samples((16, 16), 8, 1)])
    rng = Rng([s.key for s in samples((16, 16), 8, 1)]).fork("calibrate")
    peaks = built._reconstruct(2 * x - 1, [500], rng, torch.tensor(float("inf"))).highest
    assert (peaks > built.threshold).sum() == 2


def test_training_goes_down_and_needs_calibration_samples() -> None:
    losses: list[float] = []
    small = {"features": "effperc-random", "steps": 40, "coder_steps": 2, "lr": 3e-3, "batch": 8}
    built = build_small(GLAD, SPEC, **small)
    context = TrainingContext(
        on_event=lambda event, facts: losses.append(facts["loss"]) if "loss" in facts else None,
        event_interval=0.0,
    )
    built.fit(samples((16, 16), 2, 1), samples((16, 16), 3, 1, "c"), context)
    assert sum(losses[34:42]) < 0.9 * sum(losses[2:10]) and built.threshold.isfinite()
    with pytest.raises(ValueError, match="calibration samples; there are none"):
        built.fit(samples((16, 16), 2, 1), [], context)
