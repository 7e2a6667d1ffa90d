"""DISYRE's own: blending in, cold steps back, the mean on the way."""

from __future__ import annotations

import pytest
import torch

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.disyre import DISYRE, blend_weight, patch_blending_process
from known import ConstantX0
from small import build_small, samples

SPEC = Spec(1, (16, 16))


def with_oracle(image: torch.Tensor, **more: object) -> DISYRE:
    built = build_small(DISYRE, SPEC, **more).eval()
    net = ConstantX0(built.canvas.forward(image))
    built.denoiser = Denoiser(
        net, linear_schedule(100), prediction_type="clean", process=patch_blending_process
    ).eval()
    return built


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(DISYRE, Spec(1, (128, 128)))
    assert built.plan.steps == 100_000 and built.plan.warmup == 500 and built.plan.clip == 1.0
    assert built.plan.momentum == 0.95 and built.plan.weight_decay == 1e-6
    assert {m.eps for m in built.denoiser.modules() if isinstance(m, torch.nn.GroupNorm)} == {1e-5}
    assert built.denoiser.schedule.T == 100 and built.sampling_steps == 5 and built.chance == 0.3


def test_shares_are_the_schedules_in_reverse() -> None:
    """Golden: betas from 0.001 to 0.2 in 100 steps; the highest level is sqrt(0.999) foreign."""
    schedule = linear_schedule(100)
    got = blend_weight(schedule, torch.tensor([0, 1, 50, 100]))
    betas = torch.linspace(1e-3, 0.2, 100, dtype=torch.float64)
    stored = torch.cumprod(1 - betas, 0).sqrt()
    torch.testing.assert_close(got, torch.stack([stored[0] * 0, stored[99], stored[50], stored[0]]))
    assert (blend_weight(schedule, torch.arange(101)).diff() > 0).all()


def test_blending_leaves_level_0_and_what_lies_outside_the_shape() -> None:
    x, drawn = torch.rand(2, 1, 8, 8), torch.rand(2, 2, 8, 8)
    drawn[:, 1, :4] = 0
    process = patch_blending_process(linear_schedule(100))
    assert torch.equal(process.add_noise(x, torch.tensor([0, 0]), drawn), x)
    high = process.add_noise(x, torch.tensor([100, 40]), drawn)
    assert torch.equal(high[:, :, :4], x[:, :, :4]) and (high != x)[:, :, 4:].all()


@torch.no_grad()
def test_with_an_oracle_the_way_back_is_the_way_there() -> None:
    """Every step arrives at the sample blended to the level that it leads to, and the map is the
    mean of what was still foreign on the way."""
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built = with_oracle(healthy, sampling_steps=5)
    drawn = torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    drawn[:, 1, :4] = 0
    process = built.denoiser.process
    x = process.add_noise(healthy, torch.tensor([100]), drawn)
    shown = []
    built.denoiser.net.register_forward_pre_hook(
        lambda _, inputs: shown.append(inputs[0][0].clone())
    )
    results = built.detect(x, [1000], Rng(["a"]))
    assert results.map is not None and results.reconstruction is not None
    on_the_way = [
        process.add_noise(healthy, torch.tensor([at]), drawn)[0] for at in range(100, 0, -20)
    ]
    for ours, expected in zip(shown, on_the_way, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    left = torch.stack([(y - healthy[0]).abs() for y in on_the_way]).mean(0)
    torch.testing.assert_close(results.map[0], left, rtol=0, atol=1e-6)
    torch.testing.assert_close(results.reconstruction[0], healthy, rtol=0, atol=1e-6)


@torch.no_grad()
def test_asked_singly_every_level_sees_the_sample_as_it_came() -> None:
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built, x = with_oracle(healthy, way="single", sampling_steps=4), healthy.clone()
    x[..., 4:8, 4:8] = 1.0
    shown = []
    built.denoiser.net.register_forward_pre_hook(
        lambda _, inputs: shown.append((inputs[0][0].clone(), inputs[1][0].item()))
    )
    results = built.detect(x, [1000], Rng(["a"])).map
    assert [at for _, at in shown] == [99, 74, 49, 24]
    assert all(torch.equal(y, x[0]) for y, _ in shown)
    assert results is not None
    torch.testing.assert_close(results[0], (x - healthy).abs()[:, 0], rtol=0, atol=1e-6)


def test_it_learns_to_undo_a_patch() -> None:
    built = build_small(DISYRE, SPEC, steps=60, batch=8, lr=6e-3, warmup=0, chance=0.7, bank=16)
    data = samples((16, 16), 16, 1)
    built.fit(data, [], TrainingContext())
    x = torch.stack([s.x for s in data[:4]])
    bad = x.clone()
    bad[..., 5:9, 5:9] = 1 - bad[..., 5:9, 5:9].round()
    with torch.no_grad():
        results = built.detect(bad, [1000], Rng([s.key for s in data[:4]])).map
    assert results is not None
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[5:9, 5:9] = True
    assert results[..., inside].mean() > 2 * results[..., ~inside].mean()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="radii rise"):
        build_small(DISYRE, SPEC, radius=(0.3, 0.1))
    with pytest.raises(ValueError, match="there are none"):
        build_small(DISYRE, SPEC).fit([], [], TrainingContext())
