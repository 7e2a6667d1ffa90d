"""The bootstrap against plain recomputation on the same resamples, and its determinism."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
from adbench.benchmark.evaluation.metrics.ranking import (
    image_metrics,
    overlap_counts,
    overlap_metrics,
    pixel_metrics,
)
from adbench.benchmark.evaluation.statistics.bootstrap import (
    Resamples,
    bootstrap_image_metrics,
    bootstrap_overlap_metrics,
    bootstrap_pixel_metrics,
    effective_clusters,
    percentile_interval,
)


def patients(count, slices):
    return [f"patient-{i}" for i in range(count) for _ in range(slices)]


def maps(groups, seed=0, side=24, tail=False):
    """Maps of differing quality per sample (N, side, side), and their masks."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((len(groups), side, side), bool)
    for mask in masks[::2]:
        y, x = rng.integers(2, side - 6, 2)
        mask[y : y + rng.integers(2, 6), x : x + rng.integers(2, 6)] = True
    strength = rng.uniform(0, 3, (len(groups), 1, 1))
    scores = rng.normal(size=masks.shape) + strength * masks
    if tail:
        scores = np.exp(4 * np.clip(scores, 0, None)) - 1  # half of all places tie at 0
    return scores.astype(np.float32), masks


def repeated(resamples, draw):
    """The samples of a draw, as often as their group was drawn."""
    times = resamples.counts[draw, resamples.group_index].astype(int)
    return np.repeat(np.arange(len(times)), times)


def test_a_draw_has_as_many_groups_and_takes_each_equally_often():
    resamples = Resamples.from_groups(patients(40, 3))
    assert resamples.counts.shape == (2000, 40)
    assert (resamples.counts.sum(1) == 40).all()
    assert resamples.counts.mean(0) == pytest.approx(np.ones(40), abs=0.12)
    assert resamples.counts.var() == pytest.approx(1 - 1 / 40, rel=0.05)  # binomial(40, 1/40)


def test_draws_depend_on_the_names_of_the_groups_and_on_nothing_else():
    groups = patients(12, 2)
    one, two = Resamples.from_groups(groups), Resamples.from_groups(groups[::-1] * 2)
    np.testing.assert_array_equal(one.counts, two.counts)
    assert one.counts[0].tolist() == [2, 1, 0, 1, 2, 2, 2, 0, 1, 0, 0, 1]
    assert (Resamples.from_groups(groups, stream_name="other").counts != one.counts).any()


@pytest.mark.parametrize("digits", [6, 0])
def test_image_draws_are_exact(digits):
    rng = np.random.default_rng(3)
    groups = patients(30, 4)
    label = rng.random(120) < 0.4
    score = np.round(rng.normal(size=120) + label, digits)
    resamples = Resamples.from_groups(groups, replicates=50)
    draws = bootstrap_image_metrics(score, label, resamples)
    for b in range(50):
        rows = repeated(resamples, b)
        auroc = roc_auc_score(label[rows], score[rows])
        assert draws["auroc"][b] == pytest.approx(auroc, abs=1e-12)
        ap = average_precision_score(label[rows], score[rows])
        assert draws["ap"][b] == pytest.approx(ap, abs=1e-12)
        fpr, tpr, _ = roc_curve(label[rows], score[rows], drop_intermediate=False)
        assert draws["fpr95"][b] == pytest.approx(fpr[tpr >= 0.95 - 1e-12].min(), abs=1e-12)
        best = max(
            overlap_metrics(score[rows] >= t, label[rows])["dice"] or 0.0 for t in score[rows]
        )
        assert draws["f1max"][b] == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("tail", [False, True])
