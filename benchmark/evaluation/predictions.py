"""Predictions of a split from one method.

Letters: L levels, N samples, S one to three spatial axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .metrics.ranking import Array
from .packed_masks import consecutive_runs

BLOCK_SIZE = 2**22
"""Values of maps that are read and post-processed at a time."""


@dataclass(frozen=True)
class Predictions:
    """Scores and maps of a split from one method, with the ground truth.

    keys, groups, tags: one per sample           label: (N,) bool
    mask, roi: (N, *S) bool, an array or of packed_masks.py, or None
    spacing: mm per step, or None
    score: (L, N) or None                        map: (L, N, *S) float32 or None; may be on disk,
                                                 for only [l, i:j] is ever read
    boxes: of each sample, in place of masks; None where nobody drew boxes
    psnr, ssim: (L, N) of reconstructions of normal samples, NaN for others; None without any
    streamed: whether maps and masks are too many for memory: they are read in blocks, one level at
        a time, and masks and regions may be on disk. Every metric is the same
    scratch: folder of temporary files; None for the system's

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> split = Predictions(
    ...     keys=["a", "b"], groups=["patient 1", "patient 1"], label=np.array([False, True]),
    ...     mask=None, roi=None, spacing=None, tags=[{}, {"lesion": "stroke"}],
    ...     score=np.array([[0.1, 0.9], [0.3, 0.2]]), map=None)
    >>> split.score.shape  # of two levels and two samples
    (2, 2)
    """

    keys: list[str]
    groups: list[str]
    label: Array
    mask: Any
    roi: Any
    spacing: tuple[float, ...] | None
    tags: list[dict[str, str]]
    score: Array | None
    map: Any
    psnr: Array | None = None
    ssim: Array | None = None
    boxes: list[tuple[tuple[int, ...], ...]] | None = None
    streamed: bool = False
    scratch: Path | None = None

    def read_maps(self, index: int, samples: Any) -> Array:
        """Maps of some samples at one level, (n, *S) float32; from disk, only these are read.

        index: of the level among those predicted
        samples: a slice, or indices (n,)
        """
        if isinstance(samples, slice):
            return np.asarray(self.map[index, samples], np.float32)
        runs = [
            np.asarray(self.map[index, int(samples[i]) : int(samples[i]) + j - i], np.float32)
            for i, j in consecutive_runs(samples)
        ]
        return runs[0] if len(runs) == 1 else np.concatenate(runs)
