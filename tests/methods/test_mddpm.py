"""mDDPM's own: what is pasted into the input; the rest is pDDPM's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.datasets.base import Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import cosine_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.mddpm import MDDPM, frequency_cutmix, split_frequencies
from known import ConstantX0
from small import build_small, samples

SPEC = Spec(1, (16, 16))
LOW, HIGH = torch.tensor([True]), torch.tensor([False])


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 2, *shape, generator=torch.Generator().manual_seed(seed))


def test_the_defaults_are_the_papers() -> None:
    with torch.device("meta"):
        built = MDDPM(Spec(1, (96, 96)))
    assert len(built.tiles) == 4 and built.plan.steps == 6 * 19_200 and built.plan.batch == 32
    assert built.denoiser.prediction_type == "clean" and built.published == 500 and built.cuts == 5


@pytest.mark.parametrize("shape", [(12,), (12, 10), (6, 8, 10)])
def test_low_and_high_frequencies_are_the_image(shape: tuple[int, ...]) -> None:
    x, half = image(*shape), torch.tensor([2])
    low, high = split_frequencies(x, half, LOW), split_frequencies(x, half, HIGH)
    torch.testing.assert_close(low + high, x)
    torch.testing.assert_close(low.flatten(2).mean(2), x.flatten(2).mean(2))  # the mean is low
    whole = torch.tensor([max(shape) // 2])
    torch.testing.assert_close(split_frequencies(x, whole, LOW), x)


def test_the_low_frequencies_are_numpys_centred_square() -> None:
    x, v = image(16, 12), 3
    spectrum = np.fft.fftshift(np.fft.fft2(x.numpy()), axes=(2, 3))
    stored = np.zeros_like(spectrum)
    stored[..., 8 - v : 8 + v, 6 - v : 6 + v] = spectrum[..., 8 - v : 8 + v, 6 - v : 6 + v]
    expected = np.fft.ifft2(np.fft.ifftshift(stored, axes=(2, 3))).real
    built = split_frequencies(x, torch.tensor([v]), LOW).numpy()
    np.testing.assert_allclose(built, expected, atol=1e-6)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from([(16,), (16, 14), (8, 10, 6)]))
def test_nothing_outside_of_the_foreground_changes(seed: int, shape: tuple[int, ...]) -> None:
    x = image(*shape, seed=seed)
    x[(..., slice(0, shape[-1] // 2))] = 0
    built = frequency_cutmix(x, Rng([str(seed)]), cuts=5, share=0.5, band=(2, 4))
    assert torch.equal(built[(..., slice(0, shape[-1] // 2))], x[(..., slice(0, shape[-1] // 2))])


def test_without_cuts_or_foreground_the_input_is_as_it_was() -> None:
    x = image(16, 16)
    assert frequency_cutmix(x, Rng(["a"]), cuts=0, share=0.5, band=(2, 4)) is x
    empty = torch.zeros_like(x)
    assert torch.equal(frequency_cutmix(empty, Rng(["a"]), cuts=5, share=0.5, band=(2, 4)), empty)


def test_from_none_to_five_rectangles_are_pasted_of_the_right_size() -> None:
    """All of 20 x 20 is foreground: sides of 5 to 10, so that a place changes in some samples, and
    a sixth of them is untouched."""
    keys = [str(i) for i in range(600)]
    x = image(20, 20).expand(600, -1, -1, -1)
    built = frequency_cutmix(x, Rng(keys), cuts=5, share=0.5, band=(2, 4))
    changed = (built != x).any(1)
    untouched = (~changed.flatten(1).any(1)).float().mean().item()
    assert untouched == pytest.approx(1 / 6, abs=0.05)
    one = frequency_cutmix(x, Rng(keys), cuts=1, share=0.5, band=(2, 4))
    tall = (one != x).any(1).any(2).sum(1)
    assert tall.max() <= 10 and (tall == 10).any()


def ellipse(size: int, semi: tuple[float, float]) -> torch.Tensor:
    """A foreground about the canvas's centre, (size, size) bool."""
    row, column = torch.meshgrid(*[torch.arange(size) - size / 2.0] * 2, indexing="ij")
    return (row / semi[0]) ** 2 + (column / semi[1]) ** 2 <= 1


