"""Reduce a sample to what an audit keeps of it: a thumbnail to compare, and simple statistics.

Letters: C channels, S one to three spatial axes, D values of a thumbnail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F

from ...datasets.base import Sample

Array = NDArray[Any]

COARSE_SIZE = {1: 256, 2: 16, 3: 8}
FINE_SIZE = {1: 4096, 2: 64, 3: 24}
"""The largest size of a thumbnail along each axis, by the number of axes."""


@dataclass(frozen=True)
class SampleSummary:
    """What an audit needs of a sample.

    digest: of x, exact to the bit; None for a sample of one constant value
    has_marked_mask: whether its mask marks any pixel
    thumbnail: (D,) float32 with mean 0 and length 1
    cues: statistics that may tell normal from abnormal without any structure, from `compute_cues`

    >>> import torch
    >>> from adbench.benchmark.audit.sample_summary import SampleSummary, summarize
    >>> from adbench.datasets.base import Sample
    >>> summary = summarize(Sample(torch.rand(1, 8, 8), "scan-1", "patient-1", True))
    >>> isinstance(summary, SampleSummary), summary.label, summary.has_marked_mask
    (True, True, False)
    """

    key: str
    group: str
    label: bool
    has_marked_mask: bool
    digest: bytes | None
    thumbnail: Array
    cues: Mapping[str, float]


def summarize(sample: Sample) -> SampleSummary:
    """The summary of a sample.

    >>> import torch
    >>> from adbench.benchmark.audit.sample_summary import summarize
    >>> from adbench.datasets.base import Sample
    >>> summary = summarize(Sample(torch.ones(1, 8, 8), "scan-1", "patient-1", False))
    >>> summary.digest is None, summary.cues["mean intensity"]
    (True, 1.0)
    """
    x = sample.x.detach().cpu().float().contiguous()
    values = x.numpy()
    is_constant = bool((values == values.flat[0]).all())
    return SampleSummary(
        key=sample.key,
        group=sample.group,
        label=bool(sample.label),
        has_marked_mask=sample.mask is not None and bool(sample.mask.any()),
        digest=None if is_constant else blake2b(values.tobytes(), digest_size=16).digest(),
        thumbnail=thumbnail(sample, COARSE_SIZE),
        cues=compute_cues(values, None if sample.roi is None else sample.roi.numpy()),
    )


def thumbnail(sample: Sample, max_sizes: Mapping[int, int]) -> Array:
    """A sample averaged over areas and normalized, (D,), so that gain and offset do not matter.

    max_sizes: the largest size along each axis, by the number of axes

    >>> import torch
    >>> from adbench.benchmark.audit.sample_summary import thumbnail
    >>> from adbench.datasets.base import Sample
    >>> thumbnail(Sample(torch.rand(2, 40, 20), "scan-1", "patient-1", False), {2: 16}).shape
    (512,)
    """
    x = sample.x.detach().cpu().float()
    largest = max_sizes[x.ndim - 1]
    size = [min(largest, extent) for extent in x.shape[1:]]
    if list(x.shape[1:]) != size:
        x = F.interpolate(x[None], size, mode="area")[0]
    return normalize(x.numpy().ravel())


def normalize(values: Array) -> Array:
    """Values (D,) with mean 0 and length 1, float32; all 0 if they are constant.

    >>> import numpy as np
    >>> from adbench.benchmark.audit.sample_summary import normalize
    >>> normalize(np.array([0.0, 2.0, 1.0, 1.0])).round(2).tolist()
    [-0.7099999785423279, 0.7099999785423279, 0.0, 0.0]
    """
    values = values.astype(np.float64)
    values = values - values.mean()
    length = float(np.sqrt(np.square(values).sum()))
    smallest = 1e-6 * np.sqrt(values.size)
    return (values / length if length > smallest else np.zeros_like(values)).astype(np.float32)


def compute_cues(x: Array, roi: Array | None) -> dict[str, float]:
    """Mean intensity, foreground area and noise level of a sample (C, *S); of a signal, power too.

    roi: the foreground (*S); what is not exactly 0 in every channel if None

    - mean intensity: over the foreground
    - brightest 2 %: the mean of the brightest 2 % of all pixels, averaged over channels, which is
      the image score of the baseline `intensity`
    - contrast: the standard deviation over the foreground
    - foreground area: its share of all pixels
    - noise level: the standard deviation of white noise that would have the same median absolute
      second difference along every axis (structure is smooth, noise is not)
    - power: the mean square about the middle of the range, where signals have their zero

    >>> import numpy as np
    >>> from adbench.benchmark.audit.sample_summary import compute_cues
    >>> compute_cues(np.ones((1, 4, 4), np.float32), None)
    {'mean intensity': 1.0, 'brightest 2 %': 1.0, 'contrast': 0.0, 'foreground area': 1.0,
     'noise level': 0.0}
    """
    inside = (x != 0).any(0) if roi is None else roi.astype(bool)
    inside = inside if inside.any() else np.ones(x.shape[1:], bool)
    differences = x.astype(np.float64)
    gain = 1.0
    for axis in range(1, x.ndim):
        if differences.shape[axis] >= 3:
            differences = np.diff(differences, n=2, axis=axis)
            gain *= 6.0  # 1 + 4 + 1, the squared weights of a second difference
    inner = inside[tuple(slice(1, -1) if n >= 3 else slice(None) for n in inside.shape)]
    differences = np.abs(differences[:, inner] if inner.any() else differences)
    brightness = np.sort(x.mean(0, dtype=np.float64), axis=None)
    cues = {
        "mean intensity": float(x[:, inside].mean(dtype=np.float64)),
        "brightest 2 %": float(brightness[-max(1, round(0.02 * brightness.size)) :].mean()),
        "contrast": float(x[:, inside].std(dtype=np.float64)),
        "foreground area": float(inside.mean()),
        "noise level": float(np.median(differences) / 0.6745 / np.sqrt(gain)),
    }
    if x.ndim == 2:
        cues["power"] = float(np.square(x.astype(np.float64) - 0.5).mean())
    return cues
