"""The loss that trains a denoiser, and what its weights refuse."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from adbench.engine.diffusion.denoiser import Denoiser, Mismatch
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.diffusion.schedule import cosine_schedule, linear_schedule
from adbench.engine.diffusion.variational_bound import variational_bound
from adbench.engine.runtime.fixed_batches import apply_in_batches
from adbench.engine.runtime.rng import Rng
from known import ConstantNoise, ConstantX0

KEYS = list("abcd")


def test_the_loss_of_a_known_error_is_that_error() -> None:
    """Constant |error| c in a patch of p by p gives c (p / W)**2."""
    x = Rng(KEYS).normal((1, 8, 8))
    region = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    region[..., :4, :4] = True
    off = Denoiser(ConstantX0(x + 0.3), cosine_schedule(), prediction_type="clean").train()
    whole = off.loss(x, Rng(KEYS), power=1)
    torch.testing.assert_close(whole, torch.full((4,), 0.3))
    patch = off.loss(x, Rng(KEYS), power=1, region=region)
    torch.testing.assert_close(patch, torch.full((4,), 0.3 / 4))
    spread = off.loss(x, Rng(KEYS), power=2, region=region, error_region="everywhere")
    torch.testing.assert_close(spread, torch.full((4,), 0.09))


def test_only_the_region_is_disturbed_and_only_it_has_a_gradient() -> None:
    inputs: list[Tensor] = []

    class Look(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(1, 1, 8, 8))

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            inputs.append(x)
            return x + self.bias

    net = Look()
    x = Rng(KEYS).normal((1, 8, 8))
    region = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    region[..., 2:5, 2:5] = True
    Denoiser(net, cosine_schedule(), prediction_type="clean").train().loss(
        x, Rng(KEYS), region=region
    ).sum().backward()
    assert torch.equal(inputs[0][~region], x[~region])
    assert not torch.equal(inputs[0][region], x[region])
    assert net.bias.grad is not None
    assert (net.bias.grad[0, 0][~region[0, 0]] == 0).all()
    assert (net.bias.grad[0, 0][region[0, 0]] != 0).all()


def test_the_loss_of_predicting_no_noise_is_the_noises_power() -> None:
    denoiser = Denoiser(ConstantNoise(0.0), linear_schedule()).train()
    x = torch.zeros(64, 1, 16, 16)
    loss = denoiser.loss(x, Rng([str(i) for i in range(64)]))
    assert loss.mean().item() == pytest.approx(1, abs=0.03)


def test_levels_above_the_most_are_never_trained() -> None:
    steps: list[Tensor] = []

    class Note(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            steps.append(t)
            return x

    denoiser = Denoiser(Note(), linear_schedule()).train()
    denoiser.loss(torch.zeros(500, 1, 2), Rng([str(i) for i in range(500)]), max_level=40)
    assert steps[0].min() == 0 and steps[0].max() == 39


def test_weights_of_another_schedule_prediction_or_noise_refuse_to_load() -> None:
    def build(schedule, prediction_type: Any = "noise", trained_on: str = "gaussian") -> Denoiser:
        return Denoiser(
            torch.nn.Linear(1, 1), schedule, prediction_type=prediction_type, trained_on=trained_on
        )

    ours = build(linear_schedule())
    build(linear_schedule()).load_state_dict(ours.state_dict())
    for other in (
        build(cosine_schedule()),
        build(linear_schedule(), "clean"),
        build(linear_schedule(), trained_on="simplex"),
    ):
        with pytest.raises(Mismatch, match="were trained as"):
            other.load_state_dict(ours.state_dict())


@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_a_network_sees_one_batch_shape_only(rows: int) -> None:
    shapes = []

    def net(x: Tensor, t: Tensor) -> Tensor:
        shapes.append(x.shape)
        return x * t[:, None]

    x, t = torch.randn(rows, 3), torch.arange(rows)
    assert torch.equal(apply_in_batches(net, 4, x, t), x * t[:, None])
    assert set(shapes) == {(4, 3)}


def test_evaluations_count_rows_without_padding() -> None:
    denoiser = Denoiser(ConstantNoise(0.0), linear_schedule()).eval()
    denoiser.batch = 4
    denoiser(torch.zeros(5, 1, 2, 2), torch.ones(5, dtype=torch.int64))
    assert denoiser.evaluations == 5


@pytest.mark.parametrize("predicts", ["noise", "clean", "v"])
def test_whatever_is_predicted_the_estimates_are_the_same(predicts: Any) -> None:
    process, level = Gaussian(linear_schedule()), torch.tensor([1, 40, 500, 999])
    x, eps = Rng(KEYS).normal((1, 8, 8)).double(), Rng(KEYS).fork("e").normal((1, 8, 8)).double()
    says = {"noise": eps, "clean": x, "v": process.velocity(x, eps, level)}[predicts]
    denoiser = Denoiser(ConstantX0(says), linear_schedule(), prediction_type=predicts).eval()
    denoiser.batch = 4
    x_l = process.add_noise(x, level, eps)
    noise, clean, spread = denoiser.estimate(x_l, level)
    torch.testing.assert_close(noise, eps, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(clean, x, rtol=1e-6, atol=1e-6)
    assert spread is None and torch.equal(denoiser(x_l, level), clean)


@pytest.mark.parametrize("predicts", ["noise", "clean", "v"])
def test_the_loss_is_towards_what_is_predicted(predicts: Any) -> None:
    """A network that sees what was drawn, and is off by .3, pays .09."""
    process, x = Gaussian(linear_schedule()), Rng(KEYS).normal((1, 8, 8))
    eps = Rng(KEYS).fork("noise").normal((1, 8, 8))
    level = 1 + Rng(KEYS).fork("level").integers(1000)
    says = {"noise": eps, "clean": x, "v": process.velocity(x, eps, level)}[predicts]
    denoiser = Denoiser(ConstantX0(says + 0.3), linear_schedule(), prediction_type=predicts).train()
    torch.testing.assert_close(denoiser.loss(x, Rng(KEYS)), torch.full((4,), 0.09))


def test_clipped_estimates_belong_together() -> None:
    """The noise is re-derived from the clipped x_0; unclipped it is what the network said."""
    x, level = 2 * Rng(KEYS).normal((1, 8, 8)), torch.full((4,), 300)
    free = Denoiser(ConstantNoise(0.1), linear_schedule()).eval().estimate(x, level)
    assert (free.noise == 0.1).all() and free.clean.abs().max() > 1
    estimate = (
        Denoiser(ConstantNoise(0.1), linear_schedule(), clip=(-1, 1)).eval().estimate(x, level)
    )
    assert torch.equal(estimate.clean, free.clean.clamp(-1, 1))
    torch.testing.assert_close(
        Gaussian(linear_schedule()).add_noise(estimate.clean, level, estimate.noise), x
    )
    as_said = Denoiser(
        ConstantNoise(0.1), linear_schedule(), clip=(-1, 1), rederive_noise=False
    ).eval()
    assert torch.equal(as_said.estimate(x, level).clean, estimate.clean)
    assert (as_said.estimate(x, level).noise == 0.1).all()


def test_a_corrupted_start_is_reconstructed_towards_the_sample() -> None:
    x, inputs = Rng(KEYS).normal((1, 8, 8)), []

    class Look(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            inputs.append(x)
            return 0 * x

    loss = (
        Denoiser(Look(), linear_schedule(), prediction_type="clean")
        .train()
        .loss(x, Rng(KEYS), corrupted=x + 5, max_level=1)
    )
    assert (inputs[0].mean() - x.mean()).item() == pytest.approx(5, abs=0.01)
    torch.testing.assert_close(loss, x.square().flatten(1).mean(1))


class Two(torch.nn.Module):
    """Noise and variance, each a parameter."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.noise = torch.nn.Parameter(torch.zeros(1, 1, 8, 8))
        self.spread = torch.nn.Parameter(torch.full((1, 1, 8, 8), spread))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([self.noise, self.spread], 1).expand(len(x), -1, -1, -1)