def test_pixel_draws_are_those_of_the_resamples_recomputed_exactly(tail):
    groups = patients(40, 3)
    scores, masks = maps(groups, tail=tail)
    places = PixelScores.from_maps(scores, masks)
    resamples = Resamples.from_groups(groups, replicates=20)
    result = places.score > np.quantile(places.score, 0.97)
    label = np.asarray(masks.any((1, 2)))
    draws = bootstrap_pixel_metrics(places, resamples, overlap_counts(places, result), label)
    result = result.reshape(masks.shape)
    for b in range(20):
        rows = repeated(resamples, b)
        score, mask = scores[rows].ravel(), masks[rows].ravel()
        assert draws["auroc"][b] == pytest.approx(roc_auc_score(mask, score), abs=1e-4)
        assert draws["ap"][b] == pytest.approx(average_precision_score(mask, score), abs=2e-3)
        exact: Any = pixel_metrics(scores[rows], masks[rows])
        assert draws["aupro30"][b] == pytest.approx(exact["aupro30"], abs=2e-4)
        assert draws["aupro05"][b] == pytest.approx(exact["aupro05"], abs=1e-3)
        assert draws["dice_oracle"][b] == pytest.approx(exact["dice"], abs=2e-3)
        at = overlap_metrics(result[rows], masks[rows])
        assert draws["dice"][b] == pytest.approx(at["dice"], abs=1e-12)
        assert draws["iou"][b] == pytest.approx(at["iou"], abs=1e-12)
        false = result[rows][~label[rows]].mean()
        assert draws["healthy_fp"][b] == pytest.approx(false, abs=1e-12)


def test_few_abnormal_places_are_exact():
    groups = patients(10, 1)
    scores, masks = maps(groups, side=10)
    resamples = Resamples.from_groups(groups, replicates=20)
    draws = bootstrap_pixel_metrics(PixelScores.from_maps(scores, masks), resamples, None)
    for b in range(20):
        rows = repeated(resamples, b)
        ap = average_precision_score(masks[rows].ravel(), scores[rows].ravel())
        assert draws["ap"][b] == pytest.approx(ap, abs=2e-3)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """150 studies of 40 patients with 6 slices each, alike within a patient: true AUROC known."""
    rng = np.random.default_rng(11)
    inside = 0
    for _ in range(150):
        label = np.repeat(rng.random(40) < 0.5, 6)
        score = np.repeat(rng.normal(size=40), 6) + 0.3 * rng.normal(size=240) + label
        draws = bootstrap_image_metrics(
            score, label, Resamples.from_groups(patients(40, 6), replicates=200)
        )
        bounds = percentile_interval(draws["auroc"])
        truth = 0.7510  # Phi(1 / sqrt(2 * (1 + 0.3**2)))
        inside += bounds is not None and bounds[0] <= truth <= bounds[1]
    assert 0.88 <= inside / 150 <= 0.99


def test_no_interval_without_enough_groups_or_from_draws_that_are_undefined():
    few = Resamples.from_groups(patients(4, 9))
    assert (
        percentile_interval(
            bootstrap_image_metrics(np.arange(36.0), np.arange(36) > 20, few)["auroc"]
        )
        is None
    )
    places = PixelScores.from_maps(*maps(patients(4, 9)))
    overlaps = overlap_counts(places, places.truth)
    assert percentile_interval(bootstrap_pixel_metrics(places, few, overlaps)["ap"]) is None
    label = np.arange(20) == 0  # one abnormal patient: a third of all draws miss it
    draws = bootstrap_image_metrics(np.arange(20.0), label, Resamples.from_groups(patients(20, 1)))
    assert np.isnan(draws["auroc"]).mean() == pytest.approx(0.36, abs=0.05)
    assert percentile_interval(draws["auroc"]) is None


def test_the_point_lies_within_its_interval():
    groups = patients(30, 2)
    label = np.arange(60) % 4 < 2
    score = np.random.default_rng(5).normal(size=60) + label
    bounds = percentile_interval(
        bootstrap_image_metrics(score, label, Resamples.from_groups(groups))["auroc"]
    )
    point = image_metrics(score, label)["auroc"]
    assert bounds is not None and point is not None
    assert bounds[0] < point < bounds[1]


