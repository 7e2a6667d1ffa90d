"""Synthetic anomalies in the calibration samples: a validation that looks at no label.

Half of the samples get a patch of another sample, blended in (foreign patch interpolation, Tan et
al., arXiv:2011.04197), half a blob that is brighter or darker than what it lies on. What a method
detects here chooses its noise level (protocol `level=pseudo`); it is no estimate of how well it
does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from ...datasets.base import Sample, Split
from .metrics.connected_components import Array
from .packed_masks import ConcatenatedMasks, PackedMasks
from .predictions import Predictions

RADIUS_RANGE = (0.06, 0.2)
"""Of an anomaly along each axis, as shares of the sample's extent."""
BLEND_RANGE = (0.3, 0.9)
"""The share of a foreign patch in the middle of an anomaly."""
INTENSITY_CHANGE_RANGE = (0.15, 0.5)
"""How much brighter or darker a blob is in its middle, on the scale [0, 1]."""
BACKGROUND_INTENSITY = 0.05
"""What no channel exceeds is taken for background, where there is no region of interest."""


class SyntheticAnomalies:
    """A split of normal samples, each with one synthetic anomaly.

    The anomalies depend on the samples' keys and contents alone.

    normal: the samples that they are put into

    >>> import torch
    >>> from adbench.benchmark.evaluation.synthetic_anomalies import SyntheticAnomalies
    >>> from adbench.datasets.base import Sample
    >>> split = SyntheticAnomalies([Sample(torch.full((1, 16, 16), 0.5), "a", "a", label=False)])
    >>> sample = split[0]
    >>> sample.label, sample.mask.shape, bool((sample.x[0] != 0.5)[~sample.mask].any())
    (True, torch.Size([16, 16]), False)
    """

    def __init__(self, normal: Split) -> None:
        self.normal = normal

    def __len__(self) -> int:
        return len(self.normal)

    def __getitem__(self, index: int, /) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        sample = self.normal[index]
        draw = _RandomStream(sample.key)
        weight = _lesion_weights(sample, draw)
        if draw.uniform() < 0.5 and len(self) > 1:
            step = 1 + int(draw.uniform() * (len(self) - 1))
            other = self.normal[(index + step) % len(self)].x
            share = draw.uniform_between(*BLEND_RANGE)
        else:
            sign = -1.0 if draw.uniform() < 0.5 else 1.0
            other = (sample.x + sign * draw.uniform_between(*INTENSITY_CHANGE_RANGE)).clamp(0, 1)
            share = 1.0
        blend = torch.from_numpy(weight).float() * share
        x = sample.x * (1 - blend) + other * blend
        mask = torch.from_numpy(weight > 0) & ((x - sample.x).abs() > 1e-3).any(0)
        return replace(
            sample,
            x=x,
            key=f"{sample.key}#pseudo",
            label=True,
            mask=mask,
            tags={},
            counterpart=None,
        )


def _lesion_weights(sample: Sample, stream: _RandomStream) -> Array:
    """The weights of an ellipsoid within the region of interest, (*S): 1 in its middle, 0 at its
    edge."""
    shape = sample.x.shape[1:]
    inside = sample.roi if sample.roi is not None else sample.x.amax(0) > BACKGROUND_INTENSITY
    pixels = np.flatnonzero(inside.numpy())
    index = int(stream.uniform() * (pixels.size or math.prod(shape)))
    centre = np.unravel_index(pixels[index] if pixels.size else index, shape)
    distance = np.zeros(shape)
    for axis, (length, middle) in enumerate(zip(shape, centre, strict=True)):
        radius = max(1.5, length * stream.uniform_between(*RADIUS_RANGE))
        steps = (np.arange(length) - middle) / radius
        distance += (steps**2).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    weight = np.clip(2 * (1 - distance), 0, 1)
    return np.where(inside.numpy(), weight, 0) if pixels.size else weight


class _RandomStream:
    """Numbers in [0, 1) from the stream named by a sample's key."""

    def __init__(self, key: str) -> None:
        seed = blake2b(f"pseudo/{key}".encode(), digest_size=16).digest()
        self._raw = np.random.PCG64(int.from_bytes(seed, "big"))

    def uniform(self) -> float:
        return int(self._raw.random_raw()) / 2**64

    def uniform_between(self, low: float, high: float) -> float:
        return low + (high - low) * self.uniform()


def concatenate_predictions(normal: Predictions, synthetic: Predictions) -> Predictions:
    """Concatenate the predictions of normal samples and of those with synthetic anomalies.

    Their noise level is chosen on this split.

    >>> import numpy as np
    >>> from adbench.benchmark.evaluation.predictions import Predictions
    >>> from adbench.benchmark.evaluation.synthetic_anomalies import concatenate_predictions
    >>> def predictions(label, score):
    ...     return Predictions([str(label)], ["a"], np.array([label]), None, None, None, [{}],
    ...                        np.array([[score]]), None)
    >>> split = concatenate_predictions(predictions(False, 0.1), predictions(True, 0.9))
    >>> split.label.tolist(), split.score.tolist()
    ([False, True], [[0.1, 0.9]])
    """
    size = len(normal.keys)
    mapped = normal.map is not None and synthetic.map is not None
    streamed = normal.streamed or synthetic.streamed
    mask, roi = None, None
    if streamed:
        if synthetic.mask is not None:
            nothing = PackedMasks((size, *synthetic.mask.shape[1:]), synthetic.scratch)
            mask = ConcatenatedMasks(nothing, synthetic.mask)
        if normal.roi is not None and synthetic.roi is not None:
            roi = ConcatenatedMasks(normal.roi, synthetic.roi)
    else:
        if synthetic.mask is not None:
            nothing = np.zeros((size, *synthetic.mask.shape[1:]), bool)
            mask = np.concatenate([nothing, synthetic.mask])
        roi = _concatenate_arrays([normal.roi, synthetic.roi], 0)
    return Predictions(
        keys=[*normal.keys, *synthetic.keys],
        groups=[*normal.groups, *synthetic.groups],
        label=np.concatenate([normal.label, synthetic.label]),
        mask=mask,
        roi=roi,
        spacing=normal.spacing,
        tags=[*normal.tags, *synthetic.tags],
        score=_concatenate_arrays([normal.score, synthetic.score], 1),
        map=_ConcatenatedMaps(normal.map, synthetic.map, size) if mapped else None,
        streamed=streamed,
        scratch=synthetic.scratch,
    )


def _concatenate_arrays(parts: Sequence[Array | None], axis: int) -> Array | None:
    """None where any part is missing."""
    arrays = [part for part in parts if part is not None]
    return np.concatenate(arrays, axis) if len(arrays) == len(parts) else None


class _ConcatenatedMaps:
    """Maps (L, N, *S) of two splits, one after the other; read when they are asked for."""

    def __init__(self, first: Any, second: Any, size: int) -> None:
        self.first, self.second, self.size = first, second, size
        self.shape = (first.shape[0], size + second.shape[1], *first.shape[2:])

    def __getitem__(self, index: tuple[int, slice]) -> Array:
        level, rows = index
        start, stop, _ = rows.indices(self.shape[1])
        parts = [
            self.first[level, min(start, self.size) : min(stop, self.size)],
            self.second[level, max(start - self.size, 0) : max(stop - self.size, 0)],
        ]
        return np.concatenate([np.asarray(part) for part in parts])
