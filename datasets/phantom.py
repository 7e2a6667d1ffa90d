"""Phantom: synthetic heads and signals in one, two or three axes; no files, fast enough for tests.

A second generator beside SynthBrain, to see whether a ranking of methods holds on other data.
The composition of the 2-D heads follows our own measurements of what a small diffusion model can
learn in a minute: free pose, one to three soft blobs of either sign, about 14 % of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, NamedTuple

import numpy as np
import torch
from msgspec import Meta

from .base import Count, Dataset, Natural, Sample, Spec, Split
from .transforms.quantisation import quantise
from .transforms.random_fields import Flags, Floats, RandomField, grid_points, smooth_step

ROLES = ("train", "train-abnormal", "held_out", "val", "val-abnormal", "test", "test-abnormal")
ANATOMY, ANOMALY, NOISE = range(3)

#           fluid grey white nuclei, one row a channel; rows come round again after four
CONTRASTS = (
    (0.10, 0.46, 0.80, 0.62),
    (0.90, 0.55, 0.30, 0.42),
    (0.10, 0.70, 0.42, 0.52),
    (0.2, 0.4, 0.6, 0.7),
)
NOISE_LEVEL = 0.02

Shape = Annotated[Sequence[Annotated[int, Meta(ge=8)]], Meta(min_length=1, max_length=3)]

Size = Annotated[int, Meta(ge=0, le=1_000_000)]
"""Samples of a split; each has a name, which takes memory."""


class Phantom(Dataset):
    """Synthetic heads or signals, drawn when they are first read.

    shape: (L,) for signals, (H, W) or (D, H, W) for heads
    channels: views of the same head, in different contrasts; of the same tones, at other gains
    train, calibration: normal samples; abnormal: those that train(labelled=True) adds
    val, test: samples of each kind, normal and abnormal

    >>> Phantom(shape=(16, 16)).spec.shape
    (16, 16)
    """

    synthetic: ClassVar[bool] = True

    def __init__(
        self,
        *,
        shape: Shape = (64, 64),
        channels: Count = 1,
        train: Size = 1024,
        abnormal: Size = 256,
        held_out: Size = 64,
        val: Size = 32,
        test: Size = 64,
        seed: Natural = 0,
    ) -> None:
        if not 1 <= len(shape) <= 3 or min(shape) < 8:
            raise ValueError(f"shape is one to three sizes from 8 on, not {tuple(shape)}")
        if channels < 1 or min(train, abnormal, held_out, val, test) < 0:
            raise ValueError("channels is at least 1, and counts are at least 0")
        self.spec = Spec(channels=channels, shape=tuple(shape), labels=abnormal > 0)
        self.seed = seed
        self.counts: dict[str, int] = dict(
            zip(ROLES, (train, abnormal, held_out, val, val, test, test), strict=True)
        )

    def train(self, *, labelled: bool = False) -> Split:
        roles = ("train", "train-abnormal") if labelled else ("train",)
        return self._draw_roles(*roles, masks=False)

    def calibration(self) -> Split:
        return self._draw_roles("held_out", masks=False)

    def val(self) -> Split:
        return self._draw_roles("val", "val-abnormal")

    def test(self) -> Split:
        return self._draw_roles("test", "test-abnormal")

    def _draw_roles(self, *roles: str, masks: bool = True) -> DrawnSplit:
        names = [(role, i) for role in roles for i in range(self.counts[role])]
        return DrawnSplit(self.spec, self.seed, names, masks=masks)


class DrawnSplit:
    """Samples that are drawn at first access and then cached.

    >>> split = Phantom(shape=(16,), train=3).train()
    >>> len(split), split[0].key, split[0] is split[0]  # drawn once
    (3, 'train/00000', True)
    """

    def __init__(
        self, spec: Spec, seed: int, names: Sequence[tuple[str, int]], *, masks: bool
    ) -> None:
        self.spec, self.seed, self.names, self.masks = spec, seed, names, masks
        self._cache: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int, /) -> Sample:
        index = range(len(self))[index]
        if index not in self._cache:
            self._cache[index] = draw_sample(
                self.spec, self.seed, *self.names[index], masks=self.masks
            )
        return self._cache[index]


def draw_sample(spec: Spec, seed: int, role: str, index: int, *, masks: bool = True) -> Sample:
    """Return a sample, which depends on the arguments only, not on earlier draws.

    spec: channels and shape
    seed: of the dataset
    role: of the sample; another role has other samples
    index: of the sample in its role
    masks: false leaves mask and healthy counterpart out, as for training samples

    >>> spec = Spec(channels=1, shape=(16, 16), labels=False)
    >>> first, again = (draw_sample(spec, 0, "test-abnormal", 5) for _ in range(2))
    >>> torch.equal(first.x, again.x), first.label, first.tags == again.tags
    (True, True, True)
    """

    def stream(purpose: int) -> np.random.Generator:
        return np.random.default_rng([seed, ROLES.index(role), index, purpose])

    axes = tuple(np.linspace(-1, 1, size) for size in spec.shape)
    make = _draw_signal if len(axes) == 1 else _draw_head
    twin, roi = make(stream(ANATOMY), axes, spec.channels)
    label = role.endswith("abnormal")
    mark = _draw_anomaly(stream(ANOMALY), axes, roi) if label else None
    noise = NOISE_LEVEL * stream(NOISE).standard_normal(twin.shape, np.float32)
    x = twin if mark is None else twin + mark.change
    x, twin = (
        torch.from_numpy(quantise(np.clip(image + noise * roi, 0, 1))) for image in (x, twin)
    )
    mask = np.zeros(spec.shape, bool) if mark is None else mark.mask
    return Sample(
        x=x,
        key=f"{role}/{index:05d}",
        group=f"{role}/{index:05d}",
        label=label,
        mask=torch.from_numpy(mask) if masks else None,
        roi=torch.from_numpy(roi),
        tags={} if mark is None else mark.tags,
        counterpart=twin if masks else None,
    )


def _draw_head(
    rng: np.random.Generator, axes: Sequence[Floats], channels: int
) -> tuple[Floats, Flags]:
    """Return a head in random pose, (C, *S), and its region, (*S) bool."""
    n = len(axes)
    points = grid_points(axes)
    angle = rng.normal(0, 0.2)
    cos, sin = np.cos(angle), np.sin(angle)
    y, x = points[-2].copy(), points[-1].copy()
    points[-2], points[-1] = cos * y - sin * x, sin * y + cos * x
    for i in range(n):
        points[i] += rng.normal(0, 0.04) + 0.04 * RandomField(rng, 0.6, count=16, axes=n).on_grid(
            axes
        )
        points[i] /= rng.uniform(0.92, 1.08)
    folds = RandomField(rng, 0.16, count=48, axes=n).on_grid(axes)
    half = np.array([0.72, 0.84, 0.68][-n:], np.float32)  # of the head: up, forwards, sideways

    def inside(centre: Sequence[float], radii: Sequence[float]) -> Floats:
        """Distance below an ellipsoid's surface, about, in halves of the image."""
        away = [(p - c) / r for p, c, r in zip(points, centre[-n:], radii[-n:], strict=True)]
        return (1 - np.sqrt(sum(np.square(a) for a in away) + 1e-6)) * min(radii[-n:])

    depth = inside((0, 0, 0), (0.72, *half[-2:]))
    roi = depth > 0
    soft = 1.5 / min(len(axis) for axis in axes)
    white = smooth_step(depth - 0.16 + 0.05 * folds, soft)
    grey = smooth_step(depth - 0.05 + 0.02 * folds, soft) * (1 - white)
    wide = rng.uniform(0.8, 1.25)
    chambers, nuclei = (
        smooth_step(np.maximum(*(inside((0.05, back, side), radii) for side in sides)), soft)
        for back, sides, radii in (
            (0.02, (-0.10, 0.10), (0.16, 0.24 * wide, 0.055 * wide)),
            (-0.08, (-0.26, 0.26), (0.15, 0.17, 0.09)),
        )
    )
    nuclei = nuclei * (1 - chambers)
    grey, white = (tissue * (1 - chambers) * (1 - nuclei) for tissue in (grey, white))
    share = np.stack([1 - grey - white - nuclei, grey, white, nuclei])
    vary = np.exp(rng.normal(0, 0.05, (channels, 4)))
    contrast = np.array([CONTRASTS[c % len(CONTRASTS)] for c in range(channels)]) * vary
    texture = 1 + 0.06 * RandomField(rng, 0.12, count=32, axes=n).on_grid(axes)
    texture *= np.exp(0.08 * RandomField(rng, 0.9, count=12, axes=n).on_grid(axes))
    image = np.tensordot(contrast, share, 1) * texture
    return image * roi, roi


