"""Rectified flow: the line from a sample to its noise, from its definition."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.engine.diffusion.denoiser import Denoiser, Mismatch
from adbench.engine.diffusion.flow import Flow, flow_schedule
from adbench.engine.diffusion.schedule import cosine_schedule, linear_schedule
from adbench.engine.runtime.rng import Rng
from known import NoiseField, NormalVelocity

KEYS = [f"s{i}" for i in range(3)]
X, NOISE = Rng(KEYS).fork("x").normal((2, 4, 4)), Rng(KEYS).fork("e").normal((2, 4, 4))


@settings(max_examples=20)
@given(level=st.integers(1, 9))
def test_any_two_of_sample_noise_and_velocity_imply_the_rest(level: int) -> None:
    process, at, t = Flow(linear_schedule(10)), torch.full((3,), level), level / 10
    noisy = process.add_noise(X, at, NOISE)
    torch.testing.assert_close(noisy.double(), (1 - t) * X.double() + t * NOISE.double())
    torch.testing.assert_close(process.x0_from_noise(noisy, NOISE, at), X, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(process.noise_from_x0(noisy, X, at), NOISE, rtol=1e-4, atol=1e-5)
    noise, clean = process.noise_and_x0(noisy, NOISE - X, at, "velocity")
    assert noise is not None
    torch.testing.assert_close(noise, NOISE, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(clean, X, rtol=1e-4, atol=1e-5)


def test_the_ends_are_the_sample_and_the_noise_and_both_have_a_velocity() -> None:
    process = Flow(linear_schedule(10))
    clean, lost = torch.zeros(3, dtype=torch.long), torch.full((3,), 10)
    assert torch.equal(process.add_noise(X, clean, NOISE), X)
    assert torch.equal(process.add_noise(X, lost, NOISE), NOISE)
    estimate = process.noise_and_x0(NOISE, NOISE - X, lost, "velocity")[1]
    torch.testing.assert_close(estimate, X, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(process.move(X, NOISE - X, clean, lost), NOISE)


def test_the_schedule_is_the_signal_to_noise_ratio_of_the_line() -> None:
    """Whatever schedule is asked for: only its number of levels counts."""
    for schedule in (linear_schedule(100), cosine_schedule(100)):
        own = Flow(schedule).schedule
        assert own.name == "flow 100" and own.T == 100
        t = torch.arange(1, 100) / 100
        torch.testing.assert_close(own.half_log_snr[1:100], ((1 - t) / t).log().double(), rtol=1e-5,
            atol=1e-6)  # fmt: skip


@pytest.mark.parametrize("power", [1, 2])
def test_the_loss_is_the_error_of_the_velocity(power: Literal[1, 2]) -> None:
    """Of a network that says 0: the mean of |noise - x_0| to the power, noise of the stream."""
    denoiser = Denoiser(NoiseField(torch.zeros(2, 4, 4)), linear_schedule(), process=Flow,
        prediction_type="velocity")  # fmt: skip
    rng = Rng(KEYS)
    loss = denoiser.loss(X, rng, power=power)
    noise = rng.fork("noise").normal((2, 4, 4))
    expected = (noise - X).abs().pow(power).flatten(1).mean(1)
    torch.testing.assert_close(loss, expected)


def test_no_velocity_has_less_loss_than_the_exact_one() -> None:
    """Of normal data: the expectation of the velocity given x_t, and the conditional variance is
    what is left; moved by any constant, the loss is larger by its square."""
    keys = [f"n{i}" for i in range(400)]
    x = 0.3 + 0.5 * Rng(keys).fork("x").normal((1, 16))
    losses = []
    for offset in (0.0, 0.2):
        net = NormalVelocity(1000, 0.3, 0.25, offset)
        denoiser = Denoiser(net, linear_schedule(), process=Flow, prediction_type="velocity")
        losses.append(denoiser.loss(x, Rng(keys)).mean().item())
    level = 1 + Rng(keys).fork("level").integers(1000)
    t = level.double() / 1000
    variance = 0.25 + 1 - (t - (1 - t) * 0.25).square() / ((1 - t).square() * 0.25 + t.square())
    assert losses[0] == pytest.approx(variance.mean().item(), rel=0.02)
    assert losses[1] - losses[0] == pytest.approx(0.04, abs=0.01)


def test_it_refuses_what_it_has_not_and_weights_of_another_process() -> None:
    net = torch.nn.Identity()
    with pytest.raises(ValueError, match="a flow process has no prediction type noise"):
        Denoiser(net, linear_schedule(), process=Flow)
    with pytest.raises(ValueError, match="no prediction type velocity"):
        Denoiser(net, linear_schedule(), prediction_type="velocity")
    flow = Denoiser(net, linear_schedule(), process=Flow, prediction_type="velocity")
    with pytest.raises(Mismatch, match='"process": "flow"'):
        Denoiser(net, flow_schedule()).load_state_dict(flow.state_dict())
