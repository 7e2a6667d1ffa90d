"""Made-up lesions in held-out normal samples: a validation that looks at no label.

Half of the samples get a patch of another sample, blended in (foreign patch interpolation, Tan et
al., arXiv:2011.04197), half a blob that is brighter or darker than what it lies on. What a method
finds here chooses its noise level (protocol `level=pseudo`); it is no estimate of how well it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch

from ...datasets.base import Sample
from .metrics.connected_components import Array
from .predictions import Predictions

RADIUS_RANGE = (0.06, 0.2)
"""Of a lesion along each axis, as shares of the sample's extent."""
BLEND_RANGE = (0.3, 0.9)
"""How much of a foreign patch there is in the middle of a lesion."""
INTENSITY_CHANGE_RANGE = (0.15, 0.5)
"""How much brighter or darker a blob is in its middle, on the scale [0, 1]."""
BACKGROUND_INTENSITY = 0.05
"""What no channel exceeds is taken for background, where there is no region of interest."""


class SyntheticAnomalies:
    """A split of normal samples, each with one lesion. It depends on keys and contents alone."""

    def __init__(self, normal: Any) -> None:
        self.normal = normal

    def __len__(self) -> int:
        return len(self.normal)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        sample = self.normal[index]
        draw = _RandomStream(sample.key)
        weight = lesion_weights(sample, draw)
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


def lesion_weights(sample: Sample, stream: _RandomStream) -> Array:
    """An ellipsoid within the region of interest, (*S): 1 in its middle, 0 at its edge."""
    shape = sample.x.shape[1:]
    inside = sample.roi if sample.roi is not None else sample.x.amax(0) > BACKGROUND_INTENSITY
    places = np.flatnonzero(inside.numpy())
    at = int(stream.uniform() * (places.size or math.prod(shape)))
    centre = np.unravel_index(places[at] if places.size else at, shape)
    distance = np.zeros(shape)
    for axis, (length, middle) in enumerate(zip(shape, centre, strict=True)):
        radius = max(1.5, length * stream.uniform_between(*RADIUS_RANGE))
        steps = (np.arange(length) - middle) / radius
        distance += (steps**2).reshape([-1 if k == axis else 1 for k in range(len(shape))])
    weight = np.clip(2 * (1 - distance), 0, 1)
    return np.where(inside.numpy(), weight, 0) if places.size else weight


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
    """Normal samples as they are and with lesions, as one split to choose on."""
    size = len(normal.keys)
    mapped = normal.map is not None and synthetic.map is not None
    mask = None
    if synthetic.mask is not None:
        mask = np.concatenate([np.zeros((size, *synthetic.mask.shape[1:]), bool), synthetic.mask])
    return Predictions(
        keys=[*normal.keys, *synthetic.keys],
        groups=[*normal.groups, *synthetic.groups],
        label=np.concatenate([normal.label, synthetic.label]),
        mask=mask,
        roi=_concatenate_arrays([normal.roi, synthetic.roi], 0),
        spacing=normal.spacing,
        tags=[*normal.tags, *synthetic.tags],
        score=_concatenate_arrays([normal.score, synthetic.score], 1),
        map=_ConcatenatedMaps(normal.map, synthetic.map, size) if mapped else None,
    )


def _concatenate_arrays(parts: Sequence[Array | None], axis: int) -> Array | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis) if len(known) == len(parts) else None


class _ConcatenatedMaps:
    """Maps of two splits, one after the other; read where they are asked for."""

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
