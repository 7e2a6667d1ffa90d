"""One made-up person, start to end: anatomy, lesion, scan, and the checks on all of them.

Every person has a stream of random numbers for each of anatomy, contrast, lesion and noise, so
that the same brain in the same scanner can be had with and without its lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..transforms.random_fields import Flags, Floats, spread
from .anatomy import TISSUES, Anatomy, Tissue
from .lesions import Lesion, Plan
from .rendering import HEADROOM, Scan, normalise, scale, shrink

ANATOMY, CONTRAST, LESION, NOISE = range(4)
NORMS = ("healthy_ref", "p1p99")
FEWEST = 30.0  # mm² of lesion in a slice: below, the slice is neither normal nor abnormal
TRIES = 20
HALF, QUARTER = 0.5, 0.25  # of a pixel that must be lesion, or of another tissue, to count


@dataclass(frozen=True)
class View:
    """Which grid people are seen on.

    heights: mm, of the slices; mm: pixel width; size: pixels along y and x
    fold: how many times finer than the pixels tissue is computed
    """

    heights: tuple[float, ...]
    size: int
    mm: float
    fold: int = 2

    def axes(self, fold: int = 1) -> tuple[Floats, Floats, Floats]:
        """z upwards, y from front to back, x from left to right."""
        side = (np.arange(self.size * fold) - (self.size * fold - 1) / 2) * self.mm / fold
        side = side.astype(np.float32)
        return np.asarray(self.heights, np.float32), -side, side


class Person(NamedTuple):
    """x, twin: (4, K, H, W) in [0, 1]; twin is x itself in a healthy person
    mask: (K, H, W) bool; roi: (K, H, W) bool, the brain
    """

    x: Floats
    twin: Floats
    mask: Flags
    roi: Flags


def person(seed: int, number: int, plan: Plan | None, view: View, norm: str) -> Person:
    """The person of that number; healthy where there is no plan."""

    def stream(purpose: int) -> np.random.Generator:
        return np.random.default_rng([seed, number, purpose])

    fine, axes = view.axes(view.fold), view.axes()
    anatomy, scan = Anatomy(stream(ANATOMY)), Scan(stream(CONTRAST))
    tissue = anatomy.on(fine)
    roi = shrink(tissue.brain, view.fold) > 0.5
    check_anatomy(tissue, roi)
    noise = stream(NOISE).standard_normal((4, 2, *roi.shape), np.float32)
    image = scan.expose(tissue, fine)
    twin = scan.acquire(image, roi, axes, noise)
    limits = scale(twin, roi)
    top = HEADROOM if norm == "healthy_ref" else 1.0
    if plan is None:
        x = normalise(twin, roi, limits, top=top)
        return Person(x, x, np.zeros_like(roi), roi)
    draws = stream(LESION)
    for _ in range(TRIES):
        lesion = Lesion(draws, plan, anatomy, _levels(view))
        sick, amount = _diseased(lesion, anatomy, tissue, scan, fine)
        enough = HALF if lesion.blobs else QUARTER
        mask = (shrink(amount, view.fold) > enough) & roi
        if _largest(mask, view) < FEWEST:
            continue
        x = scan.acquire(sick, roi, axes, noise)
        made = Person(
            x=normalise(x, roi, limits if norm == "healthy_ref" else scale(x, roi), top=top),
            twin=normalise(twin, roi, limits, top=top),
            mask=mask,
            roi=roi,
        )
        check_diseased(made, view)
        return made
    raise RuntimeError(f"no {plan.kind} of {FEWEST:.0f} mm² in any slice, in {TRIES} draws")


def _diseased(
    lesion: Lesion, anatomy: Anatomy, healthy: Tissue, scan: Scan, axes: Sequence[Floats]
) -> tuple[Floats, Floats]:
    """Ideal intensities with the lesion, and how much of it is where."""
    if lesion.plan.kind in ("ventricle", "cortex"):
        tissue = anatomy.on(axes, lesion.reshape)
        gained = tissue.amount - healthy.amount
        amount = gained[TISSUES.index("fluid" if lesion.plan.kind == "ventricle" else "cortex")]
        return scan.expose(tissue, axes), np.maximum(amount, 0)
    tissue = healthy
    if lesion.mass:
        source = lesion.push(axes)
        moved = np.any(source != spread(axes), axis=0)
        pushed = anatomy.at(source[:, moved])
        tissue = Tissue(*(_with(a, moved, b) for a, b in zip(healthy, pushed, strict=True)))
        tissue = tissue._replace(brain=healthy.brain)  # the skull does not give
    return lesion.paint(scan.expose(tissue, axes), axes, tissue.amount[2], tissue.brain)


def _with(whole: Floats, where: Flags, values: Floats) -> Floats:
    """A copy of `whole` (…, *S) that holds `values` (…, n) in the n places `where` (*S)."""
    copy = whole.copy()
    copy[..., where] = values
    return copy


def _levels(view: View) -> list[float]:
    """Heights that lesions keep to: slices at least 4 mm apart, where there is most brain."""
    levels: list[float] = []
    for height in view.heights:
        if -20 <= height <= 40 and (not levels or height - levels[-1] >= 4):
            levels.append(height)
    return levels


def check_anatomy(tissue: Tissue, roi: Flags) -> None:
    """Raise RuntimeError where a brain is no brain: each check has caught a real mistake."""
    total = tissue.amount.sum(0)
    if not all(np.isfinite(part).all() for part in tissue):
        raise RuntimeError("tissue is not finite")
    if np.abs(total - 1).max() > 1e-3:
        raise RuntimeError(f"tissue sums to {total.min():.4f}..{total.max():.4f}, not to 1")
    for name, amount in zip(TISSUES[:4], tissue.amount, strict=False):
        if (most := amount.max()) < 0.9:
            raise RuntimeError(f"there is nowhere more than {most:.2f} of {name}")
    if not roi.any():
        raise RuntimeError("there is no brain in view")
    if roi[:, [0, -1]].any() or roi[:, :, [0, -1]].any():
        raise RuntimeError("the brain touches the border of the image")


def _largest(mask: Flags, view: View) -> float:
    """Mm² that a mask covers where it covers most."""
    return float(mask.sum((1, 2)).max()) * view.mm**2


def check_diseased(made: Person, view: View) -> None:
    """Raise RuntimeError unless there is a lesion, in the brain, and all values are in range."""
    if (most := _largest(made.mask, view)) < FEWEST:
        raise RuntimeError(f"a lesion covers {most:.0f} mm² in its largest slice, not {FEWEST:.0f}")
    if (made.mask & ~made.roi).any():
        raise RuntimeError("a lesion lies outside the brain")
    for image in (made.x, made.twin):
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise RuntimeError("intensities leave 0..1")
