"""Solvers of rectified flow against the closed form for normal data, and diffusers' Euler."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers.schedulers import (
    scheduling_flow_match_euler_discrete,
    scheduling_flow_match_heun_discrete,
)
from torch import Tensor

from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.flow import Flow
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.diffusion.schedule import linear_schedule, sampling_levels
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.guidance import image_conditioned_guidance
from adbench.engine.sampling.process_config import ProcessConfig
from adbench.engine.sampling.reconstruct import (
    SamplingConfig,
    ddim_invert,
    reconstruct,
    reverse_process,
)
from known import ConstantX0, NormalVelocity, SmoothNetwork

T, MEAN, VARIANCE = 1000, 0.3, 0.25
KEYS = list("abc")
X = Rng(KEYS).fork("x").normal((2, 5, 4))
EULER: Any = scheduling_flow_match_euler_discrete.FlowMatchEulerDiscreteScheduler
HEUN: Any = scheduling_flow_match_heun_discrete.FlowMatchHeunDiscreteScheduler


class Velocity(torch.nn.Module):
    """Says the velocity of the line from x_0 = `image`."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = image

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return (x - self.image) * T / (timesteps + 1).view(-1, 1, 1, 1)


def denoiser_of(net: torch.nn.Module, **more: Any) -> Denoiser:
    options: Any = {"process": Flow, "prediction_type": "velocity"} | more
    return Denoiser(net, linear_schedule(T), **options).eval()


def exact(start: Tensor, t: float, end: float) -> Tensor:
    """The solution for normal data: x_t is the mean plus as many deviations all the way."""
    spread = [((1 - s) ** 2 * VARIANCE + s**2) ** 0.5 for s in (t, end)]
    return (1 - end) * MEAN + spread[1] / spread[0] * (start - (1 - t) * MEAN)