def pasted_by_the_authors(foreground: np.ndarray, draws: np.random.Generator) -> np.ndarray:
    """Where the authors' training step pastes, written as a loop with their integer ranges."""
    rows, columns = (np.nonzero(foreground.any(axis))[0] for axis in (1, 0))
    longest = int(len(rows) / 10 * 1.8)
    pasted = np.zeros_like(foreground)
    for _ in range(draws.integers(0, 6)):
        tall, wide = draws.integers(longest // 2, longest + 1, size=2)
        top, left = (
            draws.integers(index[0], index[-1] - 10 - longest + 1) + 5 for index in (rows, columns)
        )
        pasted[top : top + tall, left : left + wide] = True
    return pasted & foreground


def test_rectangles_lie_where_the_authors_paste_them() -> None:
    """A foreground of 73 x 59 in 96 x 96 pixels, as a head has it; 0.0642 of it are pasted by the
    authors' code, 0.165 of the samples are untouched, the centre is in 0.117 of them."""
    count, foreground = 1500, ellipse(96, (36, 29))
    x = image(96, 96)[:, :1] * 0.8 + 0.2
    x = (x * foreground).expand(count, -1, -1, -1)
    keys = [str(i) for i in range(count)]
    result = frequency_cutmix(x, Rng(keys), cuts=5, share=0.18, band=(2, 10))
    pasted = (result != x)[:, 0].numpy()
    draws = np.random.default_rng(0)
    theirs = np.stack([pasted_by_the_authors(foreground.numpy(), draws) for _ in range(2 * count)])
    for boxes in (pasted, theirs):
        assert boxes[:, foreground.numpy()].mean() == pytest.approx(0.0642, abs=0.003)
        assert 1 - boxes.any((1, 2)).mean() == pytest.approx(0.165, abs=0.025)
        assert boxes[:, 48, 48].mean() == pytest.approx(0.117, abs=0.02)
    assert np.abs(pasted.mean(0) - theirs.mean(0)).max() < 0.05
    for axis in (1, 2):  # the same outermost rows and columns, the margins
        ours, reference = (np.nonzero(boxes.any((0, axis)))[0] for boxes in (pasted, theirs))
        assert ours[0] == reference[0] and ours[-1] == reference[-1]


@pytest.mark.parametrize(
    ("shape", "corner", "extent"),
    [
        ((24,), (3,), (16,)),
        ((24, 20), (4, 9), (15, 9)),
        ((10, 24, 12), (2, 9, 1), (6, 12, 10)),
        ((24, 24), (0, 22), (24, 2)),
        ((24, 24), (5, 5), (1, 1)),
    ],
)
def test_rectangles_stay_in_the_bounding_box_on_every_axis(
    shape: tuple[int, ...], corner: tuple[int, ...], extent: tuple[int, ...]
) -> None:
    """Where the margins do not fit, they shrink, and something is pasted nevertheless."""
    box = tuple(slice(c, c + e) for c, e in zip(corner, extent, strict=True))
    x = torch.zeros(200, 1, *shape)
    x[(..., *box)] = 0.2 + 0.8 * torch.rand(200, 1, *extent)
    result = frequency_cutmix(x, Rng([str(i) for i in range(200)]), cuts=5, share=0.5, band=(2, 4))
    pasted = (result != x)[:, 0]
    inside = torch.zeros(shape, dtype=torch.bool)
    inside[box] = True
    assert not pasted[:, ~inside].any()
    if extent[0] > 1:
        assert pasted.any()
        per_sample = pasted.flatten(1).any(1).float().mean().item()
        assert per_sample == pytest.approx(5 / 6, abs=0.1)
    else:
        assert not pasted.any()  # half of one pixel is none


def test_training_undoes_what_was_pasted() -> None:
    """The input is corrupted, what is sought is clean, and the clean rest of the cell is told."""
    built, seen = build_small(MDDPM, SPEC, cuts=5, share=0.9, steps=2, batch=8), []
    loss = built.denoiser.loss

    def watched(x, rng, **more):
        seen.append((x, more["corrupted"], more["region"]))
        return loss(x, rng, **more)

    built.denoiser.loss = watched
    built.fit(samples((16, 16), 4, 1), [], TrainingContext())
    x, start, region = seen[0]
    assert (x != start).any() and region.flatten(1).sum(1).tolist() == [64] * 8
    again = build_small(MDDPM, SPEC, cuts=0, steps=2, batch=8)
    again.fit(samples((16, 16), 4, 1), [], TrainingContext())
    pairs = zip(built.parameters(), again.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@torch.no_grad()
@pytest.mark.parametrize("more", [{}, {"stride": 4}, {"stride": 3, "aggregate": "mean"}])
def test_with_an_oracle_the_stitched_image_is_the_healthy_one(more) -> None:
    built = build_small(MDDPM, SPEC, **more).eval()
    healthy = samples((16, 16), 1, 1)[0].x[None]
    built.denoiser = Denoiser(
        ConstantX0(built.canvas.forward(healthy)), cosine_schedule(), prediction_type="clean"
    ).eval()
    results = built.detect(healthy, [200, 500], Rng(["a"]))
    assert results.map is not None and results.map.abs().max() < 1e-6
    assert built.denoiser.evaluations == 2 * len(built.tiles)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="band rises"):
        build_small(MDDPM, SPEC, band=(5, 2))
