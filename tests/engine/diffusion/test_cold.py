"""Cold diffusion: exact for degradations that are linear in the level, whatever the network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from adbench.engine.diffusion.cold import ColdDiffusion
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import Schedule, linear_schedule
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.reconstruct import SamplingConfig, reconstruct, reverse_process
from known import ConstantX0, SmoothNetwork

KEYS = list("abc")
X = Rng(KEYS).fork("x").normal((2, 5, 4))


def foreign(x: Tensor, level: Tensor, drawn: Tensor) -> Tensor:
    """A patch of what was drawn shines through, the more the higher the level (DISYRE's kind)."""
    share = (level / 1000).float().view(-1, 1, 1, 1)
    share = share * (torch.arange(4) > 1)
    return (1 - share) * x + share * drawn


def added(x: Tensor, level: Tensor, drawn: Tensor) -> Tensor:
    """x + level e: linear in the level, and e does not depend on x."""
    return x + (level / 1000).float().view(-1, 1, 1, 1) * drawn


def cold(net: nn.Module, degrade=foreign) -> Denoiser:
    def process(schedule: Schedule) -> ColdDiffusion:
        return ColdDiffusion(schedule, degrade, name="patch")

    return Denoiser(net, linear_schedule(), prediction_type="clean", process=process).eval()


@given(st.integers(1, 1000), st.integers(1, 9))
def test_what_is_linear_in_the_level_comes_back_whatever_the_network_says(
    level: int, steps: int
) -> None:
    """The iterates are D(x_0, s), so the end is x_0, for any restorer."""
    out = reconstruct(
        cold(SmoothNetwork(), added), X, [level], Rng(KEYS), sampling=SamplingConfig(steps=steps)
    )
    torch.testing.assert_close(out[0, :, 0], X, rtol=0, atol=1e-5)


def test_every_iterate_is_the_degraded_sample() -> None:
    denoiser, drawn = cold(SmoothNetwork(), added), Rng(KEYS).normal((2, 5, 4))
    start = added(X, torch.full((3,), 800), drawn)
    for low in (600, 250, 1):
        out = reverse_process(
            denoiser, start, [[800, 700, low]] * 3, Rng(KEYS), initial_noise=drawn
        )
        torch.testing.assert_close(out, added(X, torch.full((3,), low), drawn))


@pytest.mark.parametrize("naive", [False, True])
def test_a_perfect_restorer_restores(naive: bool) -> None:
    image = Rng(["image"]).normal((2, 5, 4))
    x = image.expand(3, -1, -1, -1)
    out = reconstruct(
        cold(ConstantX0(image)), x, [40, 900], Rng(KEYS), sampling=SamplingConfig(9, naive=naive)
    )
    torch.testing.assert_close(out, image.expand_as(out), rtol=0, atol=1e-5)


def test_the_naive_sampler_is_the_networks_last_word() -> None:
    """Its end is the estimate at level 1, so what a restorer errs by stays."""
    image = Rng(["image"]).normal((2, 5, 4))
    out = reconstruct(
        cold(ConstantX0(image), added), X, [500], Rng(KEYS), sampling=SamplingConfig(9, naive=True)
    )
    torch.testing.assert_close(out, image.expand_as(out), rtol=0, atol=1e-5)


def test_a_chain_keeps_its_own_draw_in_any_batch() -> None:
    denoiser = cold(SmoothNetwork())
    denoiser.batch = 2
    whole = reconstruct(
        denoiser, X, [50, 700], Rng(KEYS), sampling=SamplingConfig(steps=7, repeats=2)
    )
    for i, key in enumerate(KEYS):
        alone = reconstruct(
            denoiser, X[i : i + 1], [700], Rng([key]), sampling=SamplingConfig(steps=7, repeats=2)
        )
        assert torch.equal(alone[0, 0], whole[1, i])
    assert not torch.equal(whole[1, 0, 0], whole[1, 0, 1])


def test_the_step_by_hand() -> None:
    """x - D(guess, here) + D(guess, there), twice."""
    net, drawn = SmoothNetwork(), Rng(KEYS).normal((2, 5, 4))
    x = start = foreign(X, torch.full((3,), 90), drawn)
    for here, there in ((90, 30), (30, 0)):
        guess = net(x, torch.full((3,), here - 1))
        down = [foreign(guess, torch.full((3,), at), drawn) for at in (here, there)]
        x = x - down[0] + down[1]
    out = reverse_process(
        cold(SmoothNetwork()), start, [[90, 30, 0]] * 3, Rng(KEYS), initial_noise=drawn
    )
    torch.testing.assert_close(out, x)


def test_it_learns_to_say_what_is_clean_and_nothing_else() -> None:
    loss = cold(ConstantX0(X + 0.5)).train().loss(X, Rng(KEYS))
    torch.testing.assert_close(loss, torch.full((3,), 0.25))
    with pytest.raises(
        ValueError, match="cold patch process has no prediction type noise; it has clean"
    ):
        Denoiser(
            SmoothNetwork(),
            linear_schedule(),
            process=lambda s: ColdDiffusion(s, foreign, name="patch"),
        )
