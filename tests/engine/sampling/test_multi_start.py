"""Chains from many starts: those of MONAI's scheduler, fresh for each or the same for all."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from monai.networks.schedulers.pndm import PNDMScheduler
from torch import Tensor, nn

from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.diffusion.schedule import scaled_linear_schedule, shift_snr
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.multi_start import MultiStart
from adbench.engine.sampling.reconstruct import enumerate_chains, repeat_streams
from known import ConvolutionalNetwork, SmoothNetwork

KEYS = [str(i) for i in range(4)]
X = 0.5 + math.sqrt(0.05) * Rng(KEYS).fork("x").normal((1, 8, 8))


class Optimal(nn.Module):
    """The noise, for data of mean .5 and variance .05."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = scaled_linear_schedule().alpha_bar[t + 1].view(-1, 1, 1, 1).to(x.dtype)
        return (
            (1 - alpha_bar).sqrt()
            * (x - 0.5 * alpha_bar.sqrt())
            / (0.05 * alpha_bar + 1 - alpha_bar)
        )


def monais() -> Any:
    pndm = PNDMScheduler(1000, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195,
        skip_prk_steps=True, prediction_type="epsilon")  # fmt: skip
    pndm.set_timesteps(100)
    return pndm


def theirs(net: nn.Module, starts: MultiStart, *, shared: bool) -> list[Tensor]:
    """As ddpm-ood has it: with one scheduler for all starts, or a new one for each."""
    index, level = enumerate_chains(starts.levels, len(X), 1)
    streams = repeat_streams(Rng(KEYS), 1).rows(index).fork("start")
    noised = Gaussian(scaled_linear_schedule()).add_noise(
        X[index], level, streams.normal(X.shape[1:])
    )
    timesteps, scheduler = [], monais()
    for at, y in zip(starts.levels, noised.split(len(X)), strict=True):
        scheduler = scheduler if shared else monais()
        for t in scheduler.timesteps[scheduler.timesteps <= at - 1]:
            eps = net(y, torch.full((len(y),), int(t)))
            y = scheduler.step(eps, int(t), y)[0]
        timesteps.append(y)
    return timesteps


@pytest.mark.parametrize("net", [Optimal(), SmoothNetwork()])
@pytest.mark.parametrize("leaking", [False, True])
@torch.no_grad()
def test_chains_are_those_of_monais_scheduler(net: nn.Module, leaking: bool) -> None:
    starts = MultiStart(100, 16, lagged=True, shared_history=leaking, final_noise=True)
    denoiser = Denoiser(net, scaled_linear_schedule()).eval()
    ours = starts.reconstruct(denoiser, X, Rng(KEYS), len(starts.levels))
    assert len(starts.levels) == 7 == len(ours)
    for a, b in zip(ours, theirs(net, starts, shared=leaking), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_leaking_history_changes_all_starts_but_the_first() -> None:
    denoiser = Denoiser(Optimal(), scaled_linear_schedule()).eval()
    fresh, leaky = (
        MultiStart(100, 16, shared_history=leaking).reconstruct(denoiser, X, Rng(KEYS), 7)
        for leaking in (False, True)
    )
    assert torch.equal(fresh[0], leaky[0])
    for a, b in zip(fresh[1:], leaky[1:], strict=True):
        away = ((a - X).square().mean() / (b - X).square().mean()).log().abs()
        assert 0 < away < 0.2


@torch.no_grad()
def test_leaking_chains_are_the_same_in_any_company() -> None:
    keys = [str(i) for i in range(11)]
    x, denoiser = (
        Rng(keys).fork("x").normal((1, 8, 8)),
        Denoiser(ConvolutionalNetwork(), scaled_linear_schedule()),
    )
    starts = MultiStart(20, 4, shared_history=True)
    whole = starts.reconstruct(denoiser.eval(), x, Rng(keys), 5)
    some = torch.tensor([9, 2, 5])
    for count in (5, 2):  # nor do the starts above matter
        part = starts.reconstruct(denoiser, x[some], Rng(keys).rows(some), count)
        assert len(part) == count
        assert all(torch.equal(a, b[some]) for a, b in zip(part, whole, strict=False))
    assert denoiser.evaluations == 3 * (2 + 1 + 6) + (11 + 3) * (2 + 1 + 6 + 10 + 14 + 18)


def test_starts_below_a_level_may_be_left_out() -> None:
    assert MultiStart(20, 4, min_level=300).levels == [451, 651, 851]
    with pytest.raises(ValueError, match="no start is at 900 or above; the highest is at 851"):
        MultiStart(20, 4, min_level=900)


@torch.no_grad()
def test_the_last_step_aims_at_level_1_of_the_schedule_before_its_shift() -> None:
    """ddpm-ood replaces the scheduler's alphas by shifted ones, but not the one it ends at."""
    shifted = shift_snr(scaled_linear_schedule(), 4.0)
    starts = MultiStart(
        100, 16, lagged=True, final_noise=True, final_schedule=scaled_linear_schedule()
    )
    denoiser = Denoiser(SmoothNetwork(), shifted).eval()
    index, level = enumerate_chains(starts.levels, len(X), 1)
    noise = repeat_streams(Rng(KEYS), 1).rows(index).fork("start").normal(X.shape[1:])
    noised = Gaussian(shifted).add_noise(X[index], level, noise)
    ends = starts.reconstruct(denoiser, X, Rng(KEYS), len(starts.levels))
    for at, y, end in zip(starts.levels, noised.split(len(X)), ends, strict=True):
        pndm = monais()
        pndm.alphas_cumprod = shifted.alpha_bar[1:].float()
        for t in pndm.timesteps[pndm.timesteps <= at - 1]:
            eps = SmoothNetwork()(y, torch.full((len(y),), int(t)))
            y = pndm.step(eps, int(t), y)[0]
        torch.testing.assert_close(end, y, rtol=1e-4, atol=1e-5)
    own = MultiStart(100, 16, lagged=True, final_noise=True).reconstruct(denoiser, X, Rng(KEYS), 2)
    assert torch.equal(own[0], ends[0])  # lagged, a chain of two steps ends before its last one
    assert 1e-3 < (own[1] - ends[1]).abs().max().item() < 0.1
