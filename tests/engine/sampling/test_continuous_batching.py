"""Chains in one batch come out as they do alone, to the bit, and no row of a batch is wasted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adbench.engine.diffusion.bernoulli import Bernoulli
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.diffusion.schedule import linear_schedule, sampling_levels
from adbench.engine.noise.noise import gaussian
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.continuous_batching import ChainBatch, one_step_per_level, run_chains
from adbench.engine.sampling.reconstruct import (
    SamplingConfig,
    ddim_invert,
    reconstruct,
    reverse_process,
)
from adbench.engine.sampling.repaint import inpaint
from adbench.engine.sampling.solvers import Ancestral, DdimOde, DpmSolver, Plms
from adbench.engine.sampling.step_noise import StepNoise
from known import ConstantX0, ConvolutionalNetwork, SmoothNetwork

BATCH = 4
KEYS = [f"p{i}" for i in range(7)]
LEVELS = (400, 7, 0, 150, 150, 31, 1)
CHAINS = {
    "ddpm": SamplingConfig(steps=4),
    "learned": SamplingConfig(stride=60, variance="learned"),
    "ddim": SamplingConfig(steps=3, sampler="ddim"),
    "plms": SamplingConfig(steps=6, sampler="plms"),
    "dpm++": SamplingConfig(steps=5, sampler="dpm++"),
}


@pytest.fixture(scope="module")
def networks() -> dict[bool, nn.Module]:
    """Of real layers, whose results may depend on the batch: with C channels out, and with 2 C."""
    return {learned: ConvolutionalNetwork(1 + learned) for learned in (False, True)}


def denoiser_of(nets: dict[bool, nn.Module], name: str) -> Denoiser:
    learned = name == "learned"
    denoiser_in_eval = Denoiser(
        nets[learned], linear_schedule(), clip=(-1, 1), learns_variance=learned
    ).eval()
    denoiser_in_eval.batch = BATCH
    return denoiser_in_eval


def pull(x: Tensor, eps: Tensor, clean: Tensor, rows: ChainBatch) -> tuple[Tensor, Tensor]:
    """A guide with a target of each sample's own."""
    target = rows.per_chain(torch.arange(7.0) / 10).view(-1, 1, 1, 1)
    clean = clean + 0.2 * (target - clean)
    return Gaussian(linear_schedule()).noise_from_x0(x, clean, rows.network_level), clean


def chains(denoiser: Denoiser, name: str, jobs: list[int], slots: int) -> Tensor:
    """These of seven chains, (M, 1, 8, 8), each from its own level."""
    chain, process, rng = CHAINS[name], Gaussian(linear_schedule()), Rng([KEYS[j] for j in jobs])
    ancestral = Ancestral(process, StepNoise(rng, gaussian), chain.effective_eta, chain.variance)
    sampler = {"plms": Plms(process), "dpm++": DpmSolver(process)}.get(name, ancestral)
    x = Rng(KEYS).normal((1, 8, 8))[jobs]
    ladders = [sampling_levels(LEVELS[j], chain.steps, chain.stride) for j in jobs]
    return run_chains(denoiser, sampler, x, ladders, samples=jobs, guide=pull, slots=slots)


@pytest.fixture(scope="module")
def alone(networks) -> dict[str, list[Tensor]]:
    return {
        name: [chains(denoiser_of(networks, name), name, [j], BATCH)[0] for j in range(7)]
        for name in CHAINS
    }


@settings(max_examples=10)
@given(st.permutations(range(7)), st.integers(1, 7), st.integers(1, BATCH))
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_in_any_company_is_the_chain_alone_to_the_bit(
    networks, alone, name: str, order: list[int], count: int, slots: int
) -> None:
    together = chains(denoiser_of(networks, name), name, order[:count], slots)
    for place, job in enumerate(order[:count]):
        assert torch.equal(alone[name][job], together[place])


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_public_runs_the_same(networks, name: str) -> None:
    """A sweep equals its levels one by one and its samples one by one."""
    denoiser, chain, x = denoiser_of(networks, name), CHAINS[name], Rng(KEYS).normal((1, 8, 8))
    whole = reconstruct(denoiser, x[:3], [40, 300], Rng(KEYS[:3]), sampling=chain, guide=pull)
    one = reconstruct(denoiser, x[:3], [300], Rng(KEYS[:3]), sampling=chain, guide=pull)
    assert torch.equal(whole[1], one[0])
    first = reconstruct(denoiser, x[:1], [300], Rng(KEYS[:1]), sampling=chain, guide=pull)
    assert torch.equal(first, one[:, :1])