def _draw_signal(
    rng: np.random.Generator, axes: Sequence[Floats], channels: int
) -> tuple[Floats, Flags]:
    """Return three tones near 3, 5 and 9 periods with slow envelopes, (C, L), and its roi."""
    (time,) = axes
    turns = np.array([3, 5, 9]) * np.exp(rng.normal(0, 0.03, 3))
    phase = rng.uniform(0, 2 * np.pi, 3)
    gain = np.array([0.14, 0.09, 0.05]) * np.exp(rng.normal(0, 0.1, (channels, 3)))
    tones = np.cos(np.pi * turns[:, None] * time + phase[:, None])
    swell = 1 + 0.1 * RandomField(rng, 0.7, count=16, axes=1).on_grid(axes)
    image = 0.5 + gain @ tones * swell
    return image, np.ones(len(time), bool)


class Anomaly(NamedTuple):
    """An anomaly. change: (*S), added to every channel; mask: (*S) bool

    >>> sample = draw_sample(Spec(1, (32, 32), labels=False), 0, "test-abnormal", 0)
    >>> change = (sample.x - sample.counterpart)[0].abs()
    >>> bool(change[sample.mask].mean() > change[~sample.mask].mean())
    True
    """

    change: Floats
    mask: Flags
    tags: dict[str, str]


