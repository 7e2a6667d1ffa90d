"""DDAD's own: leaning to the sample, adapted features, one scale for two maps."""

from __future__ import annotations

from typing import Any

import opensimplex
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import nn

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.gaussian import Gaussian
from adbench.engine.diffusion.schedule import linear_schedule, sampling_levels
from adbench.engine.noise.noise import Simplex
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.guidance import image_conditioned_guidance
from adbench.engine.sampling.reconstruct import SamplingConfig, reconstruct, reverse_process
from adbench.methods.ddad import DDAD, draw_other_samples
from known import ConstantX0, NormalPosteriorMean, SmoothNetwork
from small import build_small, samples

SPEC = Spec(1, (16, 16))


def silent(rng: Rng, shape: Any, level: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(rng), *shape)


def by_level(rng: Rng, shape: Any, level: torch.Tensor) -> torch.Tensor:
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n in level.tolist()]
    return torch.stack(draws)


def ddad(net: torch.nn.Module | None = None, **more: Any) -> DDAD:
    built = build_small(DDAD, SPEC, **more).eval()
    if net is not None:
        clip = built.denoiser.clip
        predicts: Any = "noise" if isinstance(net, SmoothNetwork) else "clean"
        rederive = built.denoiser.rederive_noise
        built.denoiser = Denoiser(
            net, linear_schedule(), prediction_type=predicts, clip=clip, rederive_noise=rederive
        ).eval()
    return built


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(DDAD, Spec(3, (256, 256)), features="effperc-random")
    assert sum(p.numel() for p in built.denoiser.parameters()) == 32_952_707
    assert {m.eps for m in built.denoiser.modules() if isinstance(m, nn.GroupNorm)} == {1e-5}
    assert len(sampling_levels(built.published, stride=built.sampling.stride)) - 1 == 10
    assert (
        built.plan.lr == 3e-4
        and built.penalty == 0.05
        and built.sampling.eta == 1
        and built.fusion.v == 1
    )
    assert built.plan.weight_decay == 0 and built.plan.momentum == 0.9


@pytest.mark.parametrize(
    ("side", "change", "count"),
    [
        (256, {"width": 32, "heads": 2, "dropout": 0.3, "batch": 16}, 8_257_731),
        (128, {"mults": (1, 1, 2, 3, 4)}, 85_602_691),
        (256, {"mults": (1, 1, 2, 2, 4, 4)}, 113_673_219),
    ],
)
def test_the_small_network_and_the_reimplementations_can_be_had(
    side: int, change: dict[str, Any], count: int
) -> None:
    theirs = {"width": 128, "attention": (16,), "head_channels": 8, "updown": False,
        "momentum": 0.95, "weight_decay": 1e-6, "decoupled": True}  # fmt: skip
    change = change if "width" in change else theirs | change
    with torch.device("meta"):
        built = build(DDAD, Spec(3, (side, side)), size=side, features="effperc-random", **change)
    assert sum(p.numel() for p in built.denoiser.parameters()) == count
    assert built.dropout.rate == change.get("dropout", 0.0)
    if "decoupled" in change:
        assert built.plan.momentum == 0.95 and built.plan.weight_decay == 1e-6
        assert built.penalty == 0


def test_the_schedule_is_the_papers() -> None:
    """What is kept, at their indices, which count from 0."""
    golden = {0: 0.9999, 99: 0.897018, 199: 0.659039, 200: 0.656347, 225: 0.588678, 249: 0.524085,
        250: 0.521423, 299: 0.396420, 499: 0.078587, 999: 4.0358e-5}  # fmt: skip
    for index, stored in golden.items():
        assert linear_schedule().alpha_bar[index + 1].item() == pytest.approx(stored, rel=1e-5)


def test_the_first_loss_is_the_noises_power() -> None:
    """The network says 0 at first, and squares are summed: one for each value, 196,608 of which
    the paper's images have, and so do 64 of these."""
    spec, output = Spec(3, (32, 32)), []
    built = build_small(
        DDAD, spec, size=32, steps=4, batch=64, lr=0.0, adapt_steps=0, weight_decay=0.0
    )
    run = TrainingContext(
        on_event=lambda event, facts: output.append(facts["loss"]), event_interval=0.0
    )
    built.fit(samples((32, 32), 2, 3), samples((32, 32), 1, 3, name="h"), run)
    assert 64 * sum(output) / len(output) == pytest.approx(3 * 256 * 256, rel=0.003)


