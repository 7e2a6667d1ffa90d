"""DDPM-OOD's own: starts, z-scores, what is left of a sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import sampling_levels, scaled_linear_schedule
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.solvers import Plms
from adbench.methods.ddpm_ood import DDPMOOD
from known import ConstantX0, NormalPosteriorMean
from small import build_small, samples

SPEC = Spec(1, (16, 16))
FINE: dict[str, Any] = {"sampling_steps": 100, "skip": 16}


def with_net(net: torch.nn.Module, **more: object) -> DDPMOOD:
    built = build_small(DDPMOOD, SPEC, **FINE | more).eval()
    built.denoiser = Denoiser(net, scaled_linear_schedule(), prediction_type="clean").eval()
    return built


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(DDPMOOD, Spec(1, (32, 32)))
    assert sum(p.numel() for p in built.denoiser.parameters()) == 17_709_953
    assert built.plan.batch == 512 and built.plan.lr == 2.5e-5 and built.canvas.range == (0, 1)
    assert (
        built.starts.levels[0] == 11
        and built.starts.levels[-1] == 971
        and len(built.starts.levels) == 25
    )


def test_windows_stay_whole_and_small_images_small() -> None:
    """The medium network of the radio-signal variant attends at all resolutions."""
    with torch.device("meta"):
        built, small = build(DDPMOOD, Spec(2, (3000,))), build(DDPMOOD, Spec(1, (28, 28)))
        theirs = build(DDPMOOD, Spec(2, (3000,)), attention=(True, True, True))
    assert built.canvas.resized_shape == built.canvas.padded_shape == (3000,)
    count = [sum(p.numel() for p in one.denoiser.parameters()) for one in (theirs, built)]
    assert count[0] == 5_182_850 > count[1]
    assert small.canvas.padded_shape == (28, 28)
    assert build_small(DDPMOOD, Spec(1, (40, 20)), size=32).canvas.resized_shape == (32, 16)


@pytest.mark.parametrize(
    ("skip", "starts", "calls"),
    [(1, 99, 5049), (2, 50, 2550), (3, 33, 1650), (4, 25, 1250), (8, 13, 650), (64, 2, 68)],
)
def test_starts_and_network_calls_are_the_references(skip: int, starts: int, calls: int) -> None:
    built = build_small(DDPMOOD, SPEC, sampling_steps=100, skip=skip)
    sampler = Plms(built.denoiser.process, lagged=True)
    ways = [sampling_levels(start, stride=built.starts.stride) for start in built.starts.levels]
    assert len(ways) == starts and sum(len(sampler.plan_steps(way)) for way in ways) == calls


def measure_errors(built: DDPMOOD, errors: list[list[float]]) -> None:
    """From now on the k-th start leaves these squared errors, one a sample."""

    def looks(x: torch.Tensor, rng: Rng, count: int):  # type of _looks
        for row in errors[:count]:
            yield torch.tensor(row).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:]), x

    built._measure_starts = looks


def test_z_scores_are_the_specs() -> None:
    """Held out {1, 2, 3} and {2, 4, 6}; a sample's 4 and 10 are 2 and 3 deviations: 2.5."""
    built = build_small(DDPMOOD, SPEC, skip=1)
    measure_errors(built, [[1.0, 2, 3], [2.0, 4, 6]])
    built.starts.calibrate(built._measure_starts, samples((16, 16), 3, 1), TrainingContext())
    assert built.starts.mean[:, 0].tolist() == [2, 4] and built.starts.deviation[:, 0].tolist() == [
        1,
        2,
    ]
    measure_errors(built, [[4.0], [10.0]])
    results = built.detect(torch.zeros(1, 1, 16, 16), [334, 1000], Rng(["a"]))
    assert results.score[:, 0].tolist() == [2.0, 2.5]
    assert results.map is not None and results.map[:, 0, 3, 3].tolist() == [4.0, 4.5]


@torch.no_grad()
def test_with_an_oracle_nothing_is_left_but_the_references_floor_of_noise() -> None:
    healthy = torch.full((1, 1, 16, 16), 0.5)
    x, rng = healthy.expand(8, -1, -1, -1), Rng([str(i) for i in range(8)])
    exact = with_net(ConstantX0(healthy)).detect(x, [1000], rng).map
    floor = with_net(ConstantX0(healthy), final_noise=True, lagged=True).detect(x, [1000], rng).map
    assert exact is not None and exact.max() < 1e-10
    assert floor is not None and floor.mean().item() == pytest.approx(0.0015, abs=2e-4)


@torch.no_grad()
def test_a_chain_knows_nothing_of_other_starts() -> None:
    net, x = (
        NormalPosteriorMean(scaled_linear_schedule(), 0.5, 0.02),
        samples((16, 16), 1, 1)[0].x[None],
    )
    few, many = (with_net(net, skip=skip) for skip in (32, 16))
    a = [fields for fields, _ in few._measure_starts(x, Rng(["a"]), 2)]
    b = [fields for fields, _ in many._measure_starts(x, Rng(["a"]), 3)]
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[2])


