"""Pixel metrics of one sample at a time, against scikit-learn and an exhaustive search."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from adbench.benchmark.evaluation.metrics.per_sample import per_sample_metrics
from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores

SIDE = 24


def maps() -> tuple[np.ndarray, np.ndarray]:
    """Five maps: two with a lesion, one that is all lesion, two without."""
    rng = np.random.default_rng(3)
    masks = np.zeros((5, SIDE, SIDE), bool)
    masks[0, 4:9, 5:12] = masks[1, 15:18, 2:20] = True
    masks[2] = True
    strength = np.array([1, 3, 1, 1, 1])[:, None, None]
    return rng.normal(size=masks.shape) * 0.3 + masks * strength, masks


def between(score: np.ndarray) -> np.ndarray:
    """Where Otsu's method cuts: the most variance between what is below and what is above."""
    low, high = score.min(), score.max()
    steps = np.round((score - low) / (high - low) * 255)
    spread = []
    for at in range(int(steps.max())):
        above, below = steps[steps > at], steps[steps <= at]
        spread.append(above.size * below.size * (above.mean() - below.mean()) ** 2)
    return steps > int(np.argmax(spread))


def test_figures_of_a_sample_are_its_own():
    score, mask = maps()
    result = per_sample_metrics(PixelScores.from_maps(score, mask))
    for i in range(2):
        flat, true = score[i].ravel(), mask[i].ravel()
        assert result["sample_pixel_auroc"][i] == pytest.approx(roc_auc_score(true, flat))
        assert result["sample_pixel_ap"][i] == pytest.approx(average_precision_score(true, flat))
        dice = f1_score(true, between(flat))
        assert result["sample_pixel_dice_otsu"][i] == pytest.approx(dice)
    assert all(np.isnan(values[2:]).all() for values in result.values())


def test_places_outside_the_region_of_interest_have_no_say():
    score, mask = maps()
    roi = np.zeros_like(mask)
    roi[:, 2:20, 1:22] = True
    other = np.where(roi, score, 99.0)
    one, two = (
        per_sample_metrics(PixelScores.from_maps(list(s), list(mask), roi)) for s in (score, other)
    )
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])


def test_a_scale_of_its_own_changes_the_pooled_figure_and_not_the_samples():
    score, mask = maps()
    own = score * np.array([1, 100, 1, 1, 1])[:, None, None] + 7
    one, two = (per_sample_metrics(PixelScores.from_maps(s[:2], mask[:2])) for s in (score, own))
    for name, values in one.items():
        np.testing.assert_allclose(values, two[name])


def test_a_flat_map_finds_nothing():
    _, mask = maps()
    result = per_sample_metrics(PixelScores.from_maps(np.zeros(mask.shape), mask))
    assert result["sample_pixel_auroc"][0] == 0.5 and result["sample_pixel_dice_otsu"][0] == 0
