"""AnoDDPM's own: noise by argument, quirks by argument, and an oracle."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.noise.noise import Simplex, gaussian
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.anoddpm import AnoDDPM
from known import ConstantNoise, ConstantX0
from small import samples, small_method

SPEC = Spec(1, (16, 16))


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(AnoDDPM, Spec(1, (256, 256)))
    assert sum(p.numel() for p in built.parameters()) == 131_649_793
    assert built.plan.steps == 300_100 and built.plan.batch == 1 and built.plan.ema == 0.9999
    assert built.published == 250 and built.chain.steps is None and built.chain.variance == "large"
    assert (
        "octaves=6" in str(built.noise) and "0.8" in str(built.noise) and "64" in str(built.noise)
    )


@torch.no_grad()
def test_with_an_oracle_the_map_is_the_squared_anomaly() -> None:
    """A denoiser that knows the healthy image leaves exactly what was added to it."""
    built = small_method("anoddpm", SPEC, repeats=2).eval()
    healthy = torch.full((1, 1, 16, 16), 0.25)
    built.denoiser = Denoiser(
        ConstantX0(built.canvas.forward(healthy)), linear_schedule(), prediction_type="clean"
    ).eval()
    x = healthy.clone()
    x[..., 4:7, 5:9] += 0.5
    results = built.detect(x, [100, 250], Rng(["a"]))
    assert results.map is not None and results.reconstruction is not None
    torch.testing.assert_close(
        results.map, (x - healthy).square()[None, :, 0].expand(2, -1, -1, -1)
    )
    torch.testing.assert_close(results.reconstruction[0], healthy, rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"noise": "gaussian"},
        {"octaves": 2},
        {"normalise": True},
        {"origin_jitter": True},
        {"shared_noise": True},
        {"variance": "small"},
        {"eta": 0.0},
        {"repeats": 3},
        {"noise": "random"},
        {"detect_noise": "gaussian"},
        {"detect_frequency": 8},
        {"reverse_noise": "gaussian"},
        {"gradual": True},
        {"index_shift": True},
    ],
)
def test_each_argument_changes_what_is_found(change: dict[str, object]) -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    plain, other = (
        small_method("anoddpm", SPEC).eval(),
        small_method("anoddpm", SPEC, **change).eval(),
    )
    a, b = plain.detect(x, [250], rng).map, other.detect(x, [250], rng).map
    assert a is not None and b is not None and not torch.allclose(a, b)


@torch.no_grad()
def test_a_shared_field_is_shared_and_the_default_is_not() -> None:
    for shared in (False, True):
        noise = small_method("anoddpm", SPEC, shared_noise=shared).noise
        field = noise(Rng(["a", "b"]), (1, 8, 8), torch.tensor([5, 5]))
        assert torch.equal(field[0], field[1]) is shared


@torch.no_grad()
def test_averaging_maps_is_not_averaging_reconstructions() -> None:
    """The mean of squares is the square of the mean plus the variance: never less."""
    x, rng = samples((16, 16), 2, 1), Rng(["a", "b"])
    x = torch.stack([s.x for s in x])
    one = small_method("anoddpm", SPEC, repeats=4).eval().detect(x, [400], rng).map
    other = small_method("anoddpm", SPEC, repeats=4, average="map").eval().detect(x, [400], rng).map
    assert one is not None and other is not None
    assert (other >= one - 1e-6).all() and (other > one + 1e-6).any()


@torch.no_grad()
def test_the_evaluated_heads_are_a_quirk_by_name() -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    built = small_method("anoddpm", SPEC, heads=2).eval()
    for p in built.parameters():
        p.data.normal_(std=0.2, generator=torch.Generator().manual_seed(p.numel()))
    theirs = small_method("anoddpm", SPEC, heads=2, eval_heads=1).eval()
    theirs.load_state_dict(built.state_dict())
    a, b = built.detect(x, [250], rng).map, theirs.detect(x, [250], rng).map
    assert a is not None and b is not None and not torch.equal(a, b)


def test_only_levels_up_to_the_most_are_trained() -> None:
    built, asked = small_method("anoddpm", SPEC, max_level=40), []
    net = built.denoiser.net
    built.denoiser.net.register_forward_pre_hook(
        lambda _, inputs: asked.append(inputs[1].max().item())
    )
    built.fit(samples((16, 16), 4, 1), [], TrainingContext())
    assert asked and max(asked) <= 39 and built.denoiser.net is net


def test_the_network_begins_as_guided_diffusions() -> None:
    """Norms of eps 1e-5, and attention that adds nothing."""
    net = small_method("anoddpm", SPEC).denoiser.net
    norms = [part.eps for part in net.modules() if isinstance(part, nn.GroupNorm)]
    assert norms and set(norms) == {1e-5}
    projections = {k: p for k, p in net.named_parameters() if ".out_proj." in k}
    assert projections and not any(p.any() for p in projections.values())


@torch.no_grad()
def test_the_way_down_may_add_another_noise_than_the_way_up() -> None:
    """Their detection, written out: simplex noise of wavelength 8 to index 3, Gaussian noise back
    from index 2."""
    stored, betas = linear_schedule().alpha_bar.double(), torch.linspace(1e-4, 0.02, 1000).double()
    built = small_method(
        "anoddpm",
        SPEC,
        detect_frequency=8,
        reverse_noise="gaussian",
        index_shift=True,
        sampling_steps=None,
    ).eval()
    built.denoiser = Denoiser(ConstantNoise(0.3), linear_schedule(), clip=(-1, 1)).eval()
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    streams = rng.fork("repeat", 0)
    drawn = Simplex(frequency=8)(streams.fork("start"), (1, 16, 16), torch.tensor([4]))
    y = stored[4].sqrt() * (2 * x - 1) + (1 - stored[4]).sqrt() * drawn
    for i in (2, 1, 0):
        a, b, beta = stored[i + 1], stored[i], betas[i]
        clean = ((y - (1 - a).sqrt() * 0.3) / a.sqrt()).clamp(-1, 1)
        y = b.sqrt() * beta / (1 - a) * clean + (1 - b) * (1 - beta).sqrt() / (1 - a) * y
        if i:
            y = y + beta.sqrt() * streams.fork("step").at(i + 1).normal((1, 16, 16))
    results = built.detect(x, [3], rng).reconstruction
    assert results is not None
    torch.testing.assert_close(results[0], ((y + 1) / 2).float(), rtol=0, atol=1e-5)


class Still(nn.Module):
    """Says that there is no noise, and keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return torch.zeros_like(x)