def test_a_learned_variance_learns_from_the_bound_and_the_noise_does_not() -> None:
    net, x = Two(0.3), Rng(KEYS).normal((1, 8, 8)).clamp(-1, 1)
    denoiser = Denoiser(net, linear_schedule(), learns_variance=True).train()
    plain = Denoiser(ConstantNoise(0.0), linear_schedule()).train().loss(x, Rng(KEYS))
    both = denoiser.loss(x, Rng(KEYS))
    assert (both > plain).all()
    both.sum().backward()
    assert net.noise.grad is not None and net.spread.grad is not None
    eps = Rng(KEYS).fork("noise").normal((1, 8, 8))
    torch.testing.assert_close(net.noise.grad, (-2 * eps / 64).sum(0, keepdim=True))
    assert net.spread.grad.abs().min() > 0


@pytest.mark.parametrize("spread", [-1.0, 0.0, 1.0])
def test_the_bound_is_the_divergence_of_two_normal_laws(spread: float) -> None:
    process, alpha_bar = Gaussian(linear_schedule()), linear_schedule().alpha_bar
    level = torch.tensor([2, 3, 400, 1000])
    x, guess, x_l = (Rng(KEYS).fork(i).normal((1, 8, 8)).double() for i in range(3))
    bound = variational_bound(process, x, guess, torch.full_like(x, spread), x_l, level)
    for i, at in enumerate(level.tolist()):
        small = (
            (1 - alpha_bar[at - 1]) / (1 - alpha_bar[at]) * (1 - alpha_bar[at] / alpha_bar[at - 1])
        )
        large = 1 - alpha_bar[at] / alpha_bar[at - 1]
        wide = small ** ((1 - spread) / 2) * large ** ((1 + spread) / 2)
        one, here = slice(i, i + 1), level[i : i + 1]
        true = process.posterior_mean(x_l[one], x[one], here, here - 1)
        mean = process.posterior_mean(x_l[one], guess[one], here, here - 1)
        laws = Normal(true, small.sqrt()), Normal(mean, wide.sqrt())
        expected = kl_divergence(*laws) / math.log(2)
        torch.testing.assert_close(bound[one], expected, rtol=1e-6, atol=1e-9)
    if spread == -1.0:
        none = variational_bound(process, x, x, torch.full_like(x, spread), x_l, level)
        assert none.abs().max() < 1e-9


