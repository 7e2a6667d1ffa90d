"""Metrics of ranges against the published package's results and against loops over thresholds."""

from __future__ import annotations

import numpy as np
import pytest

from adbench.benchmark.evaluation.metrics.range_based import (
    point_adjusted_f1,
    range_auc,
    volume_under_surface,
)


@pytest.fixture
def signal() -> tuple[np.ndarray, np.ndarray]:
    truth = np.zeros(400, bool)
    truth[50:80] = truth[200:206] = truth[300:360] = True
    return np.random.default_rng(0).random(400) + 0.5 * truth, truth


@pytest.mark.parametrize(
    ("buffer", "roc", "pr"),
    [
        (0, 0.8474849232456141, 0.7411478121928905),
        (10, 0.8441030826956059, 0.7383213562804636),
        (21, 0.825108536441696, 0.7304221066105165),
    ],
)
def test_range_auc_is_that_of_the_package(signal, buffer, roc, pr):
    """Golden values of `metricor().RangeAUC` of vus 0.0.6."""
    assert range_auc(signal[0], signal[1], buffer) == pytest.approx((roc, pr), abs=1e-12)


def test_volume_under_surface_is_that_of_the_package(signal):
    """Golden values of `metricor().RangeAUC_volume_opt` of vus 0.0.6, largest window 12."""
    expected = (0.8665673249448015, 0.7620198391110115)
    assert volume_under_surface(signal[0], signal[1], 12) == pytest.approx(expected, abs=1e-12)


def test_point_adjusted_f1_is_that_of_a_loop_and_random_scores_come_close(signal):
    score, truth = np.round(signal[0], 1), signal[1]
    best = 0.0
    for threshold in np.unique(score):
        called = score >= threshold
        for first, last in ((50, 80), (200, 206), (300, 360)):
            called[first:last] |= called[first:last].any()
        hits = (called & truth).sum()
        best = max(best, 2 * hits / (called.sum() + truth.sum()))
    result = point_adjusted_f1(score, truth, np.random.default_rng(1))
    assert result is not None and result.f1 == pytest.approx(best)
    assert result.random > 0.85


def test_without_an_anomaly_there_is_nothing_to_rank(signal):
    for truth in (np.zeros(400, bool), np.ones(400, bool)):
        assert range_auc(signal[0], truth, 4) is None
        assert volume_under_surface(signal[0], truth, 2) is None
        assert point_adjusted_f1(signal[0], truth, np.random.default_rng(0)) is None
