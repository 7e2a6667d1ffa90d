"""Pixel metrics of one sample at a time, of which a board has the mean.

As the diffusion papers on slices report them: AUROC and AP of a slice alone, and Dice at the
slice's own threshold (Wolleb et al., MICCAI 2022). They say how well a map ranks the places of one
sample, and nothing of whether maps of different samples can be read on one scale, as pooled
metrics do. Letters: N samples.
"""

from __future__ import annotations

import numpy as np

from .connected_components import Array
from .ranking import PixelScores, Ranking, overlap_metrics

PER_SAMPLE_METRICS = ("sample_pixel_auroc", "sample_pixel_ap", "sample_pixel_dice_otsu")


def per_sample_metrics(pixels: PixelScores) -> dict[str, Array]:
    """Each of EACH, (N,); NaN for samples whose places are all normal, or all abnormal."""
    found = {name: np.full(len(pixels.counts), np.nan) for name in PER_SAMPLE_METRICS}
    ends = np.cumsum(pixels.counts)
    for i, (end, count) in enumerate(zip(ends.tolist(), pixels.counts.tolist(), strict=True)):
        score, truth = pixels.score[end - count : end], pixels.truth[end - count : end]
        ranking = Ranking.from_scores(score, truth)
        if ranking is not None:
            figures = ranking.auroc(), ranking.ap(), _otsu_dice(score, truth)
            for name, figure in zip(PER_SAMPLE_METRICS, figures, strict=True):
                found[name][i] = figure
    return found


def _otsu_dice(score: Array, truth: Array) -> float:
    """Dice of what lies above Otsu's threshold of a sample's own scores (P,), in 256 steps."""
    import cv2

    low, high = float(score.min()), float(score.max())
    if low == high:
        return 0.0
    steps = np.round((score - low) / (high - low) * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(steps, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return overlap_metrics(steps > threshold, truth)["dice"] or 0.0
