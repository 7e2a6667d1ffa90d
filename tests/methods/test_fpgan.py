"""Fixed-Point GAN: its networks, its losses, when which learns, and what it leaves alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Sample, Spec
from adbench.engine.networks.fixed_point_gan import FixedPointDiscriminator, FixedPointGenerator
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.fpgan import FixedPointGAN, _diseased_share
from small import build_small, samples
from trainings import MemoryStateStore, equal_states

SPEC = Spec(1, (16, 16), labels=True)
LABELS = torch.tensor([0.0, 1, 1])


class Change(nn.Module):
    """A generator's network whose change depends on the label, ((N, C + 1, *S)) -> (N, C, *S)."""

    def __init__(self, of: Any) -> None:
        super().__init__()
        self.of = of

    def forward(self, output: Tensor) -> Tensor:
        return self.of(output[:, :-1])


def size(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def batch(count: int = 3) -> tuple[Tensor, Rng]:
    data = samples((16, 16), count, 1)
    return torch.stack([s.x for s in data]), Rng([s.key for s in data])


def labelled(count: int = 8) -> list[Sample]:
    """Every second has a bright square."""
    built = []
    for i, s in enumerate(samples((16, 16), count, 1)):
        x = s.x.clone()
        if i % 2:
            x[:, 4:8, 4:8] += 0.6
        built.append(replace(s, x=x.clamp(0, 1), label=bool(i % 2)))
    return built


def test_the_networks_are_the_references() -> None:
    with torch.device("meta"):
        built = build(FixedPointGAN, Spec(3, (256, 256), labels=True))
        x = torch.zeros(1, 3, 256, 256)
        trunk = built.critic.trunk(x)
        assert trunk.shape == (1, 2048, 4, 4)
        assert built.critic.patches(trunk).shape == (1, 1, 4, 4)
        assert built.critic.label(trunk).shape == (1, 1, 1, 1)
        assert built.translator(x, torch.zeros(1)).shape == x.shape
        assert built.translator.net[:9](torch.zeros(1, 4, 256, 256)).shape == (1, 256, 64, 64)
    assert size(built.translator) == 8_417_984
    assert size(built.critic) == 44_753_856
    assert (built.plan.lr, built.plan.batch, built.weights.penalty, built.weights.restore) == (
        1e-4,
        8,
        10,
        10,
    )


@pytest.mark.parametrize("shape", [(16,), (16, 8), (8, 16, 8)])
def test_it_translates_in_any_number_of_axes(shape: tuple[int, ...]) -> None:
    x = torch.zeros(2, 2, *shape)
    assert FixedPointGenerator(shape, 2, (4, 8), blocks=1)(x, torch.ones(2)).shape == x.shape
    real, logit = FixedPointDiscriminator(shape, 2, width=4, layers=2)(x)
    assert real.shape == logit.shape == (2,)


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="divide by 4"):
        FixedPointGenerator((16, 10), 1, (4, 8, 16))
    with pytest.raises(ValueError, match="one of them 8 or more"):
        FixedPointGenerator((4, 4), 1, (4, 8, 16))
    with pytest.raises(ValueError, match=r"divide by 8, not \(16, 12\)"):
        FixedPointDiscriminator((16, 12), 1, layers=3)


@torch.no_grad()
def test_what_is_not_changed_is_squashed_and_what_is_changed_back_is_not() -> None:
    """And the quirk: the ends of the range cannot stay where they are."""
    x = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    results = {}
    for edge in (0.95, 1.0):
        built = build_small(FixedPointGAN, SPEC, edge=edge).eval()
        inner = (2 * x - 1) * edge
        built.translator.net = Change(torch.zeros_like)
        results[edge] = built.detect(x, [0], Rng(["a"]))
        torch.testing.assert_close(
            results[edge].map[0], (inner.tanh() - inner).abs()[0] / (2 * edge), atol=1e-6, rtol=1e-5
        )
        torch.testing.assert_close(results[edge].score[0], results[edge].map[0].amax((1, 2)))
    assert results[1.0].map.max() == pytest.approx((1 - math.tanh(1)) / 2)
    built = build_small(FixedPointGAN, SPEC, judged="mean").eval()
    built.translator.net = Change(lambda inner: inner.atanh() - inner)
    results = built.detect(x, [0], Rng(["a"]))
    assert results.map.max() < 1e-6 and results.score[0, 0] == pytest.approx(results.map.mean())


