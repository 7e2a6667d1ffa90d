"""AutoDDPM's own: mask, stitch, re-sample."""

from __future__ import annotations

import pytest
import torch

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.noise.noise import Simplex
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.autoddpm import AutoDDPM
from known import ConstantX0, SmoothNetwork
from small import samples, small_method

SPEC = Spec(1, (16, 16))


def with_oracle(image: torch.Tensor, **more: object) -> AutoDDPM:
    built = small_method("autoddpm", SPEC, **more).eval()
    built.denoiser = Denoiser(
        ConstantX0(built.canvas.forward(image)), linear_schedule(), prediction_type="clean"
    ).eval()
    return built


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(AutoDDPM, Spec(1, (128, 128)), features="effperc-random")
    net = sum(p.numel() for p in built.denoiser.net.parameters())
    assert net == 18_500_993 and built.published == 201 and built.inpainting.inpaint_level == 51
    assert (
        built.inpainting.resamples == 5 and built.canvas.range == (0, 1) and built.plan.ema is None
    )


@torch.no_grad()
def test_with_an_oracle_only_the_anomaly_is_masked_and_inpainted() -> None:
    healthy = samples((16, 16), 1, 1)[0].x[None]
    x = healthy.clone()
    x[..., 5:9, 5:9] = 1.0
    built = with_oracle(healthy)
    built.tau.fill_(1e-4)
    results = built.detect(x, [201], Rng(["a"]))
    assert results.map is not None and results.reconstruction is not None
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[5:9, 5:9] = True
    assert results.map[0, 0][inside].min() > 0
    assert results.map[0, 0][~inside].max() < 1e-5
    torch.testing.assert_close(results.reconstruction[0], healthy, rtol=0, atol=2e-3)


@torch.no_grad()
def test_with_nothing_masked_the_sample_comes_back() -> None:
    healthy = samples((16, 16), 2, 1)
    x = torch.stack([s.x for s in healthy])
    built = with_oracle(x[:1] * 0)
    built.tau.fill_(1e9)
    results = built.detect(x, [201], Rng(["a", "b"]))
    assert results.map is not None and results.reconstruction is not None
    assert torch.equal(results.map, torch.zeros_like(results.map))
    torch.testing.assert_close(results.reconstruction[0], x)


@torch.no_grad()
def test_a_constant_image_that_is_restored_gives_no_nan() -> None:
    x = torch.full((1, 1, 16, 16), 0.5)
    results = with_oracle(x).detect(x, [101, 201], Rng(["a"]))
    assert results.map is not None and results.map.isfinite().all()
    assert results.score.abs().max() < 1e-6


@torch.no_grad()
def test_the_soft_map_does_not_know_the_residuals_scale_but_for_its_perceptual_part() -> None:
    """r -> 7 r leaves clip(r / p95) unchanged: with the perceptual part held, so is the map."""
    built = small_method("autoddpm", SPEC)
    built.perceptual.distance = lambda x, y, **_: torch.ones(len(x), *x.shape[2:])
    r = Rng(["a"]).uniform((1, 16, 16)).float()[None] * 0.1
    base = torch.zeros(1, 1, 16, 16)
    torch.testing.assert_close(built._soft_map(base, base + r), built._soft_map(base, base + 7 * r))


@torch.no_grad()
def test_the_soft_map_lies_between_0_and_its_perceptual_part() -> None:
    """And reaches it where the residual is above its 95th percentile."""
    built = small_method("autoddpm", SPEC)
    apart = Rng(["s"]).uniform((16, 16)).float()
    built.perceptual.distance = lambda x, y, **_: apart
    base, other = torch.zeros(1, 1, 16, 16), Rng(["a"]).uniform((1, 16, 16)).float()
    soft = built._soft_map(base, other[None])[0, 0]
    assert (soft >= 0).all() and (soft <= apart[0]).all()
    above = other[0, 0] >= other.quantile(0.95)
    torch.testing.assert_close(soft[above], apart[0][above])
    assert above.sum() == 13 and (soft[~above] < apart[0][~above]).all()


def masked(built: AutoDDPM, soft: torch.Tensor, coarse: torch.Tensor) -> None:
    """Let the first pass find that map (H, W) and restore to that image."""
    built.tau.fill_(0.5)
    built._coarse_reconstruction = lambda inner, levels, rng: (
        coarse.expand(len(levels), len(inner), 1, -1, -1, -1),
        soft.expand(len(levels), len(inner), -1, -1),
    )


@torch.no_grad()
def test_a_pixel_that_is_found_is_masked_with_its_eight_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built, seen = small_method("autoddpm", SPEC).eval(), []
    soft = torch.zeros(16, 16)
    soft[5, 0] = soft[9, 7] = 1.0
    masked(built, soft, torch.zeros(1, 16, 16))

    def watched(denoiser, start, reference, region, *inputs, **more):
        seen.append(region)
        return start

    monkeypatch.setattr("adbench.methods.autoddpm.inpaint", watched)
    built.detect(torch.zeros(1, 1, 16, 16), [201], Rng(["a"]))
    expected = torch.zeros(16, 16)
    expected[4:7, :2] = expected[8:11, 6:9] = 1.0
    assert torch.equal(seen[0], expected[None, None])