@torch.no_grad()
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_what_leaning_adds_to_a_step(eta: float) -> None:
    """w gain (y - x_0), where x_0 is the estimate without leaning: in closed form for every eta;
    at 1 what is kept grows by `kept' - kept` over its root, in terms of the signal as the paper's
    steps have it: .1031 down to .0001, a half in all."""
    golden = [0.1031, 0.0918, 0.0804, 0.0688, 0.0571, 0.0453, 0.0333, 0.0212, 0.0089, 0.0001]
    stored, w = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0), 3.7
    denoiser = Denoiser(SmoothNetwork(), linear_schedule()).eval()
    process, rng = denoiser.process, Rng(["a", "b"])
    assert isinstance(process, Gaussian)
    x, y = (rng.fork(name).normal((1, 16, 16)) for name in "xy")
    for t, expected in zip(range(225, -1, -25), golden, strict=True):
        a, b = stored[t], stored[t - 25] if t else torch.tensor(1.0).double()
        with_w, without = (
            reverse_process(
                denoiser,
                x,
                [[t + 1, max(t - 24, 0)]] * 2,
                rng,
                sampling=SamplingConfig(eta=eta),
                guide=image_conditioned_guidance(process, y, weight),
            )
            for weight in (w, 0.0)
        )
        clean = denoiser(x, torch.full((2,), t + 1))
        sigma = eta**2 * (1 - a / b) * (1 - b) / (1 - a)
        gain = b.sqrt() * (1 - a) - ((1 - b - sigma).clamp(min=0) * a * (1 - a)).sqrt()
        if eta == 1:
            assert gain.item() == pytest.approx(((b - a) / b.sqrt()).item(), rel=1e-6)
            assert (gain / b.sqrt()).item() == pytest.approx(expected, abs=5.1e-5)
        added = w * gain.float() * (y - clean)
        torch.testing.assert_close(with_w - without, added, rtol=1e-4, atol=2e-5)


@torch.no_grad()
@pytest.mark.parametrize(("w", "golden"), [(3.0, 0.2997), (11.0, 0.2989)])
def test_with_an_oracle_of_a_point_it_ends_beside_the_point(w: float, golden: float) -> None:
    """c + w 1e-4 (y - c), for every seed; both starts end alike."""
    target = torch.full((2, 1, 16, 16), -0.7)
    for offset in (False, True):
        built = ddad(ConstantX0(torch.full((1, 1, 16, 16), 0.3)), start_offset=offset)
        out = built._reconstruct(target, target, [226], Rng(["a", "b"]), w)
        torch.testing.assert_close(out, torch.full_like(out, golden), rtol=0, atol=6e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    ("variance", "w", "golden"),
    [
        (0.01, 0, 0.0133), (0.01, 1, 0.0608), (0.01, 3, 0.1501), (0.01, 5, 0.2321),
        (0.01, 7, 0.3072), (0.01, 9, 0.3759), (0.01, 11, 0.4388),
        (0.05, 0, 0.0629), (0.05, 3, 0.3730), (0.05, 7, 0.6448), (0.05, 11, 0.8071),
    ],
)  # fmt: skip
def test_how_w_trades_an_anomaly_for_fidelity(variance: float, w: float, golden: float) -> None:
    """Data of mean 0, a sample that is 1, no noise, the reference's start."""
    built = ddad(NormalPosteriorMean(linear_schedule(), 0.0, variance), start_offset=True)
    built.noise = silent
    one = torch.ones(1, 1, 16, 16)
    out = built._reconstruct(one, one, [226], Rng(["a"]), w)
    assert out.mean().item() == pytest.approx(golden, abs=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("eta", "sampler"), [(0.0, "ddim"), (1.0, "ddpm")])