def _draw_anomaly(rng: np.random.Generator, axes: Sequence[Floats], roi: Flags) -> Anomaly:
    """Return one to three soft blobs (bursts on a signal) of either sign, about 14 % of the roi."""
    n, points = len(axes), grid_points(axes)
    count = int(rng.integers(1, 4))
    fraction = rng.uniform(0.08, 0.20)
    ball = {1: 2.0, 2: np.pi, 3: 4 * np.pi / 3}[n]  # of radius 1; the image is 2 wide
    radius = (fraction * roi.mean() * 2**n / count / ball) ** (1 / n)
    sign = float(rng.choice([-1, 1]))
    strength = float(rng.uniform(0.3, 0.6))
    places = np.argwhere(roi)
    cover = np.zeros(roi.shape)
    for place in rng.choice(places, count):
        centre = np.array([axis[i] for axis, i in zip(axes, place, strict=True)], np.float32)
        stretch = np.exp(rng.normal(0, 0.15, n)).astype(np.float32)
        away = [(p - c) * s for p, c, s in zip(points, centre, stretch, strict=True)]
        far = np.sqrt(sum(np.square(a) for a in away) + 1e-6)
        bumps = 1 + 0.15 * RandomField(rng, max(0.7 * radius, 0.05), count=16, axes=n).on_grid(axes)
        cover = np.maximum(cover, smooth_step(radius * bumps - far, 0.2 * radius))
    cover *= roi
    carrier = 1.0
    if n == 1:  # a burst faster than any tone
        carrier = np.cos(np.pi * rng.uniform(16, 24) * axes[0] + rng.uniform(0, 2 * np.pi))
    mask = cover > 0.5
    if not mask.any():
        mask = cover >= cover.max()  # narrower than a pixel: the one that it covers most
    size = ("small", "medium", "large")[min(int((fraction - 0.08) / 0.04), 2)]
    tags = {
        "lesion": "burst" if n == 1 else "bright" if sign > 0 else "dark",
        "contrast": "low" if strength < 0.45 else "high",
        "size": size,
    }
    change = sign * strength * (0.5 if n == 1 else 1) * cover * carrier
    return Anomaly(change, mask, tags)
