"""cDDPM's own: the code that conditions it, and its three levels."""

from __future__ import annotations

import pytest
import torch

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import cosine_schedule
from adbench.engine.profiling.cost import count_parameters
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.cddpm import CDDPM
from known import ConstantX0
from small import build_small, samples

SPEC = Spec(1, (16, 16))


class ConditioningAsClean(torch.nn.Module):
    """Predicts the first number of the conditioning as x_0, everywhere; records its timesteps."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[int] = set()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        self.asked |= set(t.tolist())
        self.seen.append(x[:1])
        return code[:, 0].view(-1, 1, 1, 1).expand_as(x) + t.view(-1, 1, 1, 1) / 1000


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(CDDPM, Spec(1, (96, 96)))
    assert built.plan.steps == 14_400 and built.plan.batch == 32 and built.power == 1
    assert built.denoiser.prediction_type == "clean" and built.denoiser.schedule.name.startswith(
        "cosine"
    )
    assert (
        count_parameters(built.encoder) == 24_550_848
    )  # a ResNet-50 of 1 channel in, 512 numbers out


@torch.no_grad()
def test_the_papers_three_levels_are_a_level_and_its_half_and_half_again() -> None:
    built = build_small(CDDPM, SPEC).eval()
    net = ConditioningAsClean()
    built.denoiser = Denoiser(net, cosine_schedule(), prediction_type="clean").eval()
    x = torch.stack([s.x for s in samples((16, 16), 2, 1)])
    results = built.detect(x, [500], Rng(["a", "b"]))
    assert net.asked == {249, 499, 749}
    code = built.encoder(built.canvas.forward(x))[:, 0]
    assert results.reconstruction is not None
    expected = (code + 0.499 + 1) / 2  # the mean over the three, in [0, 1]
    torch.testing.assert_close(results.reconstruction[0, :, 0, 0, 0], expected)


@torch.no_grad()
@pytest.mark.parametrize("noise", ["gaussian", "simplex"])
def test_every_one_of_the_ensemble_has_noise_of_its_own(noise: str) -> None:
    """Of a grey sample, which is 0 in [-1, 1], the network sees the noise alone."""
    built = build_small(CDDPM, Spec(1, (48, 48)), noise=noise, size=None, frequency=16).eval()
    net = ConditioningAsClean()
    built.denoiser = Denoiser(net, cosine_schedule(), prediction_type="clean").eval()
    built.detect(torch.full((1, 1, 48, 48), 0.5), [500], Rng(["a"]))
    apart = torch.corrcoef(torch.cat(net.seen).flatten(1)) - torch.eye(3)
    assert len(net.seen) == 3 and apart.abs().max() < 0.6


@torch.no_grad()
def test_an_ensemble_of_oracles_is_the_oracle() -> None:
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built = build_small(CDDPM, SPEC, ensemble=[0.5, 1.0, 1.5, 0.2]).eval()
    oracle = ConstantX0(built.canvas.forward(healthy))
    built.denoiser.net = torch.nn.Module()
    built.denoiser.net.forward = lambda x, t, code: oracle(x, t)
    results = built.detect(torch.rand(1, 1, 16, 16), [300, 500], Rng(["a"])).reconstruction
    assert results is not None
    torch.testing.assert_close(results, healthy.expand(2, 1, 1, 16, 16))


@torch.no_grad()
def test_the_estimate_is_clamped_if_that_is_asked_for() -> None:
    x, results = torch.full((1, 1, 16, 16), 0.5), {}
    for clip_clean in (False, True):
        built = build_small(CDDPM, SPEC, clip_clean=clip_clean).eval()
        built.denoiser.net = torch.nn.Module()
        built.denoiser.net.forward = lambda x, t, code: x * 0 + t.view(-1, 1, 1, 1) / 500
        results[clip_clean] = built.detect(x, [500], Rng(["a"])).reconstruction
    means = [t / 500 for t in (249, 499, 749)]
    for clip_clean, expected in ((False, means), (True, [min(m, 1) for m in means])):
        value = (sum(expected) / 3 + 1) / 2
        torch.testing.assert_close(results[clip_clean], torch.full((1, 1, 1, 16, 16), value))


@torch.no_grad()
def test_one_of_the_ensemble_is_one_step() -> None:
    built = build_small(CDDPM, SPEC, ensemble=[1]).eval()
    built.denoiser = Denoiser(
        ConditioningAsClean(), cosine_schedule(), prediction_type="clean"
    ).eval()
    built.detect(torch.zeros(1, 1, 16, 16), [300, 600], Rng(["a"]))
    assert built.denoiser.net.asked == {299, 599} and built.denoiser.evaluations == 2


@torch.no_grad()
def test_the_level_is_capped_at_the_schedules_end() -> None:
    built = build_small(CDDPM, SPEC, ensemble=[1.0, 2.0]).eval()
    built.denoiser = Denoiser(
        ConditioningAsClean(), cosine_schedule(), prediction_type="clean"
    ).eval()
    built.detect(torch.zeros(1, 1, 16, 16), [600], Rng(["a"]))
    assert built.denoiser.net.asked == {599, 999}


@torch.no_grad()
def test_with_no_way_in_the_code_changes_nothing_and_else_it_does() -> None:
    built = build_small(CDDPM, SPEC).eval()
    for p in built.parameters():
        p.data.normal_(std=0.2, generator=torch.Generator().manual_seed(p.numel()))
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    level, one, other = torch.tensor([300, 300]), torch.zeros(2, 8), torch.ones(2, 8)
    ask = built.denoiser.predict
    assert not torch.allclose(ask(x, level, one), ask(x, level, other))
    built.denoiser.net.vector_embed[-1].weight.data.zero_()
    assert torch.equal(ask(x, level, one), ask(x, level, other))


def test_the_encoder_learns_with_the_denoiser_and_knows_no_batch_mates() -> None:
    built = build_small(CDDPM, SPEC, steps=4)
    before = {k: v.clone() for k, v in built.encoder.state_dict().items()}
    built.fit(samples((16, 16), 4, 1), [], TrainingContext())
    after = built.encoder.state_dict()
    assert any(not torch.equal(v, after[k]) for k, v in before.items())
    assert not any("running" in key for key in after)
    x = torch.stack([s.x for s in samples((16, 16), 3, 1)])
    built.train()
    torch.testing.assert_close(built.encoder(x)[:1], built.encoder(x[:1]), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_brightness_that_was_learnt_comes_through_the_code() -> None:
    """Flat samples of any brightness, from nearly pure noise: only the code can tell which."""
    flat = [
        type(s)(torch.full((1, 16, 16), 0.1 + 0.8 * i / 7), s.key, s.group, False)
        for i, s in enumerate(samples((16, 16), 8, 1))
    ]
    built = build_small(CDDPM, SPEC, steps=60, batch=8, lr=6e-3, noise="gaussian", augment=False)
    with torch.enable_grad():
        built.fit(flat, [], TrainingContext())
    x = torch.stack([flat[1].x, flat[6].x])
    results = built.detect(x, [600], Rng(["a", "b"])).reconstruction
    assert results is not None
    dark, bright = results[0].mean((1, 2, 3)).tolist()
    assert bright - dark > 0.3


def test_an_empty_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match="one or more"):
        build_small(CDDPM, SPEC, ensemble=[])