def solve(net: torch.nn.Module, sampler: Any, levels: list[int], x: Tensor = X) -> Tensor:
    sampling = SamplingConfig(sampler=sampler)
    return reverse_process(denoiser_of(net), x, [levels] * len(x), Rng(KEYS), sampling=sampling)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_the_error_of_a_solver_falls_with_its_order(sampler: str, order: int) -> None:
    """From noise to level 100, by 9, 18 and 36 steps: halved steps, an error of 2 ** -order."""
    net, true = NormalVelocity(T, MEAN, VARIANCE), exact(X, 1.0, 0.1)
    errors = [
        (solve(net, sampler, list(range(1000, 99, -stride))) - true).abs().mean().item()
        for stride in (100, 50, 25)
    ]
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.25)
    assert errors[0] < (0.1 if order == 1 else 0.01)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_normal_data_come_back_as_what_they_are(sampler: Any) -> None:
    """All levels from pure noise: mean and variance of the data, place by place."""
    got = solve(NormalVelocity(T, MEAN, VARIANCE), sampler, sampling_levels(1000, 100))
    torch.testing.assert_close(got, exact(X, 1.0, 0.0), rtol=0, atol=0.02)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_network_that_knows_the_line_solves_it_in_any_number_of_steps(
    sampler: Any, steps: int
) -> None:
    image = X[:1]
    got = reconstruct(
        denoiser_of(Velocity(image)), image + 1, [500, 1000], Rng(["a"]),
        sampling=SamplingConfig(steps, sampler=sampler),
    )  # fmt: skip
    torch.testing.assert_close(got[:, 0, 0], image.expand(2, -1, -1, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_it_is_diffusers_scheduler(sampler: str) -> None:
    """Which knows a time, 0..1000, where ours counts levels, and calls the network with it."""

    class Shifted(SmoothNetwork):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(x, t + 1)

    grid = sampling_levels(1000, 5)
    scheduler = (EULER if sampler == "euler" else HEUN)(num_train_timesteps=1000)
    scheduler.set_timesteps(5)
    if sampler == "euler":
        scheduler.set_timesteps(sigmas=[level / 1000 for level in grid[:-1]])
    else:  # its grid is its own, and asked for here at our levels
        sigmas = torch.tensor([level / 1000 for level in grid[:-1]])
        twice = torch.cat([sigmas[:1], sigmas[1:].repeat_interleave(2)])
        scheduler.sigmas = torch.cat([twice, torch.zeros(1)])
        scheduler.timesteps = 1000 * twice
    net, x = SmoothNetwork(), X
    for t in scheduler.timesteps:
        x = scheduler.step(net(x, t.expand(3)), t, x).prev_sample
    torch.testing.assert_close(solve(Shifted(), sampler, grid), x, rtol=1e-4, atol=1e-4)


def test_going_up_and_down_again_changes_nothing_but_rounding() -> None:
    """By 10 levels a step, with the exact velocity: to the error of the solver, and the noise is
    that of the closed form."""
    denoiser = denoiser_of(NormalVelocity(T, MEAN, VARIANCE))
    noise = ddim_invert(denoiser, X, [500, 1000], sampling=SamplingConfig(stride=10))
    torch.testing.assert_close(noise[1], exact(X, 0.0, 1.0), rtol=0.02, atol=0.02)
    torch.testing.assert_close(noise[0], exact(X, 0.0, 0.5), rtol=0.02, atol=0.02)
    back = solve(denoiser.net, "euler", sampling_levels(1000, stride=10), noise[1])
    torch.testing.assert_close(back, X, rtol=0.04, atol=0.04)


def test_clipped_estimates_are_on_the_line_to_what_they_are_clipped_to() -> None:
    denoiser = denoiser_of(Velocity(torch.full((2, 5, 4), 3.0)), clip=(-1.0, 1.0))
    got = reverse_process(denoiser, X, [[800, 400, 0]] * 3, Rng(KEYS),
        sampling=SamplingConfig(sampler="euler"))  # fmt: skip
    torch.testing.assert_close(got, torch.ones_like(X))


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_guidance_moves_x0_by_the_square_of_the_noises_weight(weight: float) -> None:
    """Estimates of x_0 that are 0, led to 1: one step from t ends at weight * t ** 2, and what is
    led stays consistent: noise and x_0 imply x."""
    denoiser = denoiser_of(Velocity(torch.zeros(2, 5, 4)))
    guide = image_conditioned_guidance(denoiser.process, torch.ones(3, 2, 5, 4), weight)
    got = reverse_process(denoiser, X, [[400, 0]] * 3, Rng(KEYS), guide=guide,
        sampling=SamplingConfig(sampler="euler"))  # fmt: skip
    torch.testing.assert_close(got, torch.full_like(X, weight * 0.16), rtol=1e-4, atol=1e-5)
    half = reverse_process(denoiser, X, [[400, 200]] * 3, Rng(KEYS), guide=guide,
        sampling=SamplingConfig(sampler="euler"))  # fmt: skip
    clean = weight * 0.16
    noise = (X - 0.6 * clean) / 0.4
    torch.testing.assert_close(half, 0.8 * clean + 0.2 * noise, rtol=1e-4, atol=1e-5)


def test_samplers_are_of_one_process() -> None:
    x, rng = X, Rng(KEYS)
    with pytest.raises(ValueError, match="has the samplers euler, heun, not 'ddpm'"):
        reconstruct(denoiser_of(SmoothNetwork()), x, [100], rng)
    with pytest.raises(ValueError, match="'heun' is of a flow process"):
        reconstruct(
            Denoiser(ConstantX0(x[:1]), linear_schedule(), process=Gaussian).eval(), x, [100], rng,
            sampling=SamplingConfig(sampler="heun"),
        )  # fmt: skip
    flow = ProcessConfig("flow", "heun")
    assert flow.sampling(SamplingConfig(7, 1.0)) == SamplingConfig(7, sampler="heun")
    assert ProcessConfig().sampling(SamplingConfig(7, 1.0)) == SamplingConfig(7, 1.0)
