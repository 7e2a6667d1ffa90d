"""Guided diffusion's own: what is encoded and decoded, and where guidance leads."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Sample, Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.networks.noisy_classifier import NoisyClassifier
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.reconstruct import SamplingConfig, reconstruct
from adbench.methods.guided import Guided, rescale_to_unit
from known import NoiseField, NormalPosteriorMean, SmoothNetwork
from small import build_small, samples

SPEC = Spec(1, (16, 16), labels=True)
KEPT = linear_schedule().alpha_bar


class Says(nn.Module):
    """As a network that learns its variance: noise, and this spread. knows: says what x_0 was."""

    def __init__(self, net: nn.Module, spread: float = 0.0, knows: str = "noise") -> None:
        super().__init__()
        self.net, self.spread, self.knows = net, spread, knows
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append(x)
        text = self.net(x, t)
        if self.knows == "clean":
            stored = KEPT[t + 1].view(-1, 1, 1, 1)
            text = ((x - stored.sqrt() * text.double()) / (1 - stored).sqrt()).to(x.dtype)
        return torch.cat([text, torch.full_like(text, self.spread)], 1)


def with_net(net: nn.Module, **more: Any) -> Any:
    quiet = {
        "scale": 0.0, "class_cond": False, "sampling_steps": None, "size": None, "clip": None,
    }  # fmt: skip
    built = build_small(Guided, SPEC, **quiet | more).eval()
    built.denoiser = Denoiser(net, linear_schedule(), learns_variance=True).eval()
    built.denoiser.batch = 1
    return built


def seen(built: Any, x: Tensor, levels: list[int]) -> Tensor:
    results = built.detect(x, levels, Rng([str(i) for i in range(len(x))])).reconstruction
    assert results is not None
    return results


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(Guided, Spec(4, (256, 256)))
        plain = build(Guided, Spec(4, (256, 256)), class_cond=False)
        chest = build(Guided, Spec(1, (256, 256)))
    assert sum(p.numel() for p in built.denoiser.parameters()) == 113_681_160
    assert sum(p.numel() for p in plain.denoiser.parameters()) == 113_680_136
    assert sum(p.numel() for p in chest.denoiser.parameters()) == 113_670_786
    assert sum(p.numel() for p in built.classifier.parameters()) == 5_452_962
    assert sum(p.numel() for p in chest.classifier.parameters()) == 5_452_098
    assert built.published == 500 and built.scale == 100 and built.canvas.range == (0, 1)


@torch.no_grad()
def test_the_references_schedule_and_ours_ask_at_these_timesteps() -> None:
    """998 calls at 1..499, then 498..0; without the shift up from 0 and down from 499."""
    x = samples((16, 16), 1, 1)[0].x[None]
    for shift, up, down in ((True, range(1, 500), range(498, -1, -1)),
                            (False, [0, *range(499)], range(499, -1, -1))):  # fmt: skip
        net = SmoothNetwork(outs=2)
        seen(with_net(net, index_shift=shift), x, [500])
        assert [t[0] for t in net.timesteps] == [*up, *down]
    with pytest.raises(ValueError, match="leaves no step out"):
        build_small(Guided, SPEC, index_shift=True, sampling_steps=10)


@torch.no_grad()
def test_unguided_with_a_fixed_noise_it_gives_back_what_it_was_given() -> None:
    x = torch.stack([s.x for s in samples((16, 16), 2, 1)])
    fixed = Says(NoiseField(Rng(["e"]).normal((1, 16, 16))[0]))
    back = seen(with_net(fixed), x, [100, 500])
    torch.testing.assert_close(back, x.expand_as(back), rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("quirks", "low", "high"),
    [
        ({}, 0.0, 0.0026),
        ({"index_shift": True}, 0.0, 0.005),
        ({"index_shift": True, "first_noise": True}, 0.0096, 0.0104),
    ],
)
def test_the_way_there_and_back_errs_as_much_as_the_spec_says(quirks, low, high) -> None:
    """Data of deviation .05 around .25, with its own optimal denoiser."""
    built = with_net(
        Says(NormalPosteriorMean(linear_schedule(), 0.25, 0.05**2), knows="clean"), **quirks
    )
    built.denoiser.batch = 4
    x = 0.25 + 0.05 * Rng(list("abcd")).normal((1, 16, 16))
    error = (seen(built, x, [500])[0] - x).square().mean().sqrt().item()
    assert low <= error <= high


class Mixture(nn.Module):
    """Exact x_0 of places that are healthy, around .2, or not, around .8, deviation .1 each; and
    the slope of the exact chance of health."""

    means, deviation, prior = (0.2, 0.8), 0.1, 0.4

    def logits(self, x: Tensor, level: Tensor) -> Tensor:
        stored = KEPT[level].view(-1, 1, 1, 1)
        wide = stored * self.deviation**2 + 1 - stored
        each = [-((x - stored.sqrt() * m) ** 2) / (2 * wide) for m in self.means]
        return torch.stack([each[0] + math.log(self.prior), each[1] + math.log(1 - self.prior)])

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        stored = KEPT[t + 1].view(-1, 1, 1, 1)
        gain = stored.sqrt() * self.deviation**2 / (stored * self.deviation**2 + 1 - stored)
        share = self.logits(x.double(), t + 1).softmax(0)
        clean = [m + gain * (x - stored.sqrt() * m) for m in self.means]
        return (share[0] * clean[0] + share[1] * clean[1]).to(x.dtype)

    def log_prob_gradient(self, x: Tensor, level: Tensor, label: Tensor) -> Tensor:
        assert not label.any()
        with torch.enable_grad():
            inner = x.double().requires_grad_()
            sure = self.logits(inner, level).log_softmax(0)[0].sum()
            return torch.autograd.grad(sure, inner)[0].to(x.dtype)


@torch.no_grad()
@pytest.mark.parametrize(("scale", "mean"), [(0.0, 0.806), (0.5, 0.436), (1.0, 0.272), (2, 0.18)])
def test_guidance_leads_diseased_positions_to_health_and_keeps_the_rest(scale, mean) -> None:
    built = with_net(Says(Mixture(), knows="clean"), scale=scale, sampling_steps=250)
    built.classifier = Mixture()
    x = 0.8 + 0.1 * Rng(["a"]).normal((1, 16, 16))
    back = seen(built, x, [500])[0]
    assert back.mean().item() == pytest.approx(mean, abs=0.025)
    assert torch.corrcoef(torch.stack([x.flatten(), back.flatten()]))[0, 1] > 0.95


@torch.no_grad()
def test_the_ddpm_variant_leads_there_too_and_unguided_is_the_engines() -> None:
    """Guided by the exact slope, DDPM draws from what is healthy: around .2, deviation about .1."""
    built = with_net(
        Says(Mixture(), -1.0, knows="clean"), sampler="ddpm", scale=1.0, sampling_steps=125
    )
    built.classifier = Mixture()
    x = 0.8 + 0.1 * Rng(["a"]).normal((1, 16, 16))
    back = seen(built, x, [500])[0]
    assert back.mean().item() == pytest.approx(0.2, abs=0.05)
    built.scale = 0.0
    plain = reconstruct(
        built.denoiser, x, [500], Rng(["0"]), sampling=SamplingConfig(125, variance="learned")
    )
    assert torch.equal(seen(built, x, [500]), built.canvas.inverse(plain[:, :, 0]))


@torch.no_grad()
@pytest.mark.parametrize(("quirk", "level"), [(None, 200), (500, 500)])
def test_the_ddpm_variant_starts_at_the_chains_level_or_at_500(quirk, level) -> None:
    """Theirs noises to 500 whatever the level is."""
    net = Says(NoiseField(torch.zeros(1, 16, 16)))
    built = with_net(net, sampler="ddpm", start_level=quirk, sampling_steps=1)
    seen(built, torch.zeros(1, 1, 16, 16), [200])
    assert net.seen[0].std().item() == pytest.approx((1 - KEPT[level]).sqrt().item(), rel=0.12)


def test_it_learns_both_kinds_and_the_label_of_health_is_0() -> None:
    """A sample with a bright square is diseased; the classifier learns it."""
    rows = samples((16, 16), 4, 1)
    blob = torch.zeros(1, 16, 16)
    blob[:, 4:10, 4:10] = 4.0
    ill = [Sample((0.2 * s.x + blob), f"i{s.key}", f"i{s.key}", True) for s in rows]
    well = [Sample(0.2 * s.x, s.key, s.group, False) for s in rows]
    built = build_small(
        Guided, SPEC, size=None, steps=2, batch=8, classifier_steps=80, classifier_lr=2e-3,
        classifier_clip=1.0, classifier_max_level=200,
    )  # fmt: skip
    built.fit([*well, *ill], [], TrainingContext())
    x = torch.stack([s.x for s in [*well, *ill]])
    with torch.no_grad():
        text = built.classifier(x, torch.ones(8, dtype=torch.int64)).argmax(1)
    assert text.tolist() == [0] * 4 + [1] * 4
    assert built._encoding_label(x).tolist() == [0] * 8
    built.encode_label = "predicted"
    assert built._encoding_label(x).tolist() == text.tolist()
    built.judged = "classifier"
    with torch.no_grad():
        results = built.detect(x, [100, 500], Rng([str(i) for i in range(8)])).score
    assert results[:, 4:].min() > results[:, :4].max() and torch.equal(results[0], results[1])


def test_the_network_is_conditioned_on_the_label() -> None:
    built = build_small(Guided, SPEC, size=None).eval()
    label = built.denoiser.net.class_embedding.weight  # type of UNet's own
    with torch.no_grad():
        x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
        for p in built.denoiser.parameters():
            p.add_(0.05)  # its output is zero at first
        label[1] += 3
        a, b = (
            built.denoiser.predict(x, torch.tensor([9, 9]), torch.tensor([k, k])) for k in (0, 1)
        )
    assert not torch.equal(a, b)
    assert isinstance(built.classifier, NoisyClassifier)


class Spy(nn.Module):
    """As a classifier with the same slope everywhere; keeps what it is asked about."""

    def __init__(self, slope: float = 0.0) -> None:
        super().__init__()
        self.slope = slope
        self.asked: list[int] = []
        self.labels: set[int] = set()

    def log_prob_gradient(self, x: Tensor, level: Tensor, label: Tensor) -> Tensor:
        self.asked += level.tolist()
        self.labels |= set(label.tolist())
        return torch.full_like(x, self.slope)


@torch.no_grad()
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("hears", ["level", "index"])
def test_with_steps_left_out_the_classifier_hears_the_networks_time(sampler, hears) -> None:
    """Or, by name, the number of the step, as the authors' DDIM has it."""
    net = SmoothNetwork(outs=2)
    built = with_net(
        net, sampler=sampler, scale=1.0, sampling_steps=10, classifier_hears=hears,
        target="diseased",
    )  # fmt: skip
    built.classifier = spy = Spy()
    seen(built, samples((16, 16), 1, 1)[0].x[None], [500, 200])
    ways = [(500, 50), (200, 20)]
    decoded = sorted(t[0] for t in net.timesteps[-20:])
    assert decoded == sorted(i * step - 1 for _, step in ways for i in range(1, 11))
    heard = sorted(level - 1 for level in spy.asked)
    by_number = hears == "index" and sampler == "ddim"
    assert heard == (sorted([*range(10)] * 2) if by_number else decoded)
    assert spy.labels == {1}


