"""Samplers against diffusers' schedulers, against the ODE they solve, and known data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from diffusers.schedulers import (
    scheduling_ddim,
    scheduling_ddim_inverse,
    scheduling_ddpm,
    scheduling_dpmsolver_multistep,
    scheduling_pndm,
)
from torch import Tensor

from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.diffusion.schedule import (
    cosine_schedule,
    linear_schedule,
    sampling_levels,
    scaled_linear_schedule,
)
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.continuous_batching import run_chains
from adbench.engine.sampling.reconstruct import (
    SamplingConfig,
    ddim_invert,
    reconstruct,
    reverse_process,
)
from adbench.engine.sampling.solvers import DdimOde
from known import ConstantX0, NoiseField, NormalPosteriorMean, SmoothNetwork

DDPM: Any = scheduling_ddpm.DDPMScheduler
DDIM: Any = scheduling_ddim.DDIMScheduler
INVERSE: Any = scheduling_ddim_inverse.DDIMInverseScheduler
PNDM: Any = scheduling_pndm.PNDMScheduler
DPM: Any = scheduling_dpmsolver_multistep.DPMSolverMultistepScheduler
KEYS = list("abc")
X = Rng(KEYS).fork("x").normal((2, 5, 4))
TOP, STRIDE = 951, 50  # timesteps 950, 900, ..., 0
GRID = sampling_levels(TOP, stride=STRIDE)


def denoiser_of(net: torch.nn.Module, **more: Any) -> Denoiser:
    return Denoiser(net, linear_schedule(), **more).eval()


def ours(
    denoiser: Denoiser, chain: SamplingConfig, x: Tensor = X, grid: Sequence[int] = GRID
) -> Tensor:
    return reverse_process(denoiser, x, [grid] * len(x), Rng(KEYS), sampling=chain)


def theirs(scheduler: Any, timesteps: Sequence[int], outs: int = 1, **more: Any) -> Tensor:
    net, x = SmoothNetwork(outs), X
    for t in timesteps:
        x = scheduler.step(net(x, torch.full((3,), int(t))), int(t), x, **more).prev_sample
    return x


def times(levels: Sequence[int]) -> list[int]:
    return [level - 1 for level in levels if level]


@pytest.mark.parametrize("grid", [GRID, sampling_levels(9)])
@pytest.mark.parametrize("kind", ["fixed_small", "fixed_large", "learned_range"])
def test_ddpm_is_diffusers(kind: str, grid: list[int], monkeypatch) -> None:
    """With the same noise at every step: what our streams draw at the step's own level."""
    learned = kind == "learned_range"
    scheduler = DDPM(1000, variance_type=kind, clip_sample=False)
    at = iter(grid)
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_ddpm.randn_tensor",
        lambda shape, **_: Rng(KEYS).at(next(at)).normal(shape[1:]),
    )
    scheduler.set_timesteps(timesteps=times(grid))
    other = theirs(scheduler, times(grid), 1 + learned)
    variance: Any = {"fixed_small": "small", "fixed_large": "large"}.get(kind, "learned")
    denoiser = denoiser_of(SmoothNetwork(1 + learned), learns_variance=learned)
    torch.testing.assert_close(
        ours(denoiser, SamplingConfig(variance=variance), grid=grid), other, rtol=1e-3, atol=1e-3
    )


def test_ddim_is_diffusers() -> None:
    scheduler = DDIM(1000, clip_sample=False, set_alpha_to_one=True, steps_offset=0)
    scheduler.set_timesteps(20)
    assert scheduler.timesteps.tolist() == times(GRID)
    other = theirs(scheduler, times(GRID))
    out = ours(denoiser_of(SmoothNetwork()), SamplingConfig(sampler="ddim"))
    torch.testing.assert_close(out, other, rtol=1e-3, atol=1e-3)


def test_plms_is_diffusers_pndm_without_runge_kutta() -> None:
    scheduler = PNDM(1000, skip_prk_steps=True, set_alpha_to_one=True, steps_offset=0)
    scheduler.set_timesteps(20)
    assert sorted(set(scheduler.timesteps.tolist()), reverse=True) == times(GRID)
    net = SmoothNetwork()
    out = ours(denoiser_of(net), SamplingConfig(sampler="plms"))
    assert [timesteps[0] for timesteps in net.timesteps] == scheduler.timesteps.tolist()
    torch.testing.assert_close(out, theirs(scheduler, scheduler.timesteps), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 4, 20])
def test_dpm_solver_is_diffusers(steps: int) -> None:
    grid = sampling_levels(TOP, steps)
    scheduler = DPM(1000, solver_order=2, final_sigmas_type="zero", lower_order_final=True)
    scheduler.set_timesteps(timesteps=times(grid))
    out = ours(denoiser_of(SmoothNetwork()), SamplingConfig(sampler="dpm++"), grid=grid)
    torch.testing.assert_close(out, theirs(scheduler, times(grid)), rtol=1e-3, atol=1e-3)