@torch.no_grad()
def test_with_all_masked_it_is_the_plain_resampled_chain() -> None:
    """Written out: down from the coarse image's level 9, each step twice; the noise is one field,
    and the sample itself is not heard of."""
    built = small_method("autoddpm", SPEC, inpaint_steps=None, inpaint_level=9, resamples=2).eval()
    coarse, n = (Rng([name]).uniform((1, 16, 16)).float()[0] for name in ("coarse", "noise"))
    masked(built, torch.ones(16, 16), coarse)
    built.denoiser = Denoiser(SmoothNetwork(), linear_schedule(), clip=(0, 1)).eval()
    built.inpaint_noise = lambda rng, shape, level: n.expand(len(rng), -1, -1, -1)
    results = built.detect(torch.rand(1, 1, 16, 16), [201], Rng(["a"])).reconstruction
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    stored = (1 - beta).cumprod(0)
    y = (stored[8].sqrt() * coarse + (1 - stored[8]).sqrt() * n)[None]
    for t in range(8, -1, -1):
        for again in range(2 if t else 1):
            eps = SmoothNetwork()(y.float(), torch.tensor([t])).double()
            before = stored[t - 1] if t else torch.ones(()).double()
            clean = ((y - (1 - stored[t]).sqrt() * eps) / stored[t].sqrt()).clamp(0, 1)
            y = (before.sqrt() * beta[t] * clean + (1 - beta[t]).sqrt() * (1 - before) * y) / (
                1 - stored[t]
            ) + (beta[t] * (1 - before) / (1 - stored[t])).sqrt() * n
            if t and not again:
                y = (1 - beta[t]).sqrt() * y + beta[t].sqrt() * n
    assert results is not None
    torch.testing.assert_close(results[0], y.clamp(0, 1).float(), rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("leave_last", "calls"), [(False, 452), (True, 451)])
def test_network_calls_of_the_papers_two_passes(leave_last: bool, calls: int) -> None:
    """201 down, then 50 levels five times over; and, but for their quirk, the last one."""
    more = {"sampling_steps": None, "inpaint_steps": None, "resamples": 5, "repeats": 1}
    built = with_oracle(torch.zeros(1, 1, 16, 16), leave_last=leave_last, **more)
    built.detect(torch.rand(2, 1, 16, 16), [201], Rng(["a", "b"]))
    assert built.denoiser.evaluations == 2 * calls


@torch.no_grad()
def test_a_shared_field_is_everyones_and_a_field_is_of_the_octaves_asked_for() -> None:
    x, results = samples((16, 16), 1, 1)[0].x.expand(2, 1, 16, 16), {}
    for shared in (False, True):
        built = small_method("autoddpm", SPEC, noise="simplex", shared_noise=shared, threshold=-1)
        built.denoiser = Denoiser(SmoothNetwork(), linear_schedule(), clip=(0, 1)).eval()
        built.tau.fill_(-1)
        one, other = built.detect(x, [201], Rng(["a", "b"])).map[0]
        results[shared] = torch.equal(one, other)
    assert results == {False: False, True: True}
    few = small_method("autoddpm", SPEC, noise="simplex", octaves=2, persistence=0.5, frequency=8)
    assert few.noise == few.inpaint_noise == Simplex(2, 0.5, 8.0)


@torch.no_grad()
@pytest.mark.parametrize("threshold", [0.13, -1])
def test_a_fixed_threshold_and_each_images_own_run(threshold: float) -> None:
    built = small_method("autoddpm", SPEC, threshold=threshold)
    built.fit(samples((16, 16), 4, 1), [], TrainingContext())
    assert built.tau.item() == pytest.approx(threshold)
    x = torch.stack([s.x for s in samples((16, 16), 2, 1)])
    results = built.detect(x, [201], Rng(["a", "b"]))
    assert results.map is not None and results.map.isfinite().all()


def test_the_threshold_is_what_5_percent_of_held_out_normal_pixels_exceed() -> None:
    built = small_method("autoddpm", SPEC)
    held_out = samples((16, 16), 4, 1, name="h")
    built.fit(samples((16, 16), 4, 1), held_out, TrainingContext())
    x = torch.stack([s.x for s in held_out])
    with torch.no_grad():
        rng = Rng([s.key for s in held_out]).fork("calibrate")
        soft = built._coarse_reconstruction(built.canvas.forward(x), [built.published], rng)[1]
    assert (soft > built.tau).float().mean().item() == pytest.approx(0.05, abs=0.003)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"renoise_shifted": True},
        {"leave_last": True},
        {"map_weight": "none"},
        {"map_weight": "second"},
        {"dilate": 2},
        {"inpaint_noise": "simplex"},
        {"double_normalise": True},
        {"resamples": 4},
    ],
)
def test_each_quirk_by_argument_changes_what_is_found(change: dict[str, object]) -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    torch.manual_seed(0)
    plain = small_method("autoddpm", SPEC, inpaint_steps=None, inpaint_level=9).eval()
    for p in plain.parameters():
        p.data.normal_(std=0.1, generator=torch.Generator().manual_seed(p.numel()))
    soft = plain._coarse_reconstruction(plain.canvas.forward(x), [251], rng)[1]
    plain.tau.fill_(soft.quantile(0.9))
    other = small_method("autoddpm", SPEC, inpaint_steps=None, inpaint_level=9, **change).eval()
    other.load_state_dict(plain.state_dict())
    a, b = plain.detect(x, [251], rng).map, other.detect(x, [251], rng).map
    assert a is not None and b is not None and not torch.equal(a, b)