def test_what_an_interval_hangs_on_is_the_rarer_kind_of_group():
    groups = patients(10, 2)
    label = np.zeros(20, bool)
    label[:6:2] = True  # three patients, each with a normal sample too
    assert effective_clusters(groups, label) == 3
    assert effective_clusters(groups, ~label) == 3
    assert effective_clusters(groups, np.ones(20, bool)) == 0
    draws = np.random.default_rng(0).normal(size=4000)
    plain, few = percentile_interval(draws), percentile_interval(draws, 8)
    assert plain is not None and few is not None
    assert few[0] < plain[0] and plain[1] < few[1]


def test_a_pooled_figure_hangs_on_as_few_groups_as_hold_most_abnormal_places():
    groups, label = patients(20, 2), np.arange(40) % 2 == 0
    alike = effective_clusters(groups, label, np.where(label, 7, 0))
    assert alike == effective_clusters(groups, label) == 20
    one = np.where(label, 1, 0) + 10**6 * (np.arange(40) == 0)
    assert effective_clusters(groups, label, one) == 2  # not 1, of which no interval can be given
    halves = np.where(label, np.where(np.arange(40) < 20, 3, 1), 0)
    assert effective_clusters(groups, label, halves) == (10 * 3 + 10) ** 2 // (10 * 9 + 10)
    assert effective_clusters(groups, label, halves * 1000) == effective_clusters(
        groups, label, halves
    )
    assert effective_clusters(groups, label, np.zeros(40)) == 20
    normal = np.arange(40) >= 34  # three normal groups only
    assert effective_clusters(groups, ~normal, np.where(normal, 0, 1)) == 3


@pytest.mark.parametrize(("sigma", "truth"), [(0.0, 0.6054), (1.0, 0.6281), (1.3, 0.6391)])
def test_intervals_of_pooled_dice_hold_the_truth_however_unequal_lesions_are(sigma, truth):
    """250 studies of 30 patients with one lesion each, of log-normal size, of which a share of
    Beta(2, 2) is found beside 5 places of alarms; with plain counts of groups 90 % at sigma 1.3.

    truth: 2 E[both] / (E[found] + E[true]), of four million patients
    """
    rng, inside = np.random.default_rng(5), 0
    groups, label = patients(30, 2), np.arange(60) % 2 == 0  # a slice with it, one without
    for study in range(250):
        size = np.maximum(1, np.exp(rng.normal(3.5, sigma, 30))).round()
        both = (size * rng.beta(2, 2, 30)).round()
        counts = np.zeros((60, 4))
        counts[:, 0], counts[::2, 1], counts[::2, 3] = 1e3, size, both
        counts[::2, 2] = both + rng.poisson(5, 30)
        draws = bootstrap_overlap_metrics(
            counts, Resamples.from_groups(groups, replicates=400, stream_name=f"{study}")
        )["dice"]
        bounds = percentile_interval(draws, effective_clusters(groups, label, counts[:, 1]))
        inside += bounds is not None and bounds[0] <= truth <= bounds[1]
    assert 0.92 <= inside / 250 <= 0.98


def test_neither_the_order_of_samples_nor_an_increasing_change_moves_a_draw():
    groups = patients(12, 3)
    scores, masks = maps(groups, side=16)
    resamples = Resamples.from_groups(groups, replicates=20)
    plain = bootstrap_pixel_metrics(PixelScores.from_maps(scores, masks), resamples, None)
    order = np.random.default_rng(1).permutation(36)
    other = Resamples.from_groups([groups[i] for i in order], replicates=20)
    moved = bootstrap_pixel_metrics(PixelScores.from_maps(scores[order], masks[order]), other, None)
    grown = bootstrap_pixel_metrics(PixelScores.from_maps(scores * 4, masks), resamples, None)
    for name, values in plain.items():
        np.testing.assert_array_equal(moved[name], values)
        np.testing.assert_array_equal(grown[name], values)