def test_inversion_is_diffusers() -> None:
    """diffusers asks at the level a step leads to, ours at the one it leaves: so the network here
    does not look at the timestep."""

    class Still(SmoothNetwork):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(x, 0 * t)

    scheduler, net, x = INVERSE(1000, clip_sample=False, set_alpha_to_one=True), Still(), X
    scheduler.set_timesteps(20)
    for t in scheduler.timesteps.tolist():
        x = scheduler.step(net(x, torch.full((3,), t)), t, x).prev_sample
    up = [[0, *(t + 1 for t in scheduler.timesteps.tolist())]] * 3
    out = run_chains(denoiser_of(Still()), DdimOde(Gaussian(linear_schedule())), X, up)
    torch.testing.assert_close(out, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
@pytest.mark.parametrize(
    "chain", [SamplingConfig(sampler="ddim"), SamplingConfig(sampler="ddim", steps=7)]
)
def test_decoding_undoes_encoding_for_a_constant_noise(
    chain: SamplingConfig, dtype, most: float
) -> None:
    x = X.to(dtype)
    denoiser = denoiser_of(NoiseField(Rng(["eps"]).normal((2, 5, 4)).to(dtype)))
    coded = ddim_invert(denoiser, x, [500], sampling=chain)[0]
    assert (coded - x).abs().max() > 0.5
    rungs = sampling_levels(500, chain.steps)
    back = reverse_process(denoiser, coded, [rungs] * 3, Rng(KEYS), sampling=chain)
    assert (back - x).abs().max() < most
    assert denoiser.evaluations == 2 * 3 * (len(rungs) - 1)


@pytest.mark.parametrize("level", [50, 200, 999])
def test_the_round_trip_of_normal_data_is_short(level: int) -> None:
    """Root mean square at most .0026, no more than .013 anywhere."""
    x = 0.25 + 0.05 * Rng(["a"]).normal((1, 24, 24))
    denoiser = denoiser_of(
        NormalPosteriorMean(linear_schedule(), 0.25, 0.0025), prediction_type="clean"
    )
    coded = ddim_invert(denoiser, x, [level])[0]
    back = reverse_process(
        denoiser,
        coded,
        [sampling_levels(level)],
        Rng(["a"]),
        sampling=SamplingConfig(sampler="ddim"),
    )
    assert (back - x).square().mean().sqrt() < 0.0026 and (back - x).abs().max() < 0.013


def test_timesteps_of_the_guided_references_trace() -> None:
    """1..499 on the way up, 498..0 on the way down, by explicit ladders."""
    net = SmoothNetwork()
    denoiser = denoiser_of(net)
    denoiser.batch = 1
    up = run_chains(denoiser, DdimOde(Gaussian(linear_schedule())), X[:1], [list(range(2, 502))])
    reverse_process(
        denoiser, up, [sampling_levels(499)], Rng(["a"]), sampling=SamplingConfig(sampler="ddim")
    )
    assert [a[0] for a in net.timesteps] == [*range(1, 500), *range(498, -1, -1)]


def test_inversion_to_many_levels_goes_the_way_once() -> None:
    denoiser = denoiser_of(SmoothNetwork())
    many = ddim_invert(denoiser, X, [5, 20, 12])
    assert denoiser.evaluations == 3 * 20
    for coded, level in zip(many, (5, 20, 12), strict=True):
        assert torch.equal(coded, ddim_invert(denoiser, X, [level])[0])


def test_multistep_solvers_converge_faster_than_ddim() -> None:
    """Of normal data the ODE only shrinks the deviation. DDIM is of first order, the others, whose
    steps are not even in what they integrate over, of second."""
    variance, low, high = 0.25, 200, 840
    denoiser = denoiser_of(
        NormalPosteriorMean(linear_schedule(), 0.0, variance), prediction_type="clean"
    )
    x, alpha_bar, error = X.double(), linear_schedule().alpha_bar, {}
    spread = [math.sqrt(alpha_bar[at] * variance + 1 - alpha_bar[at]) for at in (low, high)]
    samplers: list[Any] = ["ddim", "plms", "dpm++"]
    for sampler in samplers:
        for steps in (32, 128):
            grid = [high - (high - low) * i // steps for i in range(steps + 1)]
            got = ours(denoiser, SamplingConfig(sampler=sampler), x, grid)
            error[sampler, steps] = (got - x * spread[0] / spread[1]).abs().max().item()
    order = {s: math.log(error[s, 32] / error[s, 128], 4) for s in samplers}
    assert order["ddim"] == pytest.approx(1, abs=0.1)
    assert order["dpm++"] == pytest.approx(2, abs=0.1) and order["plms"] > 1.7
    assert error["plms", 32] < error["ddim", 32] / 50
    assert error["dpm++", 32] < error["ddim", 32] / 10


@pytest.mark.parametrize(
    ("level", "ddim", "plms"),
    [(11, 0.0130, 0.0140), (51, 0.0371, 0.0411), (251, 0.0703, 0.0789), (491, 0.0829, 0.0931),
     (731, 0.0880, 0.0990), (991, 0.0903, 0.1011)],
)  # fmt: skip
def test_ddpm_oods_golden_errors(level: int, ddim: float, plms: float) -> None:
    """DDPM-OOD: N(.5, v=.05), scaled linear, a grid of ten levels, last A = 1."""
    schedule, keys = scaled_linear_schedule(), [str(i) for i in range(16)]
    denoiser = Denoiser(
        NormalPosteriorMean(schedule, 0.5, 0.05), schedule, prediction_type="clean"
    ).eval()
    denoiser.batch = 16
    x = 0.5 + math.sqrt(0.05) * Rng(keys).fork("x").normal((1, 32, 32))
    noised = Gaussian(schedule).add_noise(
        x, torch.full((16,), level), Rng(keys).normal((1, 32, 32))
    )
    runs: list[tuple[Any, float]] = [("ddim", ddim), ("plms", plms)]
    for sampler, golden in runs:
        grid = [sampling_levels(level, stride=10)] * 16
        chain = SamplingConfig(sampler=sampler)
        out = reverse_process(denoiser, noised, grid, Rng(keys), sampling=chain)
        assert (out - x).square().mean().item() == pytest.approx(golden, rel=0.03)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "plms", "dpm++"])
