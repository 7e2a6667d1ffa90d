"""Binned pixel metrics: within their own bounds of the exact ones, and refused where those gape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adbench.benchmark.evaluation.metrics import streaming_histogram as streaming
from adbench.benchmark.evaluation.metrics.order_statistics import scores_of_patterns
from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
from adbench.benchmark.evaluation.metrics.ranking import pixel_score_metrics
from adbench.benchmark.evaluation.metrics.streaming_histogram import (
    CoarseBinsError,
    StreamingHistogram,
    histogram_metrics,
)


def places(seed: int, transform=None, side: int = 40, count: int = 6) -> PixelScores:
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, side, side), bool)
    for mask in masks[1:]:
        y, x = rng.integers(0, side - 12, 2)
        mask[y : y + rng.integers(2, 12), x : x + rng.integers(2, 12)] = True
    scores = rng.normal(size=masks.shape) + 1.5 * masks
    scores = scores if transform is None else transform(scores)
    return PixelScores.from_maps(scores.astype(np.float32), masks)


def filled(result: PixelScores, bits: int = 22) -> StreamingHistogram:
    stream = StreamingHistogram(bits)
    stream.add(result.score, result.truth, result.component_share)
    return stream


@settings(max_examples=40)
@given(
    seed=st.integers(0, 9999),
    bits=st.sampled_from([8, 10, 12, 16]),
    transform=st.sampled_from([None, np.exp, np.round, np.tanh, lambda x: np.zeros_like(x)]),
)
def test_exact_figures_lie_within_the_bounds(seed, bits, transform):
    result = places(seed, transform)
    exact, bounds = pixel_score_metrics(result), filled(result, bits).bounds()
    assert set(bounds) == {"auroc", "ap", "aupro30", "aupro05", "dice", "iou"}
    for name, (low, high) in bounds.items():
        value = exact[name]
        assert value is not None and low - 1e-9 <= value <= high + 1e-9, name


def test_figures_are_close_and_say_how_close():
    result = places(0, side=128, count=20)
    exact, binned = pixel_score_metrics(result), filled(result).metrics()
    error = binned["error"]
    assert error is not None and 0 < error < 1e-3
    for name in ("auroc", "ap", "aupro30", "aupro05", "dice", "iou"):
        assert binned[name] == pytest.approx(exact[name], abs=error + 1e-12)
    assert binned["threshold"] == pytest.approx(exact["threshold"], abs=2e-3)


def test_scores_squashed_against_one_are_refused():
    result = places(0, lambda x: 1 - np.exp(-8 * np.abs(x)))
    with pytest.raises(CoarseBinsError, match="raise the protocol's budget"):
        filled(result, 16).metrics()
    assert filled(result, 16).metrics(tolerance=1)["auroc"] is not None


EXACT = ("auroc", "ap", "aupro30", "aupro05", "dice", "iou", "threshold")


@pytest.mark.parametrize("chunk", [2**24, 97])
@pytest.mark.parametrize(
    "transform",
    [
        lambda x: 1 - 0.01 * np.exp(-np.abs(x)),  # squashed against 1
        lambda x: 1 + 0.001 * np.round(4 * x),  # few values, with many ties
        lambda x: -1 - 0.001 * x,
    ],
)
def test_a_second_pass_counts_coarse_bins_score_by_score(transform, chunk, monkeypatch):
    """To the figures of all pixels sorted, where all coarse bins are split."""
    monkeypatch.setattr(streaming, "CHUNK_SIZE", chunk)
    result = places(0, transform)
    block = result.score, result.truth, result.component_share
    exact, passes = pixel_score_metrics(result), []

    def blocks():
        passes.append(1)
        yield block

    binned = histogram_metrics(filled(result, 14), blocks)
    assert len(passes) == 1 and binned["error"] == 0
    for name in EXACT:
        assert binned[name] == pytest.approx(exact[name], abs=1e-9), name


@settings(max_examples=20)
@given(
    seed=st.integers(0, 9999),
    most=st.integers(0, 3),
    transform=st.sampled_from([None, np.exp, np.round, np.tanh]),
)
def test_the_bounds_of_some_split_bins_hold_the_exact_figures_and_are_narrower(
    seed, most, transform
):
    result = places(seed, transform)
    exact, stream = pixel_score_metrics(result), filled(result, 12)
    before = stream.bounds()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "SPLIT_SCORES", most << 20)
        stream.split_coarse_bins()
    stream.add_to_split_bins(result.score, result.truth, result.component_share)
    for name, (low, high) in stream.bounds().items():
        value = exact[name]
        assert value is not None and low - 1e-9 <= value <= high + 1e-9, name
        assert before[name][0] - 1e-9 <= low and high <= before[name][1] + 1e-9, name


def test_too_many_coarse_bins_are_refused_after_the_second_pass(monkeypatch):
    monkeypatch.setattr(streaming, "SPLIT_SCORES", 2**18)
    result = places(0, lambda x: 1 - np.exp(-8 * np.abs(x)))
    block = result.score, result.truth, result.component_share
    with pytest.raises(CoarseBinsError, match="raise the protocol's budget"):
        histogram_metrics(filled(result, 14), lambda: [block])


def test_chunks_and_order_do_not_matter(monkeypatch):
    result = places(3)
    plain = filled(result, 12).metrics(1)
    monkeypatch.setattr(streaming, "CHUNK_SIZE", 97)
    other = filled(result, 12).metrics(1)
    assert other["auroc"] == plain["auroc"] and other["ap"] == plain["ap"]
    assert other["aupro30"] == pytest.approx(plain["aupro30"], abs=1e-12)


def test_bins_are_in_the_order_of_the_numbers():
    values = np.array([-np.inf, -3e38, -1, -1e-40, -0.0, 0.0, 1e-40, 0.5, 1, 3e38, np.inf])
    stream = StreamingHistogram(32 - 9)
    bins = stream.bin_indices(values.astype(np.float32))
    assert (np.diff(bins) >= 0).all() and bins[4] == bins[5]
    finite = values[1:-1].astype(np.float32)
    stream.add(finite, finite > 0, np.ones(4))
    edges = scores_of_patterns(stream.counts().lowest)[::-1]
    assert (np.diff(edges) > 0).all() and (edges <= np.unique(finite)).all()
    with pytest.raises(ValueError, match="NaN"):
        stream.bin_indices(np.array([np.nan], np.float32))


def test_beyond_the_budget_bins_are_counted_and_with_one_kind_there_is_nothing():
    result = places(5, side=128, count=20)
    assert pixel_score_metrics(result, result.truth.size)["error"] == 0
    assert pixel_score_metrics(result, result.truth.size - 1)["error"] != 0
    nothing = PixelScores.from_maps(np.zeros((2, 4)), np.zeros((2, 4), bool))
    assert pixel_score_metrics(nothing, 1) == pixel_score_metrics(nothing)