def test_inversion_and_inpainting_do_not_depend_on_company(networks) -> None:
    denoiser, x = denoiser_of(networks, "ddim"), 0.3 * Rng(KEYS).normal((1, 8, 8))
    levels, chain = [60, 7, 30], SamplingConfig(stride=6)
    whole = ddim_invert(denoiser, x, levels, sampling=chain)
    for i, level in enumerate(levels):
        assert torch.equal(
            ddim_invert(denoiser, x[2:3], [level], sampling=chain)[0, 0], whole[i, 2]
        )
    mask = torch.zeros(7, 1, 8, 8)
    mask[..., 2:6, 2:6] = 1
    filled = inpaint(denoiser, x, x, mask, 9, Rng(KEYS), resamples=3)
    alone = inpaint(denoiser, x[4:5], x[4:5], mask[4:5], 9, Rng(KEYS[4:5]), resamples=3)
    assert torch.equal(alone[0], filled[4]) and not torch.equal(filled, x)


class Count(nn.Module):
    """Keeps how many different rows each call held; a padded batch repeats its last."""

    def __init__(self) -> None:
        super().__init__()
        self.full: list[int] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        pairs = torch.cat([x.flatten(1), t[:, None].float()], 1)
        self.full.append(len(pairs.unique(dim=0)))
        assert len(x) == BATCH
        return 0 * x