@torch.no_grad()
def test_samples_from_elsewhere_are_farther_than_held_out_ones() -> None:
    """Data of mean .5 and variance .01 with its own optimal denoiser; elsewhere is .3 higher."""
    built = with_net(NormalPosteriorMean(scaled_linear_schedule(), 0.5, 0.01))
    draws = 0.5 + 0.1 * Rng([str(i) for i in range(40)]).normal((1, 16, 16))
    held_out = [
        type(s)(x, s.key, s.group, False)
        for s, x in zip(samples((16, 16), 20, 1), draws[:20], strict=True)
    ]
    built.starts.calibrate(built._measure_starts, held_out, TrainingContext())
    rng = Rng([f"t{i}" for i in range(20)])
    same, other = (built.detect(x, [1000], rng).score for x in (draws[20:], draws[20:] + 0.3))
    assert other.min() > same.max() and abs(same.mean().item()) < 0.7


@torch.no_grad()
def test_more_of_the_same_is_no_farther_than_what_was_held_out() -> None:
    built = with_net(
        NormalPosteriorMean(scaled_linear_schedule(), 0.5, 0.01), sampling_steps=20, skip=8
    )
    built.denoiser.batch = 64
    keys = [str(i) for i in range(440)]
    draws = 0.5 + 0.1 * Rng(keys).normal((1, 16, 16))
    held_out = [
        type(s)(x, s.key, s.group, False)
        for s, x in zip(samples((16, 16), 40, 1), draws[:40], strict=True)
    ]
    built.starts.calibrate(built._measure_starts, held_out, TrainingContext())
    a, b = built.detect(draws[40:], [1000], Rng(keys[40:])).score[0].split(200)
    assert (a[:, None] > b).float().mean().item() == pytest.approx(0.5, abs=0.05)


@torch.no_grad()
def test_the_score_is_the_maps_mean_but_for_what_is_normal() -> None:
    built = build_small(DDPMOOD, SPEC)
    built.fit(samples((16, 16), 4, 1), samples((16, 16), 4, 1, name="h"), TrainingContext())
    x = torch.stack([s.x for s in samples((16, 16), 2, 1, name="t")])
    results = built.detect(x, [1000], Rng(["a", "b"]))
    assert results.map is not None
    usual = (built.starts.mean / built.starts.deviation).mean()
    torch.testing.assert_close(results.score[0], results.map[0].mean((1, 2)) - usual)


@torch.no_grad()
def test_stretched_samples_have_no_brightness() -> None:
    x = torch.stack([s.x for s in samples((16, 16), 2, 1)])
    built = build_small(DDPMOOD, SPEC, rescale=True).eval()
    a, b = (built.detect(y, [1000], Rng(["a", "b"])).score for y in (x, 0.3 * x + 0.2))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "more"),
    [((16, 16), {"perceptual": "effperc-random"}),
     ((8, 8, 8), {"perceptual": "effperc-random", "size": None}), ((64,), {"spectral": True})],
)  # fmt: skip
def test_another_distance_is_a_second_measure(shape: tuple[int, ...], more: dict[str, Any]) -> None:
    built = build_small(DDPMOOD, Spec(1, shape), **more)
    built.fit(samples(shape, 3, 1), samples(shape, 3, 1, name="h"), TrainingContext())
    assert built.starts.mean.shape[1] == 2 and (built.starts.mean > 0).all()
    x, rng = torch.stack([s.x for s in samples(shape, 3, 1)]), Rng(["a", "b", "c"])
    with torch.no_grad():
        whole, part = built.detect(x, [1000], rng), built.detect(x[1:2], [1000], Rng(["b"]))
    assert torch.equal(whole.score[0, 1:2], part.score[0])


@torch.no_grad()
def test_a_leaking_history_is_asked_for_by_name() -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    a, b = (
        with_net(NormalPosteriorMean(scaled_linear_schedule(), 0.5, 0.02), leaking=leaking)
        for leaking in (False, True)
    )
    assert not torch.equal(a.detect(x, [1000], rng).score, b.detect(x, [1000], rng).score)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="of images and volumes"):
        build_small(DDPMOOD, Spec(2, (64,)), perceptual="effperc-random")
    with pytest.raises(ValueError, match="spectral of signals"):
        build_small(DDPMOOD, SPEC, spectral=True)
    with pytest.raises(ValueError, match="1 are too few"):
        build_small(DDPMOOD, SPEC).fit(
            samples((16, 16), 3, 1), samples((16, 16), 1, 1), TrainingContext()
        )
    with pytest.raises(ValueError, match=r"2\.\.1000"):
        build_small(DDPMOOD, SPEC, sampling_steps=1)


def test_it_can_be_stopped_while_it_calibrates() -> None:
    built = build_small(DDPMOOD, SPEC)
    with pytest.raises(Interrupted, match="calibrating at calibration sample 0"):
        built.starts.calibrate(
            built._measure_starts, samples((16, 16), 3, 1), TrainingContext(stop=lambda: True)
        )


@torch.no_grad()
def test_estimates_may_be_clamped_in_the_chain() -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    for bounded in (False, True):
        built = build_small(DDPMOOD, SPEC, bounded=bounded)
        assert (built.denoiser.clip == (0, 1)) is bounded
        assert built.detect(x, [1000], rng).score.isfinite().all()