def test_the_last_step_is_the_likelihood_of_8_bit_values() -> None:
    """Of all 256 values of a pixel the chances add to 1."""
    process, level = Gaussian(linear_schedule()), torch.ones(256, dtype=torch.int64)
    values = torch.linspace(-1, 1, 256, dtype=torch.float64).view(256, 1, 1)
    guess = torch.full_like(values, 0.1)
    bits = variational_bound(process, values, guess, torch.zeros_like(values), guess, level)
    assert torch.exp2(-bits).sum().item() == pytest.approx(1, abs=1e-6)
    assert bits.argmin() == (values - 0.1).abs().argmin()


def test_what_is_learned_is_remembered() -> None:
    def mean(learned: bool) -> Denoiser:
        return Denoiser(torch.nn.Linear(1, 1), linear_schedule(), learns_variance=learned)

    mean(True).load_state_dict(mean(True).state_dict())
    with pytest.raises(Mismatch, match='"learned": true'):
        mean(True).load_state_dict(mean(False).state_dict())
    facts = bytes(mean(False).state_dict()["_extra_state"].tolist()).decode()
    assert facts == (
        '{"schedule": "linear 1000 0.0001 0.02", "predicts": "noise", "clip": null, "about": ""}'
    )  # as it has been since the first checkpoints, which must go on loading