@torch.no_grad()
def test_the_last_step_may_be_guided_by_the_variance_before() -> None:
    """mean + variance * scale * slope at timestep 0, with the posterior's variance of step 1."""
    x, slope, scale = torch.full((1, 1, 16, 16), 0.5), 0.7, 3.0
    there = []
    for last in (False, True):
        net = Says(NoiseField(torch.zeros(1, 16, 16)), -0.4)
        built = with_net(net, sampler="ddpm", scale=scale, guide_last=last)
        built.classifier = Spy(slope)
        there.append(seen(built, x, [1])[0])
    betas = torch.linspace(1e-4, 0.02, 1000).double()
    small = betas[1] * (1 - KEPT[1]) / (1 - KEPT[2])
    wide = (0.3 * betas[0].log() + 0.7 * small.log()).exp()
    moved = (there[1] - there[0]).double()
    torch.testing.assert_close(moved, (wide * scale * slope).expand_as(moved), rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_encoded_under_no_label_the_network_hears_none() -> None:
    built = build_small(Guided, SPEC, size=None, encode_label="null").eval()
    for p in built.denoiser.parameters():
        p.add_(0.05)
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    null = built._encoding_label(x)
    built.denoiser.net.class_embedding.weight.zero_()
    at = torch.tensor([9, 9])
    zero = built.denoiser.predict(x, at, torch.tensor([0, 1]))
    built.denoiser.net.class_embedding.weight.normal_()
    assert torch.equal(built.denoiser.predict(x, at, null), zero)
    assert not torch.equal(built.denoiser.predict(x, at, torch.tensor([0, 1])), zero)


def test_the_network_begins_as_guided_diffusions() -> None:
    """Norms of eps 1e-5, and attention that adds nothing."""
    net = build_small(Guided, SPEC, size=None).denoiser.net
    norms = [part.eps for part in net.modules() if isinstance(part, nn.GroupNorm)]
    assert norms and set(norms) == {1e-5}
    projections = {k: p for k, p in net.named_parameters() if ".out_proj." in k}
    assert projections and not any(p.any() for p in projections.values())


def test_weights_are_the_same_however_clipped() -> None:
    built, loose = (build_small(Guided, SPEC, size=None, clip=clip) for clip in ((0.0, 1.0), None))
    loose.load_state_dict(built.state_dict())
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for method in (built, loose):
            for p in method.denoiser.parameters():
                p.add_(0.05)
    a, b = (seen(method.eval(), x, [500]) for method in (built, loose))
    assert not torch.equal(a, b)


def test_a_classifier_that_separates_nothing_is_warned_of() -> None:
    built = build_small(Guided, SPEC, size=None, steps=1, classifier_steps=1)
    held = samples((16, 16), 5, 1, "h")
    sample = replace(held[0], label=True)
    with torch.no_grad():
        built.classifier.net.pool.out.weight.zero_()
        built.classifier.net.pool.out.bias.copy_(torch.tensor([-2.0, 2.0]))
    with pytest.warns(UserWarning, match="calls 0 of 5 held-out normal samples healthy"):
        built.fit([sample, *held], held, TrainingContext())
    with torch.no_grad():
        built.classifier.net.pool.out.bias.copy_(torch.tensor([2.0, -2.0]))
    with pytest.warns(UserWarning, match="calls 0 of 1 diseased training samples diseased"):
        built.fit([sample, *held], held, TrainingContext())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        built.fit(held, held, TrainingContext())


def test_the_map_is_the_sum_over_channels_and_may_be_stretched() -> None:
    x = torch.tensor([0.0, 2.0, 4.0]).view(1, 1, 3) + torch.tensor([1.0, 10.0]).view(2, 1, 1)
    torch.testing.assert_close(rescale_to_unit(x, 2), torch.tensor([0.0, 0.5, 1]).expand(2, 1, 3))
    assert rescale_to_unit(torch.ones(1, 2, 3), 2).eq(0).all()
    built = with_net(Says(NoiseField(torch.zeros(2, 16, 16))))
    two = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        results = built.detect(two, [500], Rng(["a"]))
    assert results.map is not None and results.reconstruction is not None
    torch.testing.assert_close(results.map[0], (results.reconstruction[0] - two).abs().sum(1))
