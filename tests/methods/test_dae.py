"""DAE's own: coarse noise in the foreground, none at inference."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import avg_pool2d

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.dae import DAE, erode_mask
from small import build_small, samples

SPEC = Spec(1, (16, 16))


class Blank(torch.nn.Module):
    """Says that there is nothing but .25; keeps what it was shown."""

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.shown = x
        return torch.full_like(x, 0.25)


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(DAE, Spec(4, (128, 128)))
    assert built.plan.steps == 2100 * 32 and built.plan.batch == 16 and built.plan.lr == 1e-4
    assert "grid=16" in str(built.noise) and "0.2" in str(built.noise)
    assert built.canvas.range == (0, 1) and built.levels == (0,)


@torch.no_grad()
def test_nothing_is_drawn_at_inference_and_the_map_is_the_absolute_error() -> None:
    built = build_small(DAE, Spec(2, (16, 16)), erode=0).eval()
    built.denoiser.net = Blank()
    x = torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(0)) + 0.01
    results = built.detect(x, [0], Rng(["a", "b"]))
    assert results.map is not None and torch.equal(built.denoiser.net.shown[:2], x)
    torch.testing.assert_close(results.map[0], (x - 0.25).abs().mean(1))
    assert built.denoiser.evaluations == 2


@torch.no_grad()
def test_what_is_not_foreground_does_not_count_nor_does_its_rim() -> None:
    built = build_small(DAE, SPEC).eval()
    built.denoiser.net = Blank()
    x = torch.zeros(1, 1, 16, 16)
    x[..., 3:13, 3:13] = 0.5
    results = built.detect(x, [0], Rng(["a"])).map
    assert results is not None
    where = torch.zeros(16, 16, dtype=torch.bool)
    where[5:11, 5:11] = True
    assert torch.equal(results[0, 0] > 0, where)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([3, 5, 7]))
def test_erosion_is_the_authors_average_above_95_percent(seed: int, side: int) -> None:
    inside = torch.rand(2, 12, 10, generator=torch.Generator().manual_seed(seed)) < 0.95
    mean = avg_pool2d(inside[:, None].double(), side, 1, side // 2)[:, 0]
    assert torch.equal(erode_mask(inside, side), mean > 0.95)


def test_noise_is_added_to_the_foreground_alone() -> None:
    """Of the authors' deviation on average, the same at every place of the grid."""
    built = build_small(DAE, SPEC, grid=4, deviation=0.2)
    built.denoiser.net = Blank()
    built.train()
    x = torch.full((400, 1, 16, 16), 0.5)
    x[..., :8] = 0
    rng = Rng([str(i) for i in range(400)])
    loss = built.denoiser.loss(x, rng, noise=built.noise, region=built._foreground_mask(x))
    shown = built.denoiser.net.shown
    assert torch.equal(shown[..., :8], x[..., :8])
    assert 0.1 < (shown - x)[..., 8:].std().item() < 0.2
    torch.testing.assert_close(loss, torch.full((400,), 0.25**2 / 2))


@pytest.mark.parametrize("channels", [1, 4])
def test_foreground_is_where_the_sum_over_channels_is_above_a_hundredth(channels: int) -> None:
    x = torch.tensor([0.0, 0.009, 0.011, 0.5]).view(1, 1, 1, 4).repeat(1, channels, 4, 1)
    inside = build_small(DAE, Spec(channels, (16, 16)))._foreground_mask(x / channels)
    assert inside.shape == (1, 1, 4, 4) and inside[0, 0, 0].tolist() == [False, False, True, True]


def test_the_roll_can_be_shared_and_other_noises_named() -> None:
    assert "shared_roll=True" in str(build_small(DAE, SPEC, shared_roll=True).noise)
    assert str(build_small(DAE, SPEC, noise="gaussian", shared_roll=True).noise).endswith("False)")


def test_it_learns_to_take_off_a_blob() -> None:
    """Noise of places 4 pixels apart is taken off smooth samples; so is a bump they never had."""
    built = build_small(DAE, SPEC, grid=5, deviation=0.3, steps=150, batch=8, lr=1e-2, erode=0)
    data = samples((16, 16), 16, 1)
    built.fit(data, [], TrainingContext())
    x = torch.stack([s.x for s in data[:4]])
    bad = x.clone()
    bad[..., 4:8, 4:8] += 0.4
    with torch.no_grad():
        rng = Rng([s.key for s in data[:4]])
        good, results = (built.detect(y, [0], rng).map for y in (x, bad))
    assert good is not None and results is not None
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:8, 4:8] = True
    assert results[..., inside].mean() > 2 * results[..., ~inside].mean()
    assert results[..., inside].mean() > 2 * good[..., inside].mean()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="wants 16 pixels at least, not 8"):
        build(DAE, Spec(1, (8, 32)), size=None, widths=(8, 8, 8, 8))
    with pytest.raises(ValueError, match="0 or odd"):
        build_small(DAE, SPEC, erode=4)