@torch.no_grad()
def test_a_map_is_the_mean_over_channels() -> None:
    built = build_small(FixedPointGAN, Spec(2, (16, 16), labels=True)).eval()
    shown = torch.full((1, 2, 16, 16), 0.5)
    built.translator.net = Change(lambda inner: torch.tensor([[0.2], [0.0]])[..., None] + 0 * inner)
    expected = math.tanh(0.2) / (2 * 0.95) / 2
    assert built.detect(shown, [0], Rng(["a"])).map.max() == pytest.approx(expected, rel=1e-4)


def test_the_penalty_of_a_linear_critic_is_of_its_gradient() -> None:
    """Of the patches' sum: every pixel is seen by one weight of the middle patch."""
    critic = FixedPointDiscriminator((4, 4), 1, width=1, layers=1)
    critic.trunk = nn.Sequential(nn.Conv2d(1, 1, 2, 2))
    weight = torch.tensor([[1.0, 2], [2, 4]])
    critic.trunk[0].get_parameter("weight").data[:] = weight
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[0, 0, 1, 1] = 0.5
    critic.patches.get_parameter("weight").data = kernel
    slope = 0.5 * math.sqrt(4 * 25)
    x = Rng(list("ab")).normal((1, 4, 4))
    assert critic.slope_penalty(x).tolist() == pytest.approx([(slope - 1) ** 2] * 2)


def test_the_losses_are_the_papers() -> None:
    """Both, written out over the batch, from what the networks say."""
    built = build_small(
        FixedPointGAN, SPEC, classify=0.7, restore=9, identity=0.3, penalty=8
    ).train()
    x, rng = batch()
    x, own, aim = x * 2 - 1, LABELS, 1 - LABELS
    g, d = built.translator, built.critic
    there, here = g(x, aim), g(x, own)
    mix = rng.fork("mix").uniform((1, 1, 1)).float()
    between = (mix * x + (1 - mix) * there).detach().requires_grad_()
    slope = torch.autograd.grad(d.patches(d.trunk(between)).sum(), between)[0]
    steep = (slope.square().sum((1, 2, 3)).sqrt() - 1).square().mean()

    def missed(logit: Tensor, label: Tensor) -> Tensor:
        return softplus(torch.where(label > 0, -logit, logit)).mean()

    def real(y: Tensor) -> Tensor:
        return d.patches(d.trunk(y)).mean()

    theirs = real(there) - real(x) + 0.7 * missed(d(x)[1], own) + 8 * steep
    torch.testing.assert_close(built.critic_loss(x, there, own, rng).mean(), theirs)
    theirs = -real(there) + 9 * (x - g(there, own)).abs().mean() + 0.7 * missed(d(there)[1], aim)
    theirs = theirs - real(here) + 9 * (x - g(here, own)).abs().mean()
    theirs = theirs + 0.7 * missed(d(here)[1], own) + 0.3 * (x - here).abs().mean()
    torch.testing.assert_close(built.generator_loss(x, there, own, aim).mean(), theirs)


def test_neither_networks_gradient_reaches_the_other() -> None:
    built = build_small(FixedPointGAN, SPEC).train()
    x, rng = batch()
    there = built.translator(x, 1 - LABELS)
    built.generator_loss(x, there, LABELS, 1 - LABELS).sum().backward()
    assert all(p.grad is None for p in built.critic.parameters())
    assert all(p.grad.abs().sum() > 0 for p in built.translator.net[-1].parameters())
    built.zero_grad()
    built.critic_loss(x, there.detach(), LABELS, rng).sum().backward()
    assert all(p.grad is None for p in built.translator.parameters())
    assert all(p.grad is not None for p in built.critic.parameters())


def test_the_generator_learns_in_every_fifth_step_and_the_critic_in_all() -> None:

    def after(steps: int) -> Any:
        built = build_small(FixedPointGAN, SPEC, steps=steps, decay="none")
        built.fit(labelled(), [], TrainingContext())
        return built

    four, five, nine = after(4), after(5), after(9)
    assert equal_states(four.translator, build_small(FixedPointGAN, SPEC).translator)
    assert equal_states(five.translator, nine.translator) and not equal_states(
        four.translator, five.translator
    )
    assert not equal_states(five.critic, nine.critic)
    assert not equal_states(four.critic, build_small(FixedPointGAN, SPEC).critic)


