"""THOR's own: what is put back and when, and its harmonic mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, grey_closing, grey_dilation
from scipy.stats import hmean

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule, sampling_levels
from adbench.engine.noise.noise import gaussian
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.reconstruct import SamplingConfig, reconstruct
from adbench.engine.sampling.step_noise import StepNoise
from adbench.methods.thor import THOR, HarmonisedStep, THORQuirks, close_and_dilate
from known import ConstantX0, SmoothNetwork
from small import build_small, samples

SPEC = Spec(1, (16, 16))


def thor(**more: object) -> THOR:
    return build_small(THOR, SPEC, **more).eval()


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = build(THOR, Spec(1, (128, 128)), features="effperc-random")
    assert sum(p.numel() for p in built.denoiser.parameters()) == 18_500_993
    assert built.published == 351 and built.harmonise == (301, 151, 51) and built.plan.batch == 16
    assert built.plan.steps == 64_000  # 1500 epochs of 683 slices


def marks(built: THOR, way: list[int]) -> dict[int, int]:
    none = torch.zeros(1, 1, 4, 4)
    moves = HarmonisedStep(built, StepNoise(Rng(["a"]), gaussian), none, none).plan_steps(way)
    return {move.start_level: move.tag for move in moves if move.tag}


def test_maps_are_computed_every_50_levels_and_the_input_blended_in_at_three() -> None:
    results = marks(thor(), sampling_levels(351))
    assert results == {351: 1, 301: 2, 251: 1, 201: 1, 151: 2, 101: 1, 51: 2, 1: 1}
    assert marks(thor(), sampling_levels(101)) == {101: 1, 51: 2, 1: 1}


def test_in_a_coarser_chain_it_happens_in_the_step_that_passes_the_level() -> None:
    assert marks(thor(), [351, 250, 100, 0]) == {351: 2, 250: 2, 100: 2}
    assert marks(thor(harmonise=(151,)), [351, 250, 100, 0]) == {351: 1, 250: 2, 100: 1}


@torch.no_grad()
def test_where_nothing_is_put_back_it_is_the_plain_chain() -> None:
    x = torch.stack([s.x for s in samples((16, 16), 2, 1)])
    built = thor(harmonise=(), sampling_steps=6)
    built.denoiser = Denoiser(SmoothNetwork(), linear_schedule(), clip=(-1, 1)).eval()
    results = built.detect(x, [251, 351], Rng(["a", "b"]))
    reconstructed = reconstruct(
        built.denoiser,
        built.canvas.forward(x),
        [251, 351],
        Rng(["a", "b"]),
        sampling=SamplingConfig(6),
    )
    assert results.reconstruction is not None
    assert torch.equal(results.reconstruction, built.canvas.inverse(reconstructed)[:, :, 0])


@torch.no_grad()
@pytest.mark.parametrize(("quirk", "black"), [(False, 0.0), (True, 0.5)])
def test_what_is_healthy_in_the_map_is_the_input_again_negatives_and_all(
    quirk: bool, black: float
) -> None:
    """At the last level all is put back; the authors' clamp turns -1 to 0, which is grey."""
    x = torch.zeros(1, 1, 16, 16)
    x[..., 4:9, 4:9] = 0.8
    built = thor(harmonise=(1,), clamp_unit=quirk)
    built.denoiser = Denoiser(SmoothNetwork(), linear_schedule()).eval()
    built.intermediate_map = lambda inner, clean: torch.zeros(len(inner), 16, 16)
    results = built.detect(x, [351], Rng(["a"])).reconstruction
    assert results is not None
    expected = torch.where(x > 0, x, torch.full_like(x, black))
    torch.testing.assert_close(results[0], expected, rtol=0, atol=1e-6)


@torch.no_grad()
def test_what_is_put_back_is_disturbed_with_the_chains_own_noise() -> None:
    built = thor(harmonise=(151,), eta=0.0)
    built.intermediate_map = lambda inner, clean: torch.zeros(len(inner), 16, 16)
    reference, drawn = torch.rand(1, 1, 16, 16), torch.randn(1, 1, 16, 16)
    for late, level in ((False, 150), (True, 151)):
        built.quirks = THORQuirks(renoise_late=late)
        way = HarmonisedStep(built, StepNoise(Rng(["a"]), gaussian), reference, drawn)
        moves = [move for move in way.plan_steps(sampling_levels(351)) if move.tag == 2]
        assert [move.start_level for move in moves] == [151]
        stored = linear_schedule().alpha_bar[level].float()
        y = run_one(built, way, reference, drawn, moves[0])
        torch.testing.assert_close(y, stored.sqrt() * reference + (1 - stored).sqrt() * drawn)


def run_one(built: THOR, way: HarmonisedStep, x, drawn, move) -> torch.Tensor:
    from adbench.engine.sampling.continuous_batching import ChainBatch

    one, zero = torch.tensor([0]), torch.tensor([0])
    here, there = torch.tensor([move.start_level]), torch.tensor([move.end_level])
    rows = ChainBatch(zero, one, torch.tensor([move.tag]), here, here, there, [[move]])
    return way.advance(x, x[:, :0], built.denoiser.estimate(x, here), rows)


