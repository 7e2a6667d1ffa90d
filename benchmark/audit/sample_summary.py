"""A sample reduced to what an audit keeps of it: small pictures to compare, and cheap cues.

Letters: C channels, S one to three spatial axes, D values of a small picture.
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
"""Places along each axis that a picture keeps at most, by the number of axes."""


@dataclass(frozen=True)
class SampleSummary:
    """digest: of x, to the last bit; None of a sample that holds one value only
    has_marked_mask: whether its mask marks anything. thumbnail: (D,) float32 of unit length, mean 0
    cues: what could tell normal from abnormal without looking at any structure
    """

    key: str
    group: str
    label: bool
    has_marked_mask: bool
    digest: bytes | None
    thumbnail: Array
    cues: Mapping[str, float]


def summarize(sample: Sample) -> SampleSummary:
    x = sample.x.detach().cpu().float().contiguous()
    raw = x.numpy()
    constant = bool((raw == raw.flat[0]).all())
    return SampleSummary(
        key=sample.key,
        group=sample.group,
        label=bool(sample.label),
        has_marked_mask=sample.mask is not None and bool(sample.mask.any()),
        digest=None if constant else blake2b(raw.tobytes(), digest_size=16).digest(),
        thumbnail=thumbnail(sample, COARSE_SIZE),
        cues=compute_cues(raw, None if sample.roi is None else sample.roi.numpy()),
    )


def thumbnail(sample: Sample, max_sizes: Mapping[int, int]) -> Array:
    """x averaged over areas, then made (D,) with mean 0 and length 1; all 0 if it is constant.

    So neither gain nor offset matters, and the noise of single pixels little.
    """
    x = sample.x.detach().cpu().float()
    most = max_sizes[x.ndim - 1]
    size = [min(most, extent) for extent in x.shape[1:]]
    if list(x.shape[1:]) != size:
        x = F.interpolate(x[None], size, mode="area")[0]
    return normalize(x.numpy().ravel())


def normalize(values: Array) -> Array:
    """(D,) with its mean taken away and of length 1; 0 if nothing is left."""
    values = values.astype(np.float64)
    values = values - values.mean()
    length = float(np.sqrt(np.square(values).sum()))
    small = 1e-6 * np.sqrt(values.size)
    return (values / length if length > small else np.zeros_like(values)).astype(np.float32)


def compute_cues(x: Array, roi: Array | None) -> dict[str, float]:
    """Of x (C, *S): mean intensity, foreground area and noise level; of a signal, power too.

    mean intensity: over the foreground
    foreground: the roi, or what is not exactly 0 in every channel; area is its share of S
    noise level: the standard deviation of white noise that would have the same median absolute
        second difference along every axis (structure is smooth, noise is not)
    power: the mean square about the middle of the range, where signals have their zero
    """
    inside = (x != 0).any(0) if roi is None else roi.astype(bool)
    inside = inside if inside.any() else np.ones(x.shape[1:], bool)
    rough = x.astype(np.float64)
    gain = 1.0
    for axis in range(1, x.ndim):
        if rough.shape[axis] >= 3:
            rough = np.diff(rough, n=2, axis=axis)
            gain *= 6.0  # 1 + 4 + 1, the squared weights of a second difference
    inner = inside[tuple(slice(1, -1) if n >= 3 else slice(None) for n in inside.shape)]
    rough = np.abs(rough[:, inner] if inner.any() else rough)
    found = {
        "mean intensity": float(x[:, inside].mean(dtype=np.float64)),
        "foreground area": float(inside.mean()),
        "noise level": float(np.median(rough) / 0.6745 / np.sqrt(gain)),
    }
    if x.ndim == 2:
        found["power"] = float(np.square(x.astype(np.float64) - 0.5).mean())
    return found