def test_a_training_that_was_stopped_goes_on_to_the_same_weights() -> None:
    def plan() -> Any:
        return build_small(FixedPointGAN, SPEC, steps=8, critic_steps=3, ema=0.5)

    whole, half, asked = plan(), plan(), iter([False] * 4 + [True])
    whole.fit(labelled(), [], TrainingContext())
    memory = MemoryStateStore()
    with pytest.raises(Interrupted):
        half.fit(labelled(), [], TrainingContext(state_store=memory, stop=lambda: next(asked)))
    again = plan()
    again.fit(labelled(), [], TrainingContext(state_store=memory))
    assert equal_states(again, whole)


def test_the_rate_falls_to_zero_and_the_authors_by_a_thousandth() -> None:
    ends = {"linear": 0.0, "stalled": 1e-4 * (1 - 1e-3), "none": 1e-4}
    for decay, end in ends.items():
        plan = build_small(FixedPointGAN, SPEC, steps=200_000, decay=decay).plan
        assert plan.learning_rate(0) == plan.learning_rate(100_000) == 1e-4
        assert plan.learning_rate(200_000) == pytest.approx(end, rel=1e-9, abs=1e-15)
    plan = build_small(FixedPointGAN, SPEC, steps=200_000).plan
    assert plan.learning_rate(150_000) == pytest.approx(0.5e-4)
    short = {kind: build_small(FixedPointGAN, SPEC, steps=10_000, decay=kind).plan for kind in ends}
    assert short["linear"].learning_rate(5_000) == pytest.approx(0.5e-4)
    assert short["stalled"].learning_rate(5_000) == pytest.approx(1e-4 * (1 - 5e-5))


def test_a_sample_is_translated_to_its_other_label_or_to_some_samples() -> None:
    """Drawn, it is diseased as often as the samples that are trained on."""
    data = labelled(4)
    share = _diseased_share([data[1], *data, *data[::2]])
    assert share == 3 / 7 and _diseased_share([]) == 0
    rng, own = Rng([f"r{i}" for i in range(400)]), torch.arange(400).remainder(2).float()
    other, drawn = (
        build_small(FixedPointGAN, SPEC, target=t)._target_labels(own, rng, 0.2)
        for t in ("other", "drawn")
    )
    assert torch.equal(other, 1 - own)
    assert set(drawn.tolist()) == {0.0, 1.0} and drawn.mean() == pytest.approx(0.2, abs=0.06)
    assert (drawn == own).float().mean() == pytest.approx(0.5, abs=0.1)
    part = build_small(FixedPointGAN, SPEC, target="drawn")._target_labels(
        own[5:9], rng.rows(torch.arange(5, 9)), 0.2
    )
    assert torch.equal(part, drawn[5:9])
    built = build_small(FixedPointGAN, SPEC, target="drawn", steps=1)
    built.fit([s for s in data if s.label], [], TrainingContext())


def test_it_takes_off_what_the_label_is_about_and_little_else() -> None:
    """There and back, and under its own label, a sample is far closer to itself than to the
    mean of all; the square goes."""
    data = labelled(16)
    x, own = torch.stack([s.x for s in data]), torch.tensor([float(s.label) for s in data])
    built = build_small(
        FixedPointGAN,
        SPEC,
        steps=100,
        critic_steps=2,
        decay_steps=50,
        lr=4e-3,
        batch=4,
        augment=False,
    )
    built.fit(data, [], TrainingContext())
    inner = built.canvas.forward(x)
    with torch.no_grad():
        back = built.translator(built.translator(inner, 1 - own), own)
        alike = built.translator(inner, own)
        results = built.detect(x, [0], Rng([s.key for s in data]))
    baseline = (inner - inner.mean(0)).abs().mean()
    assert (back - inner).abs().mean() < baseline / 3
    assert (alike - inner).abs().mean() < baseline / 5
    ill = results.map[0, own > 0]
    inside = ill[:, 4:8, 4:8].mean()
    assert inside > 3 * ill[:, 10:].mean() and inside > 3 * results.map[0, own == 0].mean()
    assert results.score[0, own > 0].mean() > 1.3 * results.score[0, own == 0].mean()
