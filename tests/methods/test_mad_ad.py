"""MAD-AD's own: masks in patches, steps where there is noise, golden values and oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.codecs.codec import Identity
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.mad_ad import MADAD
from equations import agree, linear_alpha_bar, pictures, tensor, toy, x0_from_noise
from small import build_small, samples

GOLDEN = (0.509650792, 0.328480102, 0.902749744)
"""Means of reconstruction, map and score."""

SPEC, KEYS = Spec(1, (16, 16)), [f"s{i}" for i in range(200)]
A = linear_alpha_bar()


class Oracle(nn.Module):
    """Knows the normal code: the mask is where the code shown differs from it."""

    def __init__(self, normal: Tensor) -> None:
        super().__init__()
        self.normal, self.levels = normal, list[int]()

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.levels.append(int(timesteps[0]) + 1)
        mask = ((x[:, :-1] - self.normal).abs() > 1e-4).any(1, keepdim=True).to(x.dtype)
        return torch.cat([self.normal.expand_as(x[:, :-1]), mask], 1)


class ToyWithMask(nn.Module):
    """The toy network's number as x_0, and a mask of 1 in the upper half, 0.4 in the lower."""

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        code = x[:, :-1]
        clean = 0.3 * code + 0.1 * timesteps.view(-1, 1, 1, 1) / 1000
        mask = torch.full_like(code[:, :1], 0.4)
        mask[:, :, :8] = 1.0
        return torch.cat([clean, mask], 1)


def mad(**more: Any) -> Any:
    built = build_small(MADAD, SPEC, **{"sampling_steps": 10} | more).eval()
    built.codec = Identity((1, 16, 16), (-1.0, 1.0))
    return built


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(MADAD, Spec(1, (256, 256)))
    assert built.codec.latent == (4, 32, 32) and built.sampling_steps == 10 and built.eta == 0.5
    assert built.plan.batch == 96 and built.plan.lr == 4e-5 and built.plan.weight_decay == 1e-4
    assert (built.patches.disturbed, built.patches.mask_weight) == (0.4, 0.001)
    assert (built.largest, built.blur, built.threshold) == (0.25, 5.0, 0.5)


@torch.no_grad()
def test_with_an_oracle_the_anomaly_alone_is_corrected() -> None:
    """0.1 of the range -1..1 is 0.4 of what counts at most; elsewhere nothing changes at all."""
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built = mad(blur=0.0)
    built.denoiser.net = net = Oracle(2 * healthy - 1)
    x = healthy.clone()
    x[..., 5:9, 5:9] += 0.05
    results = built.detect(x, [1000], Rng(["a"]))
    assert net.levels == [*range(1000, 0, -100)]
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[5:9, 5:9] = True
    torch.testing.assert_close(results.map[0, 0][inside], torch.full((16,), 0.4), rtol=1e-3, atol=0)
    assert results.map[0, 0][~inside].max() == 0 and results.score[0, 0] == results.map.max()
    torch.testing.assert_close(results.reconstruction[0], healthy, rtol=0, atol=1e-5)


@torch.no_grad()
def test_steps_map_and_score() -> None:
    """DDIM without noise from 1000 to 500 to 0 in float64, in the upper half alone, and SciPy's
    blur of the clipped difference."""
    x = pictures()
    built = mad(sampling_steps=2, eta=0.0, largest=0.25, blur=2.0)
    built.denoiser.net = ToyWithMask()
    start = 2 * x - 1
    z = start.copy()
    for level, end in ((1000, 500), (500, 0)):
        clean = toy(z, level)
        eps = (z - np.sqrt(A[level]) * clean) / np.sqrt(1 - A[level])
        np.testing.assert_allclose(x0_from_noise(z, eps, A[level]), clean, atol=1e-9)
        after = np.sqrt(A[end]) * clean + np.sqrt(1 - A[end]) * eps
        z[:, :, :8] = after[:, :, :8]
    assert np.array_equal(z[:, :, 8:], start[:, :, 8:])
    heat = np.minimum(np.abs(z - start).mean(1), 0.25) * 4
    heat = np.stack([gaussian_filter(m, 2) for m in heat])
    results = built.detect(tensor(x), [1000], Rng(["a", "b"]))
    agree(results.reconstruction[0], np.clip((z + 1) / 2, 0, 1), GOLDEN[0])
    agree(results.map[0], heat, GOLDEN[1])
    agree(results.score[0], heat.max((1, 2)), GOLDEN[2])


