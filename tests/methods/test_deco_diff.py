"""DeCo-Diff's own: how codes are made to deviate; the map of two differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.codecs.codec import Identity
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.deviation import Deviation
from adbench.engine.diffusion.schedule import cosine_schedule, sampling_levels
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.deco_diff import DeCoDiff
from known import NoiseField
from small import build_small, samples

SPEC = Spec(1, (16, 16))


class Pull(torch.nn.Module):
    """Says that all deviates from `image`, as a perfect network of that one sample would."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.schedule, self.image, self.asked = cosine_schedule(10), image, []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append(t[0].item())
        sigma = (1 - self.schedule.alpha_bar[t + 1]).sqrt().view(-1, 1, 1, 1)
        return (x - self.image) / sigma.to(x.dtype)


def deco(net: torch.nn.Module | None = None, **more: Any) -> DeCoDiff:
    built = build_small(DeCoDiff, SPEC, **more).eval()
    if net is not None:  # codes are the images themselves, in -1..1
        built.codec = Identity((1, 16, 16), (-1.0, 1.0))
        built.denoiser = Denoiser(net, cosine_schedule(10), process=Deviation).eval()
    return built


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(DeCoDiff, Spec(3, (256, 256)))
    assert built.canvas.padded_shape == (256, 256) and built.codec.latent == (4, 32, 32)
    assert (
        built.plan.steps == 23_200 and built.plan.warmup == 290
    )  # 800 and 10 epochs of 29 batches
    assert built.plan.batch == 128 and built.plan.lr == built.plan.weight_decay == 1e-4
    level = built.process.schedule.to_level(built.published)
    assert sampling_levels(level, stride=built.stride) == [
        9, 7, 5, 3, 1, 0,
    ]  # fmt: skip
    assert built.process.schedule.name == "cosine 10 0.008" and built.dropout.rate == 0.4


def test_codes_deviate_in_whole_cells_by_noise_or_by_other_codes() -> None:
    """One size of cell, all replaced: what a Gaussian process would have made of a code with
    another code for noise, and at most 0.7 of it."""
    built = deco(cells=(4,), chances=(1.0,), foreign=1.0)
    keys = [f"s{i}" for i in range(200)]
    z = Rng(keys).normal((4, 16, 16))
    bank = torch.arange(1.0, 4).view(3, 1, 1, 1).expand(3, 4, 16, 16)
    level = torch.full((200,), 10)
    d = built.sample_deviation(z, bank, Rng(keys), level)
    there = (d != 0).all(1, keepdim=True)
    assert torch.equal(there, (d != 0).any(1, keepdim=True))
    cell = there[:, :, ::4, ::4]
    assert torch.equal(cell.repeat_interleave(4, 2).repeat_interleave(4, 3), there)
    share = cell.double().mean((1, 2, 3))
    assert share.max() <= 0.75 and abs(share.mean() - 0.35 - 0.5 / 16) < 0.04
    stored = cosine_schedule(10).alpha_bar[10]
    drawn = d + ((1 - stored.sqrt()) / (1 - stored).sqrt()).float() * z
    values = drawn[there.expand_as(drawn)]
    of_bank = (values[:, None] - torch.tensor([1.0, 2.0, 3.0])).abs().amin(1) < 1e-4
    share = of_bank.double().mean().item()
    assert share == pytest.approx(0.5 + 0.5 / 16, abs=0.06)  # foreign is uniform in 0..1


def test_a_sample_deviates_alike_in_any_batch_and_cells_have_their_chances() -> None:
    built = deco(cells=(1, 16), chances=(0.25, 0.75), disturbed=1.0, foreign=0.0)
    keys = [f"s{i}" for i in range(400)]
    z, bank = torch.zeros(400, 4, 16, 16), torch.ones(1, 4, 16, 16)
    level = torch.full((400,), 3)
    d = built.sample_deviation(z, bank, Rng(keys), level)
    alone = built.sample_deviation(z[5:6], bank, Rng(keys[5:6]), level[:1])
    assert torch.equal(alone[0], d[5])
    full = (d != 0).flatten(1).all(1).double().mean().item()
    assert full == pytest.approx(0.75, abs=0.07)  # the one cell of 16 always deviates
    some = d[d != 0]
    assert some.mean().abs() < 0.01 and some.std().item() == pytest.approx(1, abs=0.01)


