"""Differences between methods: what they call different, how often wrongly, and who is best."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from adbench.benchmark.evaluation.statistics.bootstrap import (
    Resamples,
    bootstrap_image_metrics,
    corrected_p_value,
    effective_clusters,
    expanded_level,
    percentile_interval,
)
from adbench.benchmark.evaluation.statistics.paired_tests import (
    BEST,
    INDISTINGUISHABLE,
    WORSE,
    compare_with_best,
    holm_correction,
    paired_difference,
    resample_seeds,
)

PATIENTS, SLICES = 60, 5


def study(rng: np.random.Generator, effects: list[float]):
    """Scores of methods on the same patients, half of them diseased in half of their slices; half
    of the variance is the patient's, and of that 0.8 the same for every method."""
    label = np.zeros((PATIENTS, SLICES), bool)
    label[::2, : SLICES // 2] = True
    shared = rng.normal(size=(1, PATIENTS, 1)) * np.sqrt(0.8)
    own = rng.normal(size=(len(effects), PATIENTS, 1)) * np.sqrt(0.2)
    scores = np.sqrt(0.5) * (shared + own + rng.normal(size=(len(effects), PATIENTS, SLICES)))
    scores += np.array(effects)[:, None, None] * label
    groups = [f"{i}" for i in range(PATIENTS) for _ in range(SLICES)]
    return scores.reshape(len(effects), -1), label.ravel(), groups


def test_equal_methods_are_rarely_called_different_and_intervals_hold_the_truth():
    """160 studies: at nominal 5 % at most 8 % are called different; 95 % intervals hold the true
    AUROC in 92 to 97 % (more in a simulation of 160 by luck alone: up to 99 %)."""
    rng = np.random.default_rng(17)
    called = inside = 0
    truth = (1 + erf(0.8 / 2)) / 2  # Phi(0.8 / sqrt(2))
    for _ in range(160):
        scores, label, groups = study(rng, [0.8, 0.8])
        resamples, rare = (
            Resamples.from_groups(groups, replicates=250),
            effective_clusters(groups, label),
        )
        one, two = (bootstrap_image_metrics(score, label, resamples)["auroc"] for score in scores)
        result = paired_difference(0.0, one, 0.0, two, rare)
        assert result.low is not None and result.high is not None and result.p is not None
        called += result.p < 0.05
        bounds = percentile_interval(one, rare)
        inside += bounds is not None and bounds[0] <= truth <= bounds[1]
    assert called / 160 <= 0.08
    assert 0.92 <= inside / 160 <= 0.99


def test_a_real_difference_is_seen():
    scores, label, groups = study(np.random.default_rng(1), [2.0, 0.5])
    resamples, rare = Resamples.from_groups(groups), effective_clusters(groups, label)
    draws = [bootstrap_image_metrics(score, label, resamples)["auroc"] for score in scores]
    result = paired_difference(0.92, draws[0], 0.64, draws[1], rare)
    assert result.p is not None and result.p < 0.01
    assert result.low is not None and 0 < result.low < 0.28
    back = paired_difference(0.64, draws[1], 0.92, draws[0], rare)
    assert back.value == -0.28 or back.value == pytest.approx(-0.28)
    assert (back.low, back.high) == pytest.approx((-(result.high or 0), -result.low))


def test_the_p_value_and_the_interval_agree():
    rng = np.random.default_rng(4)
    nothing = np.zeros(4000)
    for shift in np.linspace(-4, 4, 41):
        result = paired_difference(shift, rng.normal(size=4000) + shift, 0.0, nothing, 30)
        assert result.low is not None and result.high is not None and result.p is not None
        if abs(result.p - 0.05) > 0.01:
            assert (result.p < 0.05) == (result.low > 0 or result.high < 0)


def test_expansion_is_that_of_students_t_and_is_undone():
    assert expanded_level(0.05, None) == 0.05
    assert expanded_level(0.05, 30) < 0.05 < 0.05001
    assert expanded_level(0.05, 10**6) == pytest.approx(0.05, abs=1e-5)
    for rare in (3, 30, 400):
        assert corrected_p_value(expanded_level(0.05, rare), rare) == pytest.approx(0.05)
    # 30 patients: 2.0452 * sqrt(30 / 29) = 2.0802 standard errors; Phi(-2.0802) = 0.018755
    assert expanded_level(0.05, 30) / 2 == pytest.approx(0.018755, abs=1e-5)


def test_holm_by_hand():
    assert holm_correction([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm_correction([0.5, None, 0.6]) == [1, None, 1]
    assert holm_correction([]) == []


def test_standings_are_against_the_best_and_missing_is_worst():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=2000) * 0.01
    draws = [0.8 + noise, 0.795 + noise + rng.normal(size=2000) * 0.01, 0.6 + noise, np.zeros(0)]
    result = compare_with_best([0.8, 0.795, 0.6, None], draws)
    assert [each.verdict for each in result] == [BEST, INDISTINGUISHABLE, WORSE, WORSE]
    assert result[0].p is None and result[2].p == pytest.approx(2 * 2 / 2001, rel=0.01)
    lower = compare_with_best([0.8, 0.795, 0.6, None], draws, lower_is_better=True)
    assert [each.verdict for each in lower] == [WORSE, WORSE, BEST, WORSE]
    assert [each.verdict for each in compare_with_best([None, None], [draws[3]] * 2)] == [
        WORSE,
        WORSE,
    ]


def test_without_intervals_nobody_is_called_worse():
    few = [np.zeros(0), np.zeros(0)]
    assert [each.verdict for each in compare_with_best([0.9, 0.1], few)] == [
        BEST,
        INDISTINGUISHABLE,
    ]
    assert paired_difference(0.5, few[0], None, few[1]).value is None


def test_seeds_widen_what_they_disagree_on():
    rng = np.random.default_rng(3)
    base = rng.normal(size=2000)
    assert resample_seeds([base], "a") is base
    alike = resample_seeds([base, base, base], "a")
    np.testing.assert_allclose(alike, base)
    apart = resample_seeds([base - 3, base, base + 3], "a")
    # the mean of three of {-3, 0, 3}, drawn with replacement, has variance 6 / 3
    assert apart.var() == pytest.approx(base.var() + 2, rel=0.1)
    assert (resample_seeds([base, base + 1], "a") != resample_seeds([base, base + 1], "b")).any()


def test_p_values_beyond_what_replicates_can_count_are_those_of_students_t():
    random = np.random.default_rng(5)
    ratios = []
    for _ in range(40):
        differences = random.normal(1.0, 1.0, 40)  # of 40 groups, about 6 standard errors from 0
        rows = random.integers(40, size=(2000, 40))
        result = paired_difference(
            differences.mean(), differences[rows].mean(1), 0.0, np.zeros(2000), clusters=40
        )
        p = float(np.asarray(ttest_1samp(differences, 0))[1])
        assert result.p is not None
        ratios.append(np.log10(result.p) - np.log10(p))
        assert result.p < 0.002  # the least that 2000 replicates can count, by Student's t
    assert abs(np.median(ratios)) < 0.7 and max(np.abs(ratios)) < 2.5


def test_forty_methods_far_below_the_best_are_worse_for_all_the_correction():
    noise = np.random.default_rng(6).normal(0, 0.03, (41, 2000))
    values = [0.6, *([0.2] * 40)]
    results = compare_with_best(
        values, [v + n for v, n in zip(values, noise, strict=True)], clusters=lambda i, j: 30.0
    )
    assert [result.verdict for result in results] == [BEST, *([WORSE] * 40)]