@torch.no_grad()
def test_the_share_of_noise_is_ddims() -> None:
    """Two chains of one step that differ by eta alone differ by its noise, of DDPM's variance
    eta^2 (1 - b) / (1 - a) (1 - a / b), up to the smaller share of the predicted noise."""
    z = torch.zeros(200, 1, 16, 16)
    built = mad(sampling_steps=2, eta=1.0)
    built.denoiser.net = Oracle(torch.full((1, 1, 16, 16), 1.0))
    inner, images = [], built.codec
    images.decode = lambda code: inner.append(code) or code
    built.detect((z + 1) / 2, [1000], Rng(KEYS))
    assert inner[-1].isfinite().all()
    torch.testing.assert_close(inner[-1], torch.ones_like(z), rtol=1e-3, atol=1e-3)  # at level 0


def test_masks_are_of_whole_patches_up_to_the_share() -> None:
    built = mad(cells=(4,), disturbed=0.4)
    mask = built.sample_mask((16, 16), Rng(KEYS))
    cell = mask[:, :, ::4, ::4]
    assert torch.equal(cell.repeat_interleave(4, 2).repeat_interleave(4, 3), mask)
    share = mask.flatten(1).double().mean(1)
    assert share.max() <= 0.4 + 1 / 16 and share.mean().item() == pytest.approx(0.23, abs=0.03)
    assert torch.equal(built.sample_mask((16, 16), Rng(KEYS[3:4]))[0], mask[3])


def test_sizes_of_patches_are_drawn_evenly() -> None:
    built = mad(cells=(1, 16), disturbed=0.4)
    whole = built.sample_mask((16, 16), Rng(KEYS)).flatten(1).all(1).double().mean()
    assert whole.item() == pytest.approx(0.5, abs=0.1)  # the one patch of 16 always has noise


def test_the_loss_is_that_of_code_and_mask() -> None:
    """Of a network that says 0: the power of the code, and the share of noise by its weight."""
    built = mad(cells=(2,), mask_weight=0.5)
    z = Rng(KEYS).fork("z").normal((1, 16, 16))

    class Zero(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            return torch.zeros_like(x)

    built.denoiser.net = Zero()
    mask = built.sample_mask((16, 16), Rng(KEYS).fork("mask"))
    expected = z.square().flatten(1).mean(1) + 0.5 * mask.flatten(1).float().mean(1)
    torch.testing.assert_close(built.loss(z, Rng(KEYS)), expected)


def test_only_patches_have_noise_in_training() -> None:
    built, shown = mad(cells=(4,)), []

    class Keep(nn.Module):
        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            shown.append(x)
            return x

    built.denoiser.net = Keep()
    z = Rng(KEYS[:8]).fork("z").normal((1, 16, 16))
    built.loss(z, Rng(KEYS[:8]))
    mask = built.sample_mask((16, 16), Rng(KEYS[:8]).fork("mask"))
    assert torch.equal(shown[0][:, :1] != z, mask) and (shown[0][:, 1] == 0).all()


def test_training_goes_down() -> None:
    losses: list[float] = []
    built = build_small(MADAD, SPEC, steps=40, coder_steps=2, lr=3e-3, batch=8)
    context = TrainingContext(
        on_event=lambda event, facts: losses.append(facts["loss"]) if "loss" in facts else None,
        event_interval=0.0,
    )
    built.fit(samples((16, 16), 2, 1), [], context)
    assert len(losses) == 42 and sum(losses[-8:]) < 0.8 * sum(losses[2:10])
