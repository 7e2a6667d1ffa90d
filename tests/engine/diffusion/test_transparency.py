"""Transparency diffusion, from its definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.diffusion.transparency import Transparency, no_anomaly
from adbench.engine.runtime.rng import Rng

KEYS = list("abc")
X, OTHER = Rng(KEYS).fork("x").uniform((2, 4, 4)).float(), Rng(KEYS).fork("o").uniform((2, 4, 4))
MASK = torch.zeros(3, 1, 4, 4)
MASK[:, :, 1:3, :2] = 1
NOISE = torch.cat([OTHER.float(), MASK], 1)
PROCESS = Transparency(linear_schedule(20))


@settings(max_examples=20)
@given(level=st.integers(0, 20))
def test_a_sample_is_what_is_normal_and_an_anomaly_in_their_shares(level: int) -> None:
    opacity = level / 20
    got = PROCESS.add_noise(X, torch.full((3,), level), NOISE)
    expected = (1 - MASK) * X + MASK * ((1 - opacity) * X + opacity * OTHER.float())
    torch.testing.assert_close(got, expected)
    if level < 20:
        back = PROCESS.x0_from_noise(got, NOISE, torch.full((3,), level))
        torch.testing.assert_close(back, X, rtol=1e-4, atol=1e-5)


@settings(max_examples=20)
@given(start=st.integers(1, 20), share=st.floats(0, 1))
def test_with_true_predictions_a_step_of_any_length_is_on_the_way(start: int, share: float) -> None:
    """x_{t-1} = x_t - (d / beta_t) M (beta_t e) + d M n is the forward process's x_{t-1}."""
    high, low = torch.full((3,), start), torch.full((3,), int(start * share))
    x = PROCESS.add_noise(X, high, NOISE)
    appearance = PROCESS.opacity(high, X) * MASK * OTHER.float()
    below = PROCESS.step(x, appearance, X, MASK, high, low)
    torch.testing.assert_close(below, PROCESS.add_noise(X, low, NOISE), rtol=1e-5, atol=1e-6)


def test_a_prediction_is_three_things() -> None:
    logit = torch.full((3, 1, 4, 4), 2.0)
    prediction = torch.cat([X + 1, X + 2, logit], 1)
    appearance, clean = PROCESS.noise_and_x0(X, prediction, torch.ones(3), "clean")
    assert appearance is not None and torch.equal(appearance, X + 1)
    assert torch.equal(clean[:, :2], X + 2)
    assert clean[:, 2].mean().item() == pytest.approx(0.880797, rel=1e-6)
    error = PROCESS.prediction_error(prediction, X, X, NOISE, torch.ones(3), "clean", 2)
    torch.testing.assert_close(error, torch.full_like(X, 4.0))


def test_without_an_anomaly_a_sample_stays_as_it_is() -> None:
    nothing = no_anomaly(Rng(KEYS), (2, 4, 4), torch.ones(3))
    assert torch.equal(PROCESS.add_noise(X, torch.full((3,), 20), nothing), X)
    assert PROCESS.schedule.T == 20
