"""Thresholds of maps: those that few healthy pixels exceed, and the one that pDDPM's code finds."""

from __future__ import annotations

import math

import numpy as np

from .metrics.connected_components import Array
from .metrics.pixel_scores import Pixels


def threshold_exceeded_by(percent: float, values: Array) -> float:
    """The lowest of the values (P,) that at most this many percent of them exceed.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.thresholds import threshold_exceeded_by
    >>> threshold_exceeded_by(5, np.arange(100.0))
    94.0
    """
    at = threshold_rank(percent, values.size)
    return float(np.partition(values, at)[at])


def threshold_rank(percent: float, size: int) -> int:
    """The rank, from 0 on, of the lowest of so many values that at most this percent exceed.

    >>> from adbench.benchmark.evaluation.thresholds import threshold_rank
    >>> threshold_rank(5, 100)
    94
    """
    allowed = math.floor(size * percent / 100 + 1e-9)
    return max(0, size - 1 - allowed)


def bisect_dice_threshold(pixels: Pixels) -> float:
    """A threshold with a high Dice, found as the code of pDDPM does.

    A range begins as 0 to the highest score. Ten times the better of its quarter points says which
    half to go on in, the lower one where they are alike. Returns the best point tried, the last of
    equal ones. The best of all is `val-dice`; this may miss it by a hundredth.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> from adbench.benchmark.evaluation.thresholds import bisect_dice_threshold
    >>> score = np.array([[0.1, 0.2, 0.6, 0.8]])
    >>> 0.2 <= bisect_dice_threshold(PixelScores.from_maps(score, score > 0.5)) < 0.6
    True
    """
    positives, high = 0, -math.inf
    for block in pixels.blocks():
        positives += int(np.count_nonzero(block.truth))
        high = max(high, float(block.score.max(initial=-math.inf)))
    low = 0.0
    best_dice, threshold = -1.0, high
    for _ in range(10):
        quarters = low + (high - low) / 4, high - (high - low) / 4
        called, hits = np.zeros((2, 2), np.int64)
        for block in pixels.blocks():
            for number, quarter in enumerate(quarters):
                above = block.score > np.float64(quarter)
                called[number] += np.count_nonzero(above)
                hits[number] += np.count_nonzero(above & block.truth)
        dice = 2 * hits / (called + positives)
        upper = int(dice[1] > dice[0])
        if dice[upper] >= best_dice:
            best_dice, threshold = float(dice[upper]), quarters[upper]
        middle = (low + high) / 2
        low, high = (middle, high) if upper else (low, middle)
    return threshold