def test_the_network_learns_nothing_where_nothing_deviates() -> None:
    """The loss is the mean squared error of the deviation, 0 for what stays as it is: of a network
    that says nothing, the power of the deviation itself."""
    built = deco(NoiseField(torch.zeros(1, 16, 16)), cells=(2,), chances=(1.0,), foreign=0.0)
    z, bank = torch.zeros(300, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    keys = [f"s{i}" for i in range(300)]

    def deviation(streams: Rng, shape: object, level: Tensor) -> Tensor:
        return built.sample_deviation(z, bank, streams, level)

    loss = built.denoiser.loss(z, Rng(keys), noise=deviation)
    assert loss.mean().item() == pytest.approx(0.35 + 0.5 / 64, abs=0.04)


@torch.no_grad()
def test_with_a_perfect_network_only_the_anomaly_is_found() -> None:
    healthy = samples((16, 16), 1, 1)[0].x[None]
    net = Pull(2 * healthy - 1)
    built = deco(net, blurs=(0.0, 0.0))
    x = healthy.clone()
    x[..., 5:9, 5:9] = (x[..., 5:9, 5:9] + 0.05).clamp(max=1)
    results = built.detect(x, [900], Rng(["a"]))
    assert net.asked == [8, 6, 4, 2, 0]
    assert results.map is not None and results.reconstruction is not None
    torch.testing.assert_close(results.reconstruction[0], healthy, rtol=0, atol=1e-4)
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[5:9, 5:9] = True
    # 0.1 of the range -1..1: 0.25 of where images are clipped, 0.5 of where codes are
    seen = results.map[0, 0]
    assert seen[inside].max().item() == pytest.approx((0.25 * 0.5) ** 0.5, rel=1e-3)
    assert seen[~inside].max() < 1e-3 and results.score[0, 0] == seen.max()


@torch.no_grad()
def test_a_sample_that_does_not_deviate_is_left_at_every_level() -> None:
    built = deco(NoiseField(torch.zeros(1, 16, 16)))
    x = torch.stack([s.x for s in samples((16, 16), 3, 1)])
    results = built.detect(x, built.levels, Rng(["a", "b", "c"]))
    assert results.map is not None and results.reconstruction is not None
    assert results.map.shape == (5, 3, 16, 16) and results.map.max() == 0
    torch.testing.assert_close(results.reconstruction, x.expand(5, 3, 1, 16, 16))


@torch.no_grad()
def test_the_map_is_that_of_the_authors_code() -> None:
    """By SciPy: clipped, brought to 0..1, blurred, and the two multiplied, averaged or alone."""
    pixel = 0.6 * torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))
    code = 0.3 * torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1))
    built, maps = build_small(DeCoDiff, Spec(1, (32, 32)), size=32), {}
    for built.combine in ("geometric", "arithmetic", "pixel", "code"):
        maps[built.combine] = built.combine_maps(pixel, code)
    for i in range(2):
        images = gaussian_filter(pixel[i].clip(0, 0.4).numpy() * 2.5, 3)
        torch.testing.assert_close(maps["pixel"][i], torch.from_numpy(images), rtol=1e-4, atol=1e-5)
        codes = gaussian_filter(code[i].clip(0, 0.2).numpy() * 5, 1)
        codes = zoom(codes, 8, order=1, mode="mirror", grid_mode=True)  # as scikit-image's resize
        torch.testing.assert_close(maps["code"][i], torch.from_numpy(codes), rtol=1e-4, atol=1e-5)
    product = (maps["pixel"].double() * maps["code"].double()).sqrt()
    torch.testing.assert_close(maps["geometric"].double(), product, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(maps["arithmetic"], (maps["pixel"] + maps["code"]) / 2)


def test_training_goes_down_and_only_says_what_deviates() -> None:
    """Codes of one image alone, with deviations: after a little training the loss has fallen."""
    built = deco(steps=40, coder_steps=2, lr=3e-3, warmup=2, batch=8, dropout=0.0, cells=(1, 2),
        chances=(0.5, 0.5))  # fmt: skip
    output: list[float] = []
    run = TrainingContext(
        on_event=lambda event, facts: output.append(facts["loss"]), event_interval=0.0
    )
    built.fit(samples((16, 16), 1, 1), [], run)
    diffusion = output[2:]
    assert len(diffusion) == 40 and sum(diffusion[-8:]) < 0.9 * sum(diffusion[:8])


def test_it_says_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="every cell size has a chance"):
        deco(cells=(1, 2), chances=(1.0,))
    with pytest.raises(ValueError, match=r"shares lie in 0\.\.1"):
        deco(disturbed=1.5)
    with pytest.raises(ValueError, match="clipped above 0"):
        deco(clips=(0.0, 0.2))