@given(st.lists(st.integers(0, 12), min_size=1, max_size=14), st.sampled_from(["ddpm", "plms"]))
@settings(max_examples=25)
def test_rows_are_wasted_only_when_chains_run_out(lengths: list[int], name: Any) -> None:
    net = Count()
    denoiser = Denoiser(net, linear_schedule()).eval()
    denoiser.batch = BATCH
    x = Rng([str(i) for i in range(len(lengths))]).normal((1, 2, 2))
    ladders, rng = (
        [sampling_levels(level) for level in lengths],
        Rng([str(i) for i in range(len(lengths))]),
    )
    reverse_process(denoiser, x, ladders, rng, sampling=SamplingConfig(sampler=name))
    calls = [n + (name == "plms" and n > 1) for n in lengths]
    assert denoiser.evaluations == sum(net.full) == sum(calls)
    assert len(net.full) >= -(-sum(calls) // BATCH)
    assert net.full == sorted(net.full, reverse=True)  # full, until fewer are left than slots
    longest = max(calls)
    assert len(net.full) <= -(-(sum(calls) - longest) // BATCH) + longest  # Graham's bound


def test_the_longest_chain_goes_first() -> None:
    """So that nothing is left to wait for: one of twelve steps beside eight of one."""
    net = Count()
    denoiser = Denoiser(net, linear_schedule()).eval()
    denoiser.batch = BATCH
    keys = [str(i) for i in range(9)]
    x = Rng(keys).normal((1, 2, 2))
    reverse_process(denoiser, x, [[1, 0]] * 8 + [sampling_levels(12)], Rng(keys))
    assert net.full == [4, 4, 3, *[1] * 9]


@pytest.mark.parametrize("sampler", ["plms", "dpm++"])
def test_a_chain_that_broke_leaves_nothing_to_the_next_in_its_slot(sampler: Any) -> None:
    x = Rng(KEYS).normal((1, 2, 2))
    x[:3] = torch.nan
    denoiser = Denoiser(SmoothNetwork(), linear_schedule()).eval()
    ladders = [sampling_levels(9)] * 3 + [sampling_levels(7)] * 4
    for slots in (1, 3):
        out = run_chains(
            denoiser,
            Plms(Gaussian(linear_schedule()))
            if sampler == "plms"
            else DpmSolver(Gaussian(linear_schedule())),
            x,
            ladders,
            slots=slots,
        )
        assert out[:3].isnan().all() and out[3:].isfinite().all()


def test_fewer_slots_than_rows_pad_the_batch() -> None:
    net = SmoothNetwork()
    denoiser = Denoiser(net, linear_schedule()).eval()
    denoiser.batch = BATCH
    x = Rng(KEYS).normal((1, 2, 2))
    run_chains(denoiser, DdimOde(Gaussian(linear_schedule())), x, [[2, 1, 0]] * 7, slots=2)
    assert (
        all(len(timesteps) == BATCH for timesteps in net.timesteps) and denoiser.evaluations == 14
    )


def test_a_guide_receives_whose_rows_it_changes_and_each_step_once() -> None:
    denoiser, batches = Denoiser(SmoothNetwork(), linear_schedule()).eval(), []
    denoiser.batch = 3

    def guide(x: Tensor, eps: Tensor, clean: Tensor, rows: ChainBatch) -> tuple[Tensor, Tensor]:
        assert torch.equal(rows.per_chain(torch.arange(2)), rows.sample)
        batches.extend(
            zip(rows.chain.tolist(), rows.sample.tolist(), rows.network_level.tolist(), strict=True)
        )
        return eps, clean

    x = Rng(KEYS[:2]).normal((1, 2, 2))
    reconstruct(denoiser, x, [3, 2], Rng(KEYS[:2]), sampling=SamplingConfig(repeats=2), guide=guide)
    jobs = [(job, (job // 2) % 2, 3 if job < 4 else 2) for job in range(8)]  # in (L, N, R)
    expected = [(j, s, level) for j, s, top in jobs for level in range(1, top + 1)]
    assert sorted(batches) == sorted(expected)


def test_conditioning_reaches_the_rows_of_its_samples() -> None:
    class ConditioningAsClean(nn.Module):
        def forward(self, x: Tensor, t: Tensor, value: Tensor) -> Tensor:
            return value.view(-1, 1, 1, 1).expand_as(x)

    denoiser = Denoiser(ConditioningAsClean(), linear_schedule(), prediction_type="clean").eval()
    x, value = Rng(KEYS).normal((1, 2, 2)), torch.arange(7.0)
    out = reconstruct(
        denoiser, x, [50, 3], Rng(KEYS), conditioning=(value,), sampling=SamplingConfig(repeats=2)
    )
    torch.testing.assert_close(out, value.view(1, 7, 1, 1, 1, 1).expand_as(out))


def test_outside_its_region_a_sample_stays() -> None:
    denoiser = Denoiser(
        ConstantX0(torch.ones(1, 4, 4)), linear_schedule(), prediction_type="clean"
    ).eval()
    x, region = Rng(KEYS).normal((1, 4, 4)), torch.zeros(7, 1, 4, 4, dtype=torch.bool)
    region[:, :, :2] = True
    out = reconstruct(
        denoiser, x, [100], Rng(KEYS), region=region, sampling=SamplingConfig(steps=5)
    )[0, :, 0]
    assert torch.equal(out[~region], x[~region])
    torch.testing.assert_close(out[region], torch.ones_like(out[region]))


def test_nothing_is_learnt_while_sampling() -> None:
    x = Rng(KEYS).normal((1, 2, 2)).requires_grad_()
    denoiser = Denoiser(SmoothNetwork(), linear_schedule()).eval()
    assert not reconstruct(denoiser, x, [2], Rng(KEYS)).requires_grad


def test_moves_and_refusals() -> None:
    assert [tuple(m) for m in one_step_per_level([5, 2, 0])] == [(5, 5, 2, 0), (2, 2, 0, 0)]
    other: Any = "heunn"
    with pytest.raises(ValueError, match="no sampler 'heunn'"):
        SamplingConfig(sampler=other)
    bits = Denoiser(
        SmoothNetwork(), linear_schedule(), prediction_type="flip", process=Bernoulli
    ).eval()
    with pytest.raises(ValueError, match="no inversion along a bernoulli symmetric"):
        ddim_invert(bits, torch.zeros(1, 1, 2), [5])