@torch.no_grad()
def test_noise_added_level_by_level_is_of_the_levels_deviation() -> None:
    """Independent Gaussian steps of sqrt(alpha) x + sqrt(beta) n make the same law as one."""
    built = small_method(
        "anoddpm", SPEC, gradual=True, detect_noise="gaussian", sampling_steps=1
    ).eval()
    net = Still()
    built.denoiser = Denoiser(net, linear_schedule()).eval()
    built.denoiser.batch = 4
    x, rng = torch.full((4, 1, 16, 16), 0.5), Rng(list("abcd"))
    built.detect(x, [200], rng)
    assert net.seen[0].std().item() == pytest.approx(
        (1 - linear_schedule().alpha_bar[200]).sqrt().item(), rel=0.06
    )
    both = built.detect(x[:2], [0, 50, 200], rng.rows(torch.arange(2))).reconstruction
    alone = built.detect(x, [200], rng).reconstruction
    assert both is not None and torch.equal(both[0], x[:2])
    assert alone is not None and torch.equal(both[2], alone[0, :2])


@torch.no_grad()
def test_a_coin_decides_between_two_noises_for_every_sample() -> None:
    noise, level = small_method("anoddpm", SPEC, noise="random").noise, torch.full((60,), 7)
    rng = Rng([str(i) for i in range(60)])
    field = noise(rng, (1, 8, 8), level)
    white, smooth = (built(rng.fork("noise"), (1, 8, 8), level) for built in (gaussian, noise.one))
    which = [torch.equal(f, w) for f, w in zip(field, white, strict=True)]
    assert all(w or torch.equal(f, s) for w, f, s in zip(which, field, smooth, strict=True))
    assert 15 < sum(which) < 45


def test_a_shared_field_is_trained_on_at_a_shared_level() -> None:
    for shared in (False, True):
        built, asked = small_method("anoddpm", SPEC, shared_noise=shared, batch=8), []
        built.denoiser.net.register_forward_pre_hook(
            lambda _, inputs, asked=asked: asked.append(len(set(inputs[1].tolist())))
        )
        built.fit(samples((16, 16), 4, 1), [], TrainingContext())
        assert all(count == 1 for count in asked) is shared