def test_without_leaning_it_is_the_engines_chain(eta: float, sampler: Any) -> None:
    x = 2 * torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 1
    built = ddad(SmoothNetwork(), eta=eta)
    ours = built._reconstruct(x, x, [126, 226], Rng(["a", "b"]), 0.0)
    chain = SamplingConfig(stride=25, sampler=sampler, eta=eta)
    theirs = reconstruct(built.denoiser, x, [126, 226], Rng(["a", "b"]), sampling=chain).flatten(
        0, 2
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("eta", [0.0, 0.1])
def test_linear_mixing_is_the_reimplementations_recursion(eta: float) -> None:
    """25 steps from index 240; the mean of diffusers' DDIM, mixed with the sample by t w / 1000,
    and then DDIM's noise. It clips x_0, of which much here is outside, and not the noise."""
    net, w, clipped = SmoothNetwork(), 0.7, []
    built = ddad(net, conditioning="linear_mix", stride=10, eta=eta)
    y = 2 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) - 1
    built.noise = by_level
    out = built._reconstruct(y, y, [241], Rng(["a"]), w)
    theirs: Any = DDIMScheduler(1000, beta_schedule="linear", clip_sample=True)
    theirs.set_timesteps(100)
    level = torch.tensor([241])
    x = theirs.add_noise(y, by_level(Rng(["a"]), y.shape[1:], level), level - 1)
    for t in range(240, -1, -10):
        eps, fresh = net(x, torch.tensor([t])), by_level(Rng(["a"]), y.shape[1:], level - 240 + t)
        mean, full = (
            theirs.step(eps, t, x, eta=eta, variance_noise=noise)
            for noise in (torch.zeros_like(x), fresh)
        )
        stored = theirs.alphas_cumprod[t]
        clipped.append((((x - (1 - stored).sqrt() * eps) / stored.sqrt()).abs() > 1).float().mean())
        c = t * w / 1000
        x = (1 - c) * mean.prev_sample + c * y + full.prev_sample - mean.prev_sample
    assert max(clipped) > 0.1
    torch.testing.assert_close(out, x, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_features_are_of_what_was_restored_in_whatever_range() -> None:
    built = ddad(ConstantX0(torch.full((1, 1, 16, 16), 1.6)), w=0.0)
    x = torch.zeros(1, 1, 16, 16)
    maps = built._distance_maps(x, x, [226], Rng(["a"]), 0.0)
    torch.testing.assert_close(maps.pixel, torch.full((1, 16, 16), 0.8))
    expected = built.student.distance((x + 1) / 2, torch.full_like(x, 1.3))
    torch.testing.assert_close(maps.feature, expected)
    assert not torch.allclose(expected, built.student.distance((x + 1) / 2, torch.ones_like(x)))


def test_a_sample_is_never_adapted_to_itself() -> None:
    bank = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    x = bank[[0, 1, 2] * 100]
    rng = Rng([str(i) for i in range(300)])
    built = draw_other_samples(x, bank, rng)
    assert not (built == x).any() and all((built[:, 0, 0, 0] == n).sum() > 60 for n in range(3))
    assert torch.equal(draw_other_samples(x[5:6], bank, rng.rows(torch.tensor([5]))), built[5:6])


@torch.no_grad()
def test_z_may_be_the_channel() -> None:
    """One field, of which the channels are slices: those of opensimplex's generator of its seed."""
    built = build_small(DDAD, Spec(3, (16, 16)), noise="simplex", z="channel", octaves=2)
    level, rng = torch.tensor([7]), Rng(["a"])
    drawn = built.noise(rng, (3, 16, 16), level)[0]
    volume = Simplex(2, 0.6, 32.0)(Rng(["a"]), (1, 3, 16, 16), level)[0, 0]
    assert torch.equal(drawn, volume)
    theirs = opensimplex.OpenSimplex(int(Rng(["a"]).seeds(1)))
    for c, i, j in ((0, 3, 5), (1, 0, 9), (2, 15, 2)):
        octaves = [0.6**k * theirs.noise3(*(2**k * n / 32 for n in (j, i, c))) for k in range(2)]
        assert drawn[c, i, j].item() == pytest.approx(sum(octaves), abs=1e-5)


def test_norms_of_the_student_follow_the_batch_if_asked_to() -> None:
    data = samples((16, 16), 4, 1), samples((16, 16), 3, 1, name="h")
    built = ddad(student_batch_statistics=True, adapt_steps=2)
    before = {key: value.clone() for key, value in built.student.state_dict().items()}
    built.fit(*data, TrainingContext())
    after = built.student.state_dict()
    assert all(
        not torch.equal(value, after[key]) for key, value in before.items() if "running" in key
    )
    assert not any(part.training for part in built.student.modules())


@torch.no_grad()
def test_with_an_oracle_only_the_anomaly_is_found() -> None:
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built = ddad(ConstantX0(2 * healthy - 1), blur=0.0, w=0.0)
    x = healthy.clone()
    x[..., 5:9, 5:9] = 1.0
    results = built.detect(x, [226], Rng(["a"]))
    assert results.map is not None
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[5:9, 5:9] = True
    assert results.map[0, 0][inside].mean() > 3 * results.map[0, 0][~inside].mean()
    assert results.score[0, 0] == results.map.max()
    assert built.detect(healthy, [226], Rng(["a"])).score[0, 0] < 1e-3


@torch.no_grad()
def test_a_batchs_own_scale_depends_on_who_is_in_it_and_the_default_does_not() -> None:
    """The authors' issues #20 and #30."""
    x = torch.stack([s.x for s in samples((16, 16), 3, 1)])
    x[2, :, 4:8, 4:8] = 1.0
    for norm, same in (("calibrated", True), ("batch", False)):
        built = ddad(SmoothNetwork(), norm=norm)
        whole = built.detect(x, [226], Rng(["a", "b", "c"])).map
        alone = built.detect(x[:1], [226], Rng(["a"])).map
        assert whole is not None and alone is not None
        assert torch.equal(whole[:, :1], alone) is same


@torch.no_grad()
def test_the_two_maps_are_brought_to_one_scale() -> None:
    built = ddad(blur=0.0, v=2.0)
    built.largest.copy_(torch.tensor([0.5, 2.0]))
    pixel, feature = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 4, 4)
    torch.testing.assert_close(built._combine_maps(pixel, feature), feature + 2 * (2 / 0.5) * pixel)
    theirs = ddad(blur=0.0, norm="batch")
    expected = feature + feature.max() / pixel.max() * pixel
    torch.testing.assert_close(theirs._combine_maps(pixel, feature), expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("pixel", "feature", "abnormal"),
    [(0.0, 0.0, False), (1.0, 0.0, False), (0.0, 1.4, False), (1.5, 0.0, True), (0.8, 0.8, True)],
)
def test_thresholds_combine_by_the_reimplementations_rule(
    pixel: float, feature: float, abnormal: bool
) -> None:
    """Each over its threshold, times .7; abnormal where the sum reaches 1."""
    built = ddad(blur=0.0, combine="thresholds", thresholds=(0.029, 0.33))
    maps = (torch.full((1, 1, 4, 4), n) for n in (0.029 * pixel, 0.33 * feature))
    results = built._combine_maps(*maps)
    assert (results >= 1).all().item() is abnormal
    torch.testing.assert_close(results, torch.full_like(results, 0.7 * (pixel + feature)))


