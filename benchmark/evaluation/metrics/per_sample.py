"""Pixel metrics of one sample at a time, of which the leaderboard shows the mean.

As the diffusion papers on slices report them: AUROC and AP of a slice alone, and Dice at the
slice's own threshold (Wolleb et al., MICCAI 2022). They say how well a map ranks the pixels of one
sample, and nothing of whether maps of different samples can be read on one scale, as pooled
metrics do. Letters: N samples.
"""

from __future__ import annotations

import numpy as np

from .connected_components import Array
from .pixel_scores import Pixels
from .ranking import overlap_metrics
from .ranking_curves import Ranking

PER_SAMPLE_METRICS = ("sample_pixel_auroc", "sample_pixel_ap", "sample_pixel_dice_otsu")


def per_sample_metrics(pixels: Pixels) -> dict[str, Array]:
    """Pixel AUROC, AP and Dice at Otsu's threshold of each sample by itself, (N,) each.

    Higher is better. NaN for samples whose pixels are all normal, or all abnormal: these do not
    count in a mean. A map without any contrast has Dice 0.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.metrics.per_sample import per_sample_metrics
    >>> from adbench.benchmark.evaluation.metrics.pixel_scores import PixelScores
    >>> maps = np.array([[0.1, 0.2, 0.9, 0.8], [0.5, 0.1, 0.2, 0.3]])
    >>> masks = np.array([[0, 0, 1, 1], [0, 0, 0, 0]], bool)
    >>> for name, values in per_sample_metrics(PixelScores.from_maps(maps, masks)).items():
    ...     print(name, values.tolist())
    sample_pixel_auroc [1.0, nan]
    sample_pixel_ap [1.0, nan]
    sample_pixel_dice_otsu [1.0, nan]
    """
    metrics = {name: np.full(len(pixels.counts), np.nan) for name in PER_SAMPLE_METRICS}
    i = 0
    for block in pixels.blocks():
        first = 0
        for last in np.cumsum(block.counts).tolist():
            score, truth = block.score[first:last], block.truth[first:last]
            ranking = Ranking.from_scores(score, truth) if truth.any() else None
            if ranking is not None:
                values = ranking.auroc(), ranking.ap(), _otsu_dice(score, truth)
                for name, value in zip(PER_SAMPLE_METRICS, values, strict=True):
                    metrics[name][i] = value
            i, first = i + 1, last
    return metrics


def _otsu_dice(score: Array, truth: Array) -> float:
    """Dice of the pixels above Otsu's threshold of a sample's own scores (P,), in 256 steps."""
    import cv2

    low, high = float(score.min()), float(score.max())
    if low == high:
        return 0.0
    steps = np.round((score - low) / (high - low) * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(steps, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return overlap_metrics(steps > threshold, truth)["dice"] or 0.0
