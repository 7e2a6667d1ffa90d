"""Metrics of volumes against loops over stacks that were written for these tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score

from adbench.benchmark.evaluation.metrics.hole_filling import fill_holes
from adbench.benchmark.evaluation.metrics.per_volume import (
    best_volume_dice,
    healthy_volume_rates,
    per_volume_metrics,
)
from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
from adbench.benchmark.evaluation.metrics.ranking import overlap_counts

GROUPS = ["b", "a", "b", "c", "a", "b", "d"]  # c has no lesion


@pytest.fixture
def volumes() -> tuple[np.ndarray, np.ndarray]:
    """Maps and masks of seven slices, rounded so that scores are tied."""
    rng = np.random.default_rng(3)
    maps = rng.random((7, 9, 8)).round(2)
    masks = rng.random((7, 9, 8)) < 0.2
    masks[[0, 3]] = False
    return maps + 0.3 * masks, masks


def by_patient(array: np.ndarray, name: str) -> np.ndarray:
    return np.concatenate([array[i].ravel() for i in range(7) if GROUPS[i] == name])


def test_each_volume_is_measured_as_a_loop_measures_it(volumes):
    maps, masks = volumes
    pixels = PixelScores.from_maps(maps, masks)
    metrics = per_volume_metrics(pixels, GROUPS, overlap_counts(pixels, pixels.score > 0.7))
    for name in "abcd":
        first = GROUPS.index(name)
        score, truth = by_patient(maps, name), by_patient(masks, name)
        values = [metrics[f"volume_{m}"][first] for m in ("ap", "dice", "sensitivity", "precision")]
        if not truth.any():
            assert np.isnan(values).all()
            continue
        hits = sum(s > 0.7 and t for s, t in zip(score, truth, strict=True))
        called = sum(s > 0.7 for s in score)
        expected = [average_precision_score(truth, score), 2 * hits / (called + truth.sum())]
        assert values == pytest.approx([*expected, hits / truth.sum(), hits / called])
    others = [i for i in range(7) if i not in {GROUPS.index(name) for name in "abcd"}]
    assert all(np.isnan(values[others]).all() for values in metrics.values())


def test_the_best_mean_dice_is_that_of_a_search_over_every_threshold(volumes):
    maps, masks = volumes

    def mean_dice(threshold: float) -> float:
        dices = []
        for name in "abd":
            called, truth = by_patient(maps, name) > threshold, by_patient(masks, name)
            dices.append(2 * (called & truth).sum() / (called.sum() + truth.sum()))
        return float(np.mean(dices))

    dice, threshold = best_volume_dice(PixelScores.from_maps(maps, masks), GROUPS)
    assert threshold is not None and dice == pytest.approx(mean_dice(threshold))
    assert dice == pytest.approx(max(mean_dice(t) for t in [-1.0, *np.unique(maps)]))


def test_of_many_scores_quantiles_do_nearly_as_well(monkeypatch, volumes):
    pixels = PixelScores.from_maps(*volumes)
    best = best_volume_dice(pixels, GROUPS)[0]
    monkeypatch.setattr("adbench.benchmark.evaluation.metrics.per_volume.MAX_THRESHOLDS", 40)
    assert best is not None and 0.98 * best < (best_volume_dice(pixels, GROUPS)[0] or 0) <= best


def test_without_a_lesion_there_is_nothing_to_measure(volumes):
    pixels = PixelScores.from_maps(volumes[0], np.zeros((7, 9, 8), bool))
    assert best_volume_dice(pixels, GROUPS) == (None, None)
    assert np.isnan(per_volume_metrics(pixels, GROUPS, None)["volume_ap"]).all()


def test_a_patient_with_nothing_positive_has_precision_0(volumes):
    pixels = PixelScores.from_maps(*volumes)
    metrics = per_volume_metrics(
        pixels, GROUPS, overlap_counts(pixels, np.zeros(pixels.truth.size, bool))
    )
    assert metrics["volume_precision"][0] == metrics["volume_dice"][0] == 0


def test_false_positives_of_healthy_volumes_are_those_of_a_loop(volumes):
    maps, masks = volumes
    pixels = PixelScores.from_maps(maps, masks)
    rates = healthy_volume_rates(GROUPS, overlap_counts(pixels, pixels.score > 0.7))
    assert rates[GROUPS.index("c")] == np.mean([value > 0.7 for value in by_patient(maps, "c")])
    assert np.isnan(np.delete(rates, GROUPS.index("c"))).all()


@pytest.mark.parametrize("shape", [(30,), (12, 14), (6, 7, 8), (2, 5), (1, 9, 9)])
def test_a_filled_map_is_filled_at_every_threshold(shape):
    image = np.random.default_rng(0).integers(0, 6, shape).astype(np.float32)
    filled = fill_holes(image)
    for threshold in range(6):
        expected = ndimage.binary_fill_holes(image > threshold)
        assert ((filled > threshold) == expected).all()