@pytest.mark.parametrize("build", [linear_schedule(), cosine_schedule()], ids=["linear", "cosine"])
def test_a_perfect_denoiser_gives_no_error(sampler: Any, build) -> None:
    image = Rng(["image"]).normal((2, 5, 4))
    denoiser = Denoiser(ConstantX0(image), build, prediction_type="clean").eval()
    for chain in (
        SamplingConfig(steps=1),
        SamplingConfig(steps=9),
        SamplingConfig(stride=40),
        SamplingConfig(),
    ):
        one = SamplingConfig(chain.steps, sampler=sampler, stride=chain.stride)
        out = reconstruct(denoiser, X, [1, 2, 60], Rng(KEYS), sampling=one)
        torch.testing.assert_close(out, image.expand_as(out), rtol=0, atol=1e-4)


def test_the_calls_of_each_sampler() -> None:
    costs: list[tuple[Any, int]] = [("ddim", 6), ("dpm++", 6), ("plms", 7)]
    for sampler, calls in costs:
        denoiser = denoiser_of(SmoothNetwork())
        reconstruct(
            denoiser, X, [300], Rng(KEYS), sampling=SamplingConfig(steps=6, sampler=sampler)
        )
        assert denoiser.evaluations == 3 * calls
    counts = {1: 99, 2: 50, 3: 33, 4: 25, 5: 20, 8: 13, 16: 7, 32: 4, 64: 2}
    calls = {1: 5049, 2: 2550, 3: 1650, 4: 1250, 5: 990, 8: 650, 16: 350, 32: 200, 64: 68}
    for skip, count in counts.items():  # the reference has no second call
        starts = range(11, 1000, 10 * skip)
        assert len(starts) == count
        assert sum(len(sampling_levels(level, stride=10)) - 1 for level in starts) == calls[skip]


@pytest.mark.parametrize("lagged", [False, True])
def test_the_references_last_step_leaves_a_floor_of_noise(lagged: bool) -> None:
    """DDPM-OOD: arrived at A_0 in place of 1 a perfect denoiser errs by .0015,
    and MONAI's plms makes the calls of the table above."""
    schedule, keys = scaled_linear_schedule(), [str(i) for i in range(8)]
    image, net = Rng(["image"]).uniform((1, 16, 16)).float(), SmoothNetwork()
    denoiser = Denoiser(ConstantX0(image), schedule, prediction_type="clean").eval()
    start, chain = torch.full((8,), 301), SamplingConfig(sampler="plms", lagged=lagged)
    x = image.expand(8, -1, -1, -1)
    noised = Gaussian(schedule).add_noise(x, start, Rng(keys).normal((1, 16, 16)))
    grid = [*sampling_levels(301, stride=10)[:-1], 1]
    out = reverse_process(denoiser, noised, [grid] * 8, Rng(keys), sampling=chain)
    assert (out - x).square().mean().item() == pytest.approx(0.0015, abs=0.0002)
    assert denoiser.evaluations == 8 * (31 + (not lagged))
    reverse_process(Denoiser(net, schedule).eval(), noised[:1], [grid], Rng(["a"]), sampling=chain)
    timesteps = [a[0] for a in net.timesteps]
    assert timesteps == ([*range(300, -1, -10)] if lagged else [300, 290, *range(290, -1, -10)])


def test_a_learned_variance_lies_between_the_fixed_ones() -> None:
    """At t = 500 the triple .0100600, .0100513, and .0100556 for v = 0."""
    process, level, zero = Gaussian(linear_schedule()), torch.tensor([501]), torch.zeros(1, 1, 1)
    for v, variance in ((-1.0, 0.0100513), (0.0, 0.0100556), (1.0, 0.0100600)):
        out = process.reverse_step(
            zero, zero, level, level - 1, zero + 1, variance="learned", learned_variance=zero + v
        )
        assert out.item() ** 2 == pytest.approx(variance, rel=2e-5)


def test_a_learned_variance_wants_a_network_that_has_learned_one() -> None:
    with pytest.raises(ValueError, match="learns_variance=True"):
        ours(denoiser_of(SmoothNetwork()), SamplingConfig(variance="learned"))
