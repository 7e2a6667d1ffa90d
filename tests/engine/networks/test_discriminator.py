"""The patch discriminator's learning rate, weight and size."""

from __future__ import annotations

import math
from typing import Any, Literal

import pytest
import torch
from monai.losses.adversarial_loss import PatchAdversarialLoss
from torch import Tensor, nn

from adbench.engine.networks.discriminator import (
    PatchDiscriminatorLoss,
    adversary_options,
    discriminator_layers,
)
from adbench.engine.training.loop import Training


def test_a_discriminator_may_learn_faster() -> None:
    """A step of Adam at a rate is that at so many times the learning rate."""
    x, reconstruction, at = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16), torch.zeros(2)
    gradients = []
    for rate in (1.0, 4.0):
        torch.manual_seed(0)
        one = PatchDiscriminatorLoss(2, 1, width=8, layers=1, rate=rate)
        steps = torch.optim.Adam(one.parameters(), 4e-3 / rate, eps=1e-20)
        for _ in range(3):
            steps.zero_grad()
            loss = one(x, reconstruction, at)
            loss.sum().backward()
            steps.step()
        gradients.append(one(x, reconstruction, at).detach())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


def test_a_discriminator_of_small_samples_has_fewer_layers() -> None:
    assert [discriminator_layers((64, n)) for n in (6, 11, 12, 23, 24, 300)] == [1, 1, 2, 2, 3, 3]
    for side in (6, 12, 24):
        one = PatchDiscriminatorLoss(2, 1, width=8, layers=discriminator_layers((side, side)))
        assert one(torch.rand(1, 1, side, side), torch.rand(1, 1, side, side), torch.zeros(1)) > 0
    with pytest.raises(ValueError, match="sides of at least 6"):
        discriminator_layers((64, 5))


class Itself(nn.Module):
    """The samples are their own logits."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


def loss_of(
    fake: float,
    real: float,
    kind: Literal["least squares", "hinge"] = "least squares",
    **more: Any,
) -> tuple[float, float]:
    """The terms of the generator and of the discriminator at two logits."""
    loss = PatchDiscriminatorLoss(1, 1, weight=1.0, starts=1, width=8, layers=1, kind=kind, **more)
    loss.add_module("net", Itself())
    x, reconstruction = torch.full((1, 1, 4), real), torch.full((1, 1, 4), fake)
    discriminator = loss(x, reconstruction, torch.tensor([0])).item()
    return loss(x, reconstruction, torch.tensor([1])).item() - discriminator, discriminator


def test_logits_are_rectified_before_the_least_squares() -> None:
    """The values are those of MONAI's generative models as ddpm-ood trains with them."""
    generator = {-3.0: 1.3225, -1.0: 1.1025, 0.0: 1.0, 1.0: 0.0}
    for logit, value in generator.items():
        assert loss_of(logit, 1.0)[0] == pytest.approx(value, abs=1e-6)
        rectified = max(logit, 0.05 * logit)
        assert loss_of(logit, 1.0)[1] == pytest.approx(rectified**2 / 2, abs=1e-6)
        assert loss_of(0.0, logit)[1] == pytest.approx(value / 2, abs=1e-6)  # the real ones alike
    theirs = PatchAdversarialLoss(criterion="least_squares")
    for fake, real in ((-3.0, 0.5), (-1.0, -2.0), (2.0, 1.5)):
        a, b = torch.full((1, 1, 4), fake), torch.full((1, 1, 4), real)
        generator_loss = theirs(a, target_is_real=True, for_discriminator=False)
        pairs = ((a, False), (b, True))
        both = [theirs(y, target_is_real=t, for_discriminator=True) for y, t in pairs]
        ours = loss_of(fake, real)
        assert isinstance(generator_loss, Tensor)
        assert ours[0] == pytest.approx(generator_loss.item(), abs=1e-6)
        assert ours[1] == pytest.approx(sum(map(float, both)) / 2, abs=1e-6)


def test_without_a_rectifier_it_is_the_plain_least_squares() -> None:
    for logit in (-3.0, -1.0, 0.0, 1.0):
        generator, discriminator = loss_of(logit, -1.0, slope=1.0)
        assert generator == pytest.approx((logit - 1) ** 2, abs=1e-5)
        assert discriminator == pytest.approx((4 + logit**2) / 2, abs=1e-5)


def test_a_hinge_takes_the_logits_as_they_are() -> None:
    generator, discriminator = loss_of(-3.0, -1.0, "hinge")
    assert math.isclose(generator, 3.0) and math.isclose(discriminator, 1.0)


def test_the_adversarial_weight_rises_over_its_warm_up() -> None:
    """As in ddpm-ood: min(epoch, 50) / 50 of the weight."""
    x, reconstruction = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16, requires_grad=True)
    one = PatchDiscriminatorLoss(2, 1, width=8, layers=1, weight=0.01, starts=10, warmup=50)
    size = []
    for step in (9, 10, 35, 60, 500):
        (gradient,) = torch.autograd.grad(
            one(x, reconstruction, torch.tensor([step])).sum(), reconstruction
        )
        size.append(gradient.norm().item())
    assert size[0] == size[1] == 0 and size[3] == size[4] > 0
    assert size[2] == pytest.approx(size[3] / 2, rel=1e-5)


def test_the_options_of_a_codecs_discriminator() -> None:
    plan = Training(steps=100, batch=1, lr=1e-4)
    assert adversary_options(0.0, 5e-4, plan, starts=100) is None
    options = adversary_options(0.01, 5e-4, plan, starts=99, warmup=7)
    assert options == {"weight": 0.01, "starts": 99, "warmup": 7, "rate": pytest.approx(5)}
    with pytest.warns(UserWarning, match="from step 100 on, so in none of the codec's 100"):
        adversary_options(0.01, 5e-4, plan, starts=100)