def test_static_thresholds_are_what_a_pixel_in_a_thousand_exceeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of values even in 0..1 that is .999, by the re-implementation's bins of 1/5000."""
    built = ddad(combine="thresholds", calibration=16)
    mixed = torch.randperm(16 * 4096, generator=torch.Generator().manual_seed(0))
    values = torch.linspace(0, 1, 16 * 4096)[mixed].view(16, 64, 64)
    parts = iter(values.split(8))

    def maps(x: Any, *_: Any) -> Any:
        part = next(parts)
        return part, 2 * part, x

    monkeypatch.setattr(built, "_distance_maps", maps)
    built._calibrate(samples((16, 16), 16, 1), TrainingContext())
    assert built.exceeded[0].item() == pytest.approx(0.999, abs=1 / 5000)
    assert built.exceeded[1].item() == pytest.approx(2 * 0.999, abs=2 / 5000)
    assert built.largest[0].item() == pytest.approx(values.flatten(1).amax(1).mean().item())
    assert built.largest[1] == pytest.approx(2 * built.largest[0].item())


def test_the_stages_learn_what_is_theirs() -> None:
    built = ddad(adapt_steps=3)
    before = {key: value.clone() for key, value in built.state_dict().items()}
    built.fit(samples((16, 16), 4, 1), samples((16, 16), 3, 1, name="h"), TrainingContext())
    after = built.state_dict()
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert any(key.startswith("denoiser.net") for key in moved)
    assert any(key.startswith("student.net") for key in moved)
    assert {"largest", "exceeded"} <= moved
    assert not any("running" in key for key in moved)
    as_it_came = ddad(adapt_steps=0)
    as_it_came.fit(samples((16, 16), 4, 1), samples((16, 16), 3, 1, name="h"), TrainingContext())
    for key, value in before.items():
        assert not key.startswith("student") or torch.equal(value, as_it_came.state_dict()[key])


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [{"w": 5.0}, {"eta": 0.0}, {"stride": 50}, {"v": 7.0}, {"blur": 1.0}, {"start_offset": True},
     {"conditioning": "linear_mix"}, {"combine": "thresholds"}, {"noise": "simplex"},
     {"smooth": 1}],
)  # fmt: skip
def test_each_argument_changes_what_is_found(change: dict[str, Any]) -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    a, b = (
        ddad(SmoothNetwork()).detect(x, [226], rng).map,
        ddad(SmoothNetwork(), **change).detect(x, [226], rng).map,
    )
    assert a is not None and b is not None and not torch.equal(a, b)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="there are none"):
        ddad().fit(samples((16, 16), 2, 1), [], TrainingContext())
    with pytest.raises(ValueError, match="above 0"):
        ddad(thresholds=(0.0, 0.3))
    with pytest.raises(ValueError, match="smooth is odd"):
        ddad(smooth=2)
