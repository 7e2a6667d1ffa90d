"""The process that deviates: DeCo-Diff's arithmetic, from its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.deviation import Deviation
from adbench.engine.diffusion.schedule import cosine_schedule, sampling_levels
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.continuous_batching import run_chains
from adbench.engine.sampling.solvers import DdimOde
from known import NoiseField, SmoothNetwork

X, NOISE = Rng(["x"]).normal((3, 2, 4, 4))[0], Rng(["e"]).normal((3, 2, 4, 4))[0]
LEVEL = torch.tensor([1, 5, 10])


def alpha_bars() -> torch.Tensor:
    """Nichol and Dhariwal's cosine at T = 10, beta at most 0.999; index is the papers'."""
    u = (torch.arange(11).double() / 10 + 0.008) / 1.008
    share = (u * torch.pi / 2).cos().square()
    return torch.cumprod(1 - (1 - share[1:] / share[:-1]).clamp(max=0.999), 0)


def test_where_it_deviates_a_sample_is_a_gaussian_processs() -> None:
    process, a = Deviation(cosine_schedule(10)), alpha_bars()[LEVEL - 1].view(-1, 1, 1, 1)
    d = process.deviation_from_noise(X, NOISE, LEVEL)
    expected = a.sqrt() * X + (1 - a).sqrt() * NOISE
    torch.testing.assert_close(process.add_noise(X, LEVEL, d), expected.float())
    c = (1 - a.sqrt()) / (1 - a).sqrt()
    torch.testing.assert_close(d, (NOISE - c * X).float())


@settings(max_examples=20)
@given(level=st.integers(1, 10))
def test_deviation_and_clean_sample_imply_one_another(level: int) -> None:
    process, at = Deviation(cosine_schedule(10)), torch.full((3,), level)
    off = process.add_noise(X, at, NOISE)
    torch.testing.assert_close(process.x0_from_noise(off, NOISE, at), X, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(process.noise_from_x0(off, X, at), NOISE, rtol=1e-3, atol=1e-4)
    nowhere = torch.zeros_like(at)
    assert torch.equal(process.combine(X, NOISE, nowhere), X)


@torch.no_grad()
def test_the_way_down_is_the_recursion_of_the_paper() -> None:
    """x_0 = z - sqrt(1 - kept_t) d, next = x_0 + sqrt(1 - kept_there) d, from level 9 by twos."""
    net, process = SmoothNetwork(), Deviation(cosine_schedule(10))
    denoiser = Denoiser(net, process.schedule, process=Deviation).eval()
    got = run_chains(denoiser, DdimOde(process), X, [sampling_levels(9, stride=2)] * 3)
    assert [times[0] for times in net.timesteps] == [8, 6, 4, 2, 0]
    z, sigma = X.double(), (1 - alpha_bars()).sqrt()
    for t, after in ((8, 6), (6, 4), (4, 2), (2, 0), (0, None)):
        d = net(z.float(), torch.full((3,), t)).double()
        z = z - sigma[t] * d + (0 if after is None else sigma[after] * d)
    torch.testing.assert_close(got.double(), z, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_network_that_knows_the_deviation_takes_off_all_of_it(stride: int) -> None:
    process, d = Deviation(cosine_schedule(10)), NOISE[0]
    denoiser = Denoiser(NoiseField(d), process.schedule, process=Deviation).eval()
    at = torch.full((1,), 9)
    off = process.add_noise(X[:1], at, d[None])
    got = run_chains(denoiser, DdimOde(process), off, [sampling_levels(9, stride=stride)])
    torch.testing.assert_close(got, X[:1], rtol=1e-4, atol=1e-5)
    still = Denoiser(NoiseField(0 * d), process.schedule, process=Deviation).eval()
    assert torch.equal(
        run_chains(still, DdimOde(process), X, [sampling_levels(9, stride=stride)] * 3), X
    )