@torch.no_grad()
def test_the_map_is_the_harmonic_mean_of_all_on_the_way() -> None:
    built, votes = thor(sampling_steps=7), [0.9, 0.2, 0.5, 0.7, 0.3, 0.6, 0.8]
    left = iter(votes)
    built.intermediate_map = lambda inner, clean: torch.full((len(inner), 16, 16), next(left))
    results = built.detect(torch.rand(1, 1, 16, 16), [351], Rng(["a"])).map
    assert results is not None
    torch.testing.assert_close(results, torch.full_like(results, float(hmean(votes))))


@torch.no_grad()
def test_a_map_on_the_way_has_1_for_its_maximum_and_no_nan_where_nothing_differs() -> None:
    built = thor()
    x = built.canvas.forward(torch.stack([s.x for s in samples((16, 16), 2, 1)]))
    y = x.clone()
    y[0, :, 4:8, 4:8] *= -1
    results = built.intermediate_map(x, y)
    assert results[0].max() == pytest.approx(1) and (results[1] == 0).all()
    assert torch.equal(results[:1], built.intermediate_map(x[:1], y[:1]))


@torch.no_grad()
def test_a_perceptual_map_is_blurred_from_the_end_of_its_outermost_pixels() -> None:
    """As SciPy's filter does by default: an impulse at an edge leaves 0.0749 of itself there, and
    nothing of it is lost."""
    method, x = thor(blur=2.0), torch.zeros(1, 1, 32, 32)
    y = x + 1
    impulse = torch.zeros(1, 32, 32)
    impulse[0, 0, 16] = 1
    method.perceptual.distance = lambda x, y, **_: impulse
    results = method.intermediate_map(x, y)[0]
    expected = gaussian_filter(impulse[0].double().numpy(), sigma=2)
    np.testing.assert_allclose(results.numpy(), expected / expected.max(), atol=1e-6)
    assert expected[0, 16] == pytest.approx(0.07490, abs=1e-5)
    assert expected.sum() == pytest.approx(1)


@torch.no_grad()
def test_with_an_oracle_the_anomaly_stands_out() -> None:
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built = thor(kernel=3, blur=0.5, sampling_steps=None)
    built.denoiser = Denoiser(
        ConstantX0(built.canvas.forward(healthy)), linear_schedule(), prediction_type="clean"
    ).eval()
    x = healthy.clone()
    x[..., 5:9, 5:9] = 1.0
    results = built.detect(x, [351], Rng(["a"]))
    assert results.map is not None and results.reconstruction is not None
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[5:9, 5:9] = True
    assert results.map[0, 0][inside].min() > 10 * results.map[0, 0][~inside].max()
    torch.testing.assert_close(results.reconstruction[0], healthy, rtol=0, atol=1e-5)


def test_closing_and_widening_are_scipys() -> None:
    x = np.random.default_rng(0).random((2, 14, 11))
    built = close_and_dilate(torch.from_numpy(x), 5).numpy()
    for one, theirs in zip(built, x, strict=True):
        np.testing.assert_allclose(one, grey_dilation(grey_closing(theirs, 5), 5))


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"harmonise": ()},
        {"every": 150},
        {"kernel": 5},
        {"blur": 0.5},
        {"eta": 0.0},
        {"noise": "simplex"},
        {"double_normalise": True},
        {"renoise_late": True},
        {"clamp_unit": True},
        {"shared_noise": True},
    ],
)
def test_each_argument_changes_what_is_found(change: dict[str, object]) -> None:
    x, rng = samples((16, 16), 1, 1)[0].x[None], Rng(["a"])
    plain, other = thor(sampling_steps=8), thor(sampling_steps=8, **change)
    for built in (plain, other):
        built.denoiser = Denoiser(SmoothNetwork(), linear_schedule(), clip=(-1, 1)).eval()
    a, b = plain.detect(x, [351], rng).map, other.detect(x, [351], rng).map
    assert a is not None and b is not None and not torch.equal(a, b)


@torch.no_grad()
def test_a_shared_field_is_everyones() -> None:
    x, results = samples((16, 16), 1, 1)[0].x.expand(2, 1, 16, 16), {}
    for shared in (False, True):
        built = thor(noise="simplex", shared_noise=shared, sampling_steps=8)
        built.denoiser = Denoiser(SmoothNetwork(), linear_schedule(), clip=(-1, 1)).eval()
        seen = built.detect(x, [351], Rng(["a", "b"])).map
        assert seen is not None
        results[shared] = torch.equal(seen[0, 0], seen[0, 1])
    assert results == {False: False, True: True}


@pytest.mark.parametrize(("unit", "low"), [(False, -1.0), (True, 0.0)])
def test_training_is_in_the_range_of_inference_or_in_the_authors(unit: bool, low: float) -> None:
    built, seen = thor(train_unit=unit, steps=1, batch=4, augment=False, size=None), []
    loss = built.denoiser.loss

    def watched(x, rng, **more):
        seen.append(x)
        return loss(x, rng, **more)

    built.denoiser.loss = watched
    data = samples((16, 16), 4, 1)
    built.fit(data, [], TrainingContext())
    for x in (seen[0] - low) / (1 - low):
        assert min((x - s.x).abs().max().item() for s in data) < 1e-6
    assert built.canvas.range == (-1, 1) and "train_unit" not in THOR.inference


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        thor(kernel=4)
