"""Metrics of whole series against loops over thresholds and ranges, and in a record's intervals."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adbench.benchmark.evaluation.evaluate import evaluate
from adbench.benchmark.evaluation.metrics.per_series import (
    MAX_BUFFER,
    SERIES_METRICS,
    largest_buffer,
    per_series_metrics,
)
from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
from adbench.benchmark.evaluation.metrics.range_based import range_auc, soft_labels
from adbench.benchmark.evaluation.predictions import Predictions
from adbench.benchmark.evaluation.protocol import Protocol


def runs(truth: np.ndarray) -> list[tuple[int, int]]:
    """First and last step of each run, step by step."""
    spans, start = [], None
    for i, value in enumerate([*truth.tolist(), False]):
        if value and start is None:
            start = i
        if not value and start is not None:
            spans.append((start, i - 1))
            start = None
    return spans


def looped_range_auc(score: np.ndarray, truth: np.ndarray, buffer: int) -> tuple[float, float]:
    """Paparrizos et al., section 4, one threshold at a time."""
    soft = truth.astype(float)
    for first, last in runs(truth):
        for d in range(1, buffer // 2 + 1):
            for step in (first - d, last + d):
                if 0 <= step < len(soft):
                    soft[step] = min(1.0, soft[step] + (1 - d / buffer) ** 0.5)
    positives = truth.sum() + soft[~truth].sum() / 2
    ranked, points = sorted(score.tolist(), reverse=True), [(0.0, 0.0, 1.0)]
    for index in np.linspace(0, len(score) - 1, 250).astype(int):
        called = score >= ranked[index]
        hits = soft[called].sum()
        share = np.mean([called[a : b + 1].any() for a, b in runs(soft > 0)])
        points.append(
            (
                min(hits / positives, 1) * share,
                (called.sum() - hits) / (len(score) - positives),
                hits / called.sum(),
            )
        )
    points.append((1.0, 1.0, 0.0))
    roc = sum((b[1] - a[1]) * (a[0] + b[0]) / 2 for a, b in pairwise(points))
    return roc, sum((b[0] - a[0]) * (a[2] + b[2]) / 2 for a, b in pairwise(points[:-1]))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40),
    st.integers(0, 9),
)
def test_range_auc_is_that_of_a_loop(steps: list[tuple[int, bool]], buffer: int) -> None:
    score = np.array([value for value, _ in steps], float)  # many ties
    truth = np.array([label for _, label in steps])
    areas = range_auc(score, truth, buffer)
    if truth.all() or not truth.any():
        assert areas is None
        return
    positives = truth.sum() + soft_labels(truth, buffer)[~truth].sum() / 2
    if positives == len(truth):
        return
    assert areas == pytest.approx(looped_range_auc(score, truth, buffer), abs=1e-9)


def series(count: int = 12, length: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Scores and truth, the latter half with a range of 10 steps."""
    rng = np.random.default_rng(0)
    truth = np.zeros((count, length), bool)
    for i in range(count // 2, count):
        start = int(rng.integers(5, 40))
        truth[i, start : start + 10] = True
    return rng.random((count, length)) + 0.7 * truth, truth


def test_windows_of_a_recording_are_one_series() -> None:
    score, truth = series(4, 60)
    truth[3] = False
    truth[3, :30] = True
    pixels = PixelScores.from_maps(score, truth)
    assert largest_buffer(pixels, [*"abcd"]) == 20  # the median of 10 and 30
    metrics = per_series_metrics(pixels, ["a", "a", "b", "b"])
    whole = range_auc(score[2:].ravel(), truth[2:].ravel(), largest_buffer(pixels, [*"aabb"]))
    assert (metrics["range_auc_roc"][2], metrics["range_auc_pr"][2]) == whole
    for values in metrics.values():
        assert np.isnan(values[[0, 1, 3]]).all() and not np.isnan(values[2])


def test_a_buffer_is_bounded_and_needs_a_range() -> None:
    truth = np.zeros((1, 1000), bool)
    assert largest_buffer(PixelScores.from_maps(truth.astype(float), truth), ["a"]) == 0
    truth[0, 100:900] = True
    assert largest_buffer(PixelScores.from_maps(truth.astype(float), truth), ["a"]) == MAX_BUFFER


def predictions(score: np.ndarray, truth: np.ndarray) -> Predictions:
    keys = [f"recording {i}" for i in range(len(truth))]
    label = np.array([each.any() for each in truth])
    return Predictions(keys, keys, label, truth, None, None, [{} for _ in keys], None,
        score.astype(np.float32)[None])  # fmt: skip


def test_a_record_of_signals_has_them_with_intervals_and_one_of_images_has_not() -> None:
    score, truth = series(40)
    split = predictions(score, truth)
    normal = predictions(*(part[:20] for part in (score, truth)))
    metrics = evaluate(normal, split, split, [0], 0, Protocol())[0]["metrics"]
    pixels = PixelScores.from_maps(score.astype(np.float32), truth)
    expected = per_series_metrics(pixels, split.keys)
    for name in SERIES_METRICS:
        assert metrics[name]["value"] == pytest.approx(np.nanmean(expected[name]))
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]
    assert metrics["vus_pr"]["low"] < metrics["vus_pr"]["high"]
    images = predictions(score.reshape(40, 6, 10), truth.reshape(40, 6, 10))
    healthy = predictions(score[:20].reshape(20, 6, 10), truth[:20].reshape(20, 6, 10))
    metrics = evaluate(healthy, images, images, [0], 0, Protocol())[0]["metrics"]
    assert not {*SERIES_METRICS} & {*metrics}


def test_random_scores_are_the_same_for_every_method() -> None:
    score, truth = series()
    one, other = (
        per_series_metrics(PixelScores.from_maps(values, truth), [*"abcdefghijkl"])
        for values in (score, -score)
    )
    assert np.array_equal(one["pa_f1_random"], other["pa_f1_random"], equal_nan=True)
    assert not np.array_equal(one["pa_f1_oracle"], other["pa_f1_oracle"], equal_nan=True)
