"""Synthetic lesions: their place, their intensities, and how they displace tissue.

Kinds: tumour (oedema, enhancing rim, core, mass effect), ms (several plaques in white matter),
stroke (fluid-like, cortical), hemorrhage (dark on T2, bright on T1), and two that have no unusual
intensity: ventricle (one of a pair, widened) and cortex (thickened in one place).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..transforms.random_fields import Floats, RandomField, grid_points, smooth_step
from .anatomy import NO_CHANGE, Anatomy, ShapeChange

KINDS = ("tumour", "stroke", "ms", "hemorrhage", "ventricle", "cortex")
KIND_CYCLE = (*KINDS[:4], "ventricle", *KINDS[:4], "cortex")
SIZES = ("small", "medium", "large")
CONTRASTS = (0.3, 0.6, 1.0, 1.6)

#                    t1    t2    flair t1ce     as fractions of the brightest healthy tissue
INTENSITIES = {
    "edema": (0.50, 0.85, 0.92, 0.50),
    "rim": (0.62, 0.78, 0.82, 1.15),
    "core": (0.28, 0.92, 0.45, 0.26),
    "ms": (0.62, 0.74, 0.90, 0.63),
    "stroke": (0.22, 0.95, 0.24, 0.22),
    "hemorrhage": (1.10, 0.15, 0.20, 1.10),
}
RADIUS_RANGES = {  # mm, smallest and largest of each tercile
    "tumour": ((9, 15), (15, 22), (22, 30)),
    "stroke": ((9, 15), (15, 22), (22, 30)),
    "ms": ((4, 6), (5, 7.5), (6, 10)),
    "hemorrhage": ((8, 13), (13, 19), (19, 26)),
    "cortex": ((14, 19), (19, 26), (26, 36)),
}
PLAQUE_COUNTS = ((3, 6), (5, 9), (8, 14))
WIDENING_RANGES = ((0.9, 1.2), (1.2, 1.5), (1.5, 1.9))


class LesionPlan(NamedTuple):
    """Kind, size and contrast of a subject's lesion, planned so that all strata have equal size.

    kind: one of KINDS
    size: index into SIZES
    contrast: 1 for the intensities of INTENSITIES, 0 for none

    >>> LesionPlan("ms", 0, 0.6).kind
    'ms'
    """

    kind: str
    size: int
    contrast: float

    @classmethod
    def for_index(cls, index: int) -> LesionPlan:
        """Return the plan of the index-th subject with a lesion.

        Of ten in a row, two have no unusual intensity; each kind goes through all sizes and
        contrasts in turn.
        """
        round_, position = divmod(index, len(KIND_CYCLE))
        kind = KIND_CYCLE[position]
        occurrence = round_ * KIND_CYCLE.count(kind) + KIND_CYCLE[:position].count(kind)
        return cls(kind, occurrence % len(SIZES), CONTRASTS[occurrence % len(CONTRASTS)])


class Blob:
    """An ellipsoid with a bumpy surface.

    rng: draws its shape
    centre: (z, y, x) in mm
    radius: in mm

    >>> blob = Blob(np.random.default_rng(0), np.zeros(3), radius=10.0)
    >>> middle, point = np.zeros(1), np.array([0.0, 40.0])
    >>> (blob.depth((middle, middle, point)) > 0).ravel().tolist()  # its centre, and 40 mm away
    [True, False]
    """

    def __init__(self, rng: np.random.Generator, centre: Floats, radius: float) -> None:
        self.centre, self.radius = centre, radius
        self.coarse, self.fine = (
            RandomField(rng, max(0.75 * radius, 2.5)),
            RandomField(rng, max(0.4 * radius, 2)),
        )
        self.stretch = np.exp(rng.normal(0, 0.18, 3)).astype(np.float32)

    def depth(self, axes: Sequence[Floats], scale: float = 1.0) -> Floats:
        """Return the approximate depth below the surface in mm, negative outside, on a grid."""
        away = [(a - c) * s for a, c, s in zip(axes, self.centre, self.stretch, strict=True)]
        z, y, x = away
        far = np.sqrt(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2)
        bumps = 1 + 0.28 * self.coarse.on_grid(axes) + 0.10 * self.fine.on_grid(axes)
        return scale * self.radius * bumps - far


class Lesion:
    """A lesion of a plan, placed in one anatomy.

    rng: draws place and shape
    plan: kind, size and contrast
    anatomy: of the subject
    heights: in mm, of the slices; a lesion meets at least one of them

    >>> rng, anatomy = np.random.default_rng(0), Anatomy(np.random.default_rng(1))
    >>> lesion = Lesion(rng, LesionPlan("ventricle", size=1, contrast=1.0), anatomy, [0.0])
    >>> lesion.blobs, 1.2 <= lesion.shape_change.widen <= 1.5
    ([], True)
    >>> len(Lesion(rng, LesionPlan("tumour", size=0, contrast=1.0), anatomy, [0.0]).blobs)
    1
    """

    def __init__(
        self, rng: np.random.Generator, plan: LesionPlan, anatomy: Anatomy, heights: Sequence[float]
    ) -> None:
        self.plan = plan
        self.blobs: list[Blob] = []
        self.shape_change, self.mass_effect = NO_CHANGE, 0.0
        strength = 0.5 + 0.5 * min(plan.contrast, 1.0)  # of a change that has no contrast
        if plan.kind == "ventricle":
            widen = rng.uniform(*WIDENING_RANGES[plan.size]) * strength
            self.shape_change = ShapeChange(side=float(rng.choice([-1, 1])), widen=widen)
            return
        count = rng.integers(*PLAQUE_COUNTS[plan.size]) if plan.kind == "ms" else 1
        centres = _lesion_centres(rng, plan.kind, int(count), anatomy, heights)
        low, high = RADIUS_RANGES[plan.kind][plan.size]
        radii = rng.uniform(low, high, len(centres))
        if plan.kind == "cortex":
            z, y, x = (float(v) for v in centres[0])
            self.shape_change = ShapeChange(
                centre=(z, y, x), radius=float(radii[0]), thicken=strength
            )
            return
        self.blobs = [Blob(rng, c, r) for c, r in zip(centres, radii, strict=True)]
        if plan.kind == "tumour":
            self.mass_effect = rng.uniform(0.2, 0.9) * min(plan.contrast, 1)

    def displaced_points(self, axes: Sequence[Floats]) -> Floats:
        """Return (3, K, H, W): where tissue at each grid point was before the mass pushed it."""
        points = grid_points(axes)
        for blob in self.blobs if self.mass_effect else ():
            away = points - blob.centre.reshape(3, 1, 1, 1)
            far = np.sqrt((away**2).sum(0)) + 1e-3
            by = 0.55 * self.mass_effect * blob.radius * np.exp(-((far / (1.6 * blob.radius)) ** 2))
            points = points - np.where(by > 0.02, np.minimum(by, 0.8 * far), 0) * away / far
        return points

    def paint(
        self, image: Floats, axes: Sequence[Floats], white: Floats, brain: Floats
    ) -> tuple[Floats, Floats]:
        """Return the image (4, K, H, W) with the lesion, and the lesion's share of each pixel (K,
        H, W).
        """
        kind, amount = self.plan.kind, np.zeros_like(white)
        visibility = brain * np.minimum(1.2 * white, 1) if kind == "ms" else brain
        for blob in self.blobs:
            layers = {"edema": 1.0, "rim": 0.62, "core": 0.40} if kind == "tumour" else {kind: 1.0}
            for layer, shrink in layers.items():
                coverage = smooth_step(blob.depth(axes, shrink), 0.55) * visibility
                amount = np.maximum(amount, coverage)
                weight = self.plan.contrast * coverage
                target = np.reshape(INTENSITIES[layer], (4, 1, 1, 1))
                image = np.maximum(image + weight * (target - image), 0.03)
        return image, amount


def _lesion_centres(
    rng: np.random.Generator, kind: str, count: int, anatomy: Anatomy, heights: Sequence[float]
) -> Floats:
    """Return centres (count, 3) in tissue where the kind occurs, within 4 mm of a height."""
    side = np.arange(-95.0, 96.0, 5.0)
    axes = (np.asarray(heights, float), side, side)
    tissue = anatomy.on_grid(axes)
    _fluid, cortex, white, deep, _vessel = tissue.fractions
    eligible = {
        "tumour": white + deep > 0.7,
        "stroke": cortex > 0.4,
        "ms": white > 0.75,
        "hemorrhage": (deep > 0.4) | (white > 0.8),
        "cortex": cortex > 0.5,
    }[kind] & (tissue.brain > 0.5)
    eligible_heights = np.flatnonzero(eligible.sum((1, 2)) >= count)
    if not len(eligible_heights):
        raise RuntimeError(f"no level has {count} places for {kind}")
    z = rng.choice(
        eligible_heights, count
    )  # every level alike: where a slice lies shall tell little
    y, x = np.array([rng.choice(np.argwhere(eligible[level])) for level in z]).T
    centres = np.stack([axes[0][z], side[y], side[x]], 1)
    return (centres + rng.uniform(-1, 1, (count, 3)) * (4, 2, 2)).astype(np.float32)
