"""AUPIMO against a loop over thresholds, as the paper defines it."""

from __future__ import annotations

import numpy as np
import pytest

from adbench.benchmark.evaluation.metrics.aupimo import aupimo
from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores


@pytest.mark.parametrize("limits", [(0.001, 0.3), (0.01, 0.1)])
def test_it_is_the_area_that_a_loop_over_thresholds_finds(limits):
    rng = np.random.default_rng(2)
    maps = rng.random((8, 20, 20))
    masks = np.zeros(maps.shape, bool)
    masks[5:, 4:9, 4:9] = True
    maps += 0.4 * masks * rng.random((8, 1, 1))
    label = np.asarray(masks.any((1, 2)))
    values = aupimo(PixelScores.from_maps(maps, masks), label, limits)
    assert np.isnan(values[:5]).all()
    rates, recalls = [], []  # at every threshold, the highest score first
    for threshold in np.sort(np.unique(maps))[::-1]:
        rates.append(np.mean([(m >= threshold).mean() for m in maps[:5]]))
        recalls.append(
            [(m >= threshold)[t].mean() for m, t in zip(maps[5:], masks[5:], strict=True)]
        )
    low, high = np.log(limits)
    steps = np.linspace(low, high, 20001)
    middles = (steps[1:] + steps[:-1]) / 2
    last = np.searchsorted(rates, np.exp(middles), "right") - 1  # the lowest allowed threshold
    heights = np.where((last >= 0)[:, None], np.array(recalls)[last], 0)
    assert values[5:] == pytest.approx(heights.mean(0), abs=1e-3)


def test_regions_of_different_sizes_weigh_alike():
    """A normal image of 2 pixels and one of 4: half of the first is a rate of 1/4."""
    maps = [np.array([0.9, 0.1]), np.array([0.5, 0.1, 0.1, 0.1]), np.array([0.95, 0.6, 0.3])]
    masks = [np.zeros(2, bool), np.zeros(4, bool), np.array([True, True, False])]
    pixels = PixelScores.from_maps(maps, masks)
    values = aupimo(pixels, np.array([False, False, True]), (0.125, 0.5))
    assert values[2] == pytest.approx((1 + np.log(0.5 / 0.25) / np.log(4)) / 2)


def test_limits_are_refused_with_both_numbers():
    with pytest.raises(ValueError, match=r"not 0\.1 and 0\.1"):
        aupimo(PixelScores.from_maps([], []), np.zeros(0, bool), (0.1, 0.1))
