"""Generating one synthetic subject: anatomy, lesion, scan, and checks of the result.

Every subject has a separate random stream for each of anatomy, contrast, lesion and noise, so that
the same brain in the same scanner can be rendered with and without its lesion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..transforms.random_fields import Flags, Floats, grid_points
from .anatomy import TISSUES, Anatomy, TissueMap
from .lesions import Lesion, LesionPlan
from .rendering import REFERENCE_LEVEL, Scanner, downsample, intensity_limits, normalise

ANATOMY, CONTRAST, LESION, NOISE = range(4)
NORMS = ("healthy_ref", "p1p99")
MIN_LESION_AREA = 30.0  # mm² of lesion in a slice: below, the slice is neither normal nor abnormal
MAX_DRAWS = 20
# of a pixel that must be lesion, or of another tissue, to count
MIN_LESION_SHARE, MIN_TISSUE_SHARE = 0.5, 0.25


@dataclass(frozen=True)
class ViewGrid:
    """The grid of slices and pixels that subjects are rendered on.

    heights: of the slices in mm
    size: pixels along y and x
    mm: pixel width
    supersampling: tissue is computed on pixels that are this many times finer

    >>> ViewGrid((0.0,), size=4, mm=2.0).axes()[2].tolist()
    [-3.0, -1.0, 1.0, 3.0]
    """

    heights: tuple[float, ...]
    size: int
    mm: float
    supersampling: int = 2

    def axes(self, factor: int = 1) -> tuple[Floats, Floats, Floats]:
        """Return coordinates in mm: z upwards, y from front to back, x from left to right."""
        side = (np.arange(self.size * factor) - (self.size * factor - 1) / 2) * self.mm / factor
        return np.asarray(self.heights, float), -side, side


class Subject(NamedTuple):
    """The rendered images of one subject.

    x: (4, K, H, W) in [0, 1]
    counterpart: like x, without the lesion; x itself for a healthy subject
    mask: (K, H, W) bool, the lesion
    roi: (K, H, W) bool, the brain

    >>> view = ViewGrid((0.0, 6.0), size=64, mm=3.5, supersampling=1)
    >>> subject = make_subject(0, 1, None, view, "healthy_ref")
    >>> subject.x.shape, subject.mask.any(), subject.counterpart is subject.x
    ((4, 2, 64, 64), np.False_, True)
    """

    x: Floats
    counterpart: Floats
    mask: Flags
    roi: Flags


def make_subject(
    seed: int, number: int, plan: LesionPlan | None, view: ViewGrid, norm: str
) -> Subject:
    """Return a subject, the same for the same arguments.

    seed: of the dataset
    number: of the subject
    plan: of the lesion; None for a healthy subject
    view: the grid
    norm: one of NORMS

    Raises RuntimeError if the result fails a check.

    >>> view = ViewGrid((0.0,), size=64, mm=3.5, supersampling=1)
    >>> subject = make_subject(0, 1, LesionPlan("tumour", 1, 1.0), view, "healthy_ref")
    >>> change = np.abs(subject.x - subject.counterpart).max(0)
    >>> bool(change[subject.mask].mean() > change[subject.roi & ~subject.mask].mean())
    True
    """

    def stream(purpose: int) -> np.random.Generator:
        return np.random.default_rng([seed, number, purpose])

    fine_axes, axes = view.axes(view.supersampling), view.axes()
    anatomy, scan = Anatomy(stream(ANATOMY)), Scanner(stream(CONTRAST))
    tissue = anatomy.on_grid(fine_axes)
    roi = downsample(tissue.brain, view.supersampling) > 0.5
    check_anatomy(tissue, roi)
    noise = stream(NOISE).standard_normal((4, 2, *roi.shape), np.float32)
    image = scan.ideal_image(tissue, fine_axes)
    twin = scan.acquire(image, roi, axes, noise)
    limits = intensity_limits(twin, roi)
    upper = REFERENCE_LEVEL if norm == "healthy_ref" else 1.0
    if plan is None:
        x = normalise(twin, roi, limits, top=upper)
        return Subject(x, x, np.zeros_like(roi), roi)
    draws = stream(LESION)
    for _ in range(MAX_DRAWS):
        lesion = Lesion(draws, plan, anatomy, _lesion_heights(view))
        ideal, amount = _with_lesion(lesion, anatomy, tissue, scan, fine_axes)
        threshold = MIN_LESION_SHARE if lesion.blobs else MIN_TISSUE_SHARE
        mask = (downsample(amount, view.supersampling) > threshold) & roi
        if _largest_area(mask, view) < MIN_LESION_AREA:
            continue
        x = scan.acquire(ideal, roi, axes, noise)
        subject = Subject(
            x=normalise(
                x, roi, limits if norm == "healthy_ref" else intensity_limits(x, roi), top=upper
            ),
            counterpart=normalise(twin, roi, limits, top=upper),
            mask=mask,
            roi=roi,
        )
        check_diseased(subject, view)
        return subject
    raise RuntimeError(
        f"no {plan.kind} of {MIN_LESION_AREA:.0f} mm² in any slice, in {MAX_DRAWS} draws"
    )


def _with_lesion(
    lesion: Lesion, anatomy: Anatomy, healthy: TissueMap, scan: Scanner, axes: Sequence[Floats]
) -> tuple[Floats, Floats]:
    """Return ideal intensities with the lesion, and its share of each pixel."""
    if lesion.plan.kind in ("ventricle", "cortex"):
        tissue = anatomy.on_grid(axes, lesion.shape_change)
        increase = tissue.fractions - healthy.fractions
        amount = increase[TISSUES.index("fluid" if lesion.plan.kind == "ventricle" else "cortex")]
        return scan.ideal_image(tissue, axes), np.maximum(amount, 0)
    tissue = healthy
    if lesion.mass_effect:
        source = lesion.displaced_points(axes)
        moved = np.any(source != grid_points(axes), axis=0)
        pushed = anatomy.at_points(source[:, moved])
        tissue = TissueMap(
            *(_replace_points(a, moved, b) for a, b in zip(healthy, pushed, strict=True))
        )
        tissue = tissue._replace(brain=healthy.brain)  # the skull does not give
    return lesion.paint(scan.ideal_image(tissue, axes), axes, tissue.fractions[2], tissue.brain)


def _replace_points(whole: Floats, where: Flags, values: Floats) -> Floats:
    """Return a copy of `whole` (..., *S) with `values` (..., n) at the n points of `where` (*S)."""
    copy = whole.copy()
    copy[..., where] = values
    return copy


def _lesion_heights(view: ViewGrid) -> list[float]:
    """Return the heights of lesions: slices at least 4 mm apart, where there is most brain."""
    heights: list[float] = []
    for height in view.heights:
        if -20 <= height <= 40 and (not heights or height - heights[-1] >= 4):
            heights.append(height)
    return heights


def check_anatomy(tissue: TissueMap, roi: Flags) -> None:
    """Raise RuntimeError if tissue is not plausible; each check has found a real mistake.

    tissue: of a subject
    roi: (K, H, W) bool, the brain

    >>> empty = np.zeros((1, 4, 4))
    >>> check_anatomy(TissueMap(np.zeros((5, 1, 4, 4)), empty, empty, empty), empty > 0)
    Traceback (most recent call last):
    RuntimeError: tissue sums to 0.0000..0.0000, not to 1
    """
    total = tissue.fractions.sum(0)
    if not all(np.isfinite(values).all() for values in tissue):
        raise RuntimeError("tissue is not finite")
    if np.abs(total - 1).max() > 1e-3:
        raise RuntimeError(f"tissue sums to {total.min():.4f}..{total.max():.4f}, not to 1")
    for name, amount in zip(TISSUES[:4], tissue.fractions, strict=False):
        if (maximum := amount.max()) < 0.9:
            raise RuntimeError(f"there is nowhere more than {maximum:.2f} of {name}")
    if not roi.any():
        raise RuntimeError("there is no brain in view")
    if roi[:, [0, -1]].any() or roi[:, :, [0, -1]].any():
        raise RuntimeError("the brain touches the border of the image")


def _largest_area(mask: Flags, view: ViewGrid) -> float:
    """Return the area in mm² that a mask covers in the slice where it is largest."""
    return float(mask.sum((1, 2)).max()) * view.mm**2


def check_diseased(subject: Subject, view: ViewGrid) -> None:
    """Raise RuntimeError unless there is a lesion, inside the brain, and all values are in range.

    subject: with a lesion
    view: its grid

    >>> x, nothing = np.zeros((4, 1, 8, 8)), np.zeros((1, 8, 8), bool)
    >>> check_diseased(Subject(x, x, mask=nothing, roi=~nothing), ViewGrid((0.0,), size=8, mm=2.0))
    Traceback (most recent call last):
    RuntimeError: a lesion covers 0 mm² in its largest slice, not 30
    """
    if (area := _largest_area(subject.mask, view)) < MIN_LESION_AREA:
        raise RuntimeError(
            f"a lesion covers {area:.0f} mm² in its largest slice, not {MIN_LESION_AREA:.0f}"
        )
    if (subject.mask & ~subject.roi).any():
        raise RuntimeError("a lesion lies outside the brain")
    for image in (subject.x, subject.counterpart):
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise RuntimeError("intensities leave 0..1")
