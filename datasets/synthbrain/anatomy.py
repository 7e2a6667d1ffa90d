"""The anatomy of one synthetic brain: the template, deformed and reweighted, as tissue at any
point.

Coordinates are (z, y, x) in mm: up, to the front, to the right; the origin is mid-brain. Nothing
here depends on grids, pixels or lesions, so that a brain with and without a lesion is the same
brain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..transforms.random_fields import Flags, Floats, RandomField, grid_points, smooth_step
from .tissue_maps import VOXEL_MM, distance_to_outside, load_template

TISSUES = ("fluid", "cortex", "white", "deep", "vessel")
ORIGIN_IN_MNI = np.array([10.0, -17.0, 0.0])  # mm from our origin to the template's


class TissueMap(NamedTuple):
    """Tissue at every point of a grid S.

    fractions: (5, *S), of each of TISSUES; they sum to 1
    brain: (*S) 0..1, 1 within the skull
    caps: (*S) 0..1, white matter beside the ventricles' horns, bright in some healthy people
    choroid: (*S) 0..1, the plexus within the ventricles, which takes up contrast agent

    >>> from adbench.datasets.synthbrain.subject import ViewGrid
    >>> axes = ViewGrid((0.0,), size=16, mm=12.0).axes()
    >>> tissue = Anatomy(np.random.default_rng(0)).on_grid(axes)
    >>> tissue.fractions.shape, np.allclose(tissue.fractions.sum(0), 1, atol=1e-3)
    ((5, 1, 16, 16), True)
    """

    fractions: Floats
    brain: Floats
    caps: Floats
    choroid: Floats


class ShapeChange(NamedTuple):
    """A change of shape without new tissue: one ventricle widened, or a patch of cortex thickened.

    side: +1 right, -1 left
    widen: how much the ventricle on that side widens, of order 1
    centre: (z, y, x) in mm of where cortex thickens
    radius: of that place, in mm
    thicken: 0..1, up to about 5 mm

    >>> ShapeChange(side=-1.0, widen=1.2).thicken
    0.0
    """

    side: float = 1.0
    widen: float = 0.0
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: float = 1.0
    thicken: float = 0.0


NO_CHANGE = ShapeChange()


class Anatomy:
    """A random brain; its pose, shape, folds and atrophy are drawn from `rng`.

    >>> from adbench.datasets.synthbrain.subject import ViewGrid
    >>> axes, anatomy = ViewGrid((0.0,), size=32, mm=6.0).axes(), Anatomy(np.random.default_rng(0))
    >>> healthy, widened = anatomy.on_grid(axes), anatomy.on_grid(axes, ShapeChange(widen=1.5))
    >>> fluid = TISSUES.index("fluid")
    >>> bool(widened.fractions[fluid].sum() > healthy.fractions[fluid].sum())
    True
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rotation, self.pitch, self.roll = _clipped_normal(rng, 0.03, 0.08)  # radians
        self.scale = np.exp(_clipped_normal(rng, 0.015, 0.05))
        self.shift = _clipped_normal(rng, 1.0, 3.0)  # mm
        self.bends = [
            (RandomField(rng, 34.0, count=24), RandomField(rng, 10.0, count=32)) for _ in range(3)
        ]
        self.folds = [
            (RandomField(rng, 14.0, count=32), RandomField(rng, 4.5, count=96)) for _ in range(2)
        ]
        self.atrophy = rng.normal(0, 0.25)  # log odds of fluid
        self.ventricles = rng.normal(0, 0.14)
        self.asymmetry = rng.normal(0, 0.06)
        self.sharpness = np.float32(np.exp(rng.normal(0.45, 0.1)))  # undoes averaging 152 people

    def on_grid(self, axes: Sequence[Floats], change: ShapeChange = NO_CHANGE) -> TissueMap:
        """Return the tissue on the grid that three axes span, in mm."""
        return self._compute_tissue(grid_points(axes), lambda field: field.on_grid(axes), change)

    def at_points(self, points: Floats, change: ShapeChange = NO_CHANGE) -> TissueMap:
        """Return the tissue at points (3, *S), in mm."""
        return self._compute_tissue(points, lambda field: field.at_points(points), change)

    def _compute_tissue(
        self, points: Floats, evaluate: Callable[[RandomField], Floats], change: ShapeChange
    ) -> TissueMap:
        template_points = self._bend(points, evaluate)
        brain = _sample_maps(template_points, _template_maps()[:1])[0]
        inside = brain > 0.02  # the rest is fluid: about a third is left to compute
        near_ventricles = _ventricle_proximity(moved_points := template_points[:, inside])
        moved_points = self._widen_ventricles(moved_points, near_ventricles, change)
        ventricle, brain_rim, *tissue_maps = _sample_maps(moved_points, _template_maps()[1:])
        fractions = np.clip(tissue_maps, 1e-4, 1) ** self.sharpness
        coarse_field, fine_field = (evaluate(field)[inside] for field in self.folds[0])
        fractions[0] *= np.exp(
            self.atrophy + (0.5 * coarse_field + 0.4 * fine_field) * (1 - near_ventricles)
        )
        coarse_field, fine_field = (evaluate(field)[inside] for field in self.folds[1])
        fractions[2] *= np.exp(0.4 * coarse_field + 0.32 * fine_field)
        z, y, x = moved_points
        sinus = (
            smooth_step(2.6 - np.abs(x), 0.5)
            * smooth_step(brain_rim - 0.3, 0.05)
            * smooth_step(0.72 - brain_rim, 0.05)
        )
        sinus = sinus * (z > 0) * (np.abs(y) > 25)
        fractions *= (1 - sinus) / fractions.sum(0)
        if change.thicken:
            thickened = smooth_step(
                _gaussian_ball(points[:, inside], change.centre, change.radius) - 0.4, 0.05
            )
            cortex_rim = smooth_step(
                _sample_maps(moved_points, _cortex_proximity())[0] - 0.32 + 0.2 * change.thicken,
                0.02,
            )
            added_cortex = thickened * cortex_rim * fractions[2]
            fractions[1] += added_cortex
            fractions[2] -= added_cortex
        plexus = np.maximum(
            _gaussian_ball(moved_points, (0, -24, 21), 7),
            _gaussian_ball(moved_points, (0, -24, -21), 7),
        )
        caps = (
            fractions[2] * smooth_step(ventricle - 0.12, 0.03) * smooth_step(np.abs(y + 3) - 26, 2)
        )
        choroid = (
            smooth_step(plexus - 0.5, 0.08) * fractions[0] * smooth_step(ventricle - 0.3, 0.05)
        )
        fluid = np.eye(len(TISSUES), 1)
        return TissueMap(
            fractions=_scatter(inside, np.concatenate([fractions, sinus[None]]), fluid),
            brain=smooth_step(brain - 0.5, 0.02),
            caps=_scatter(inside, caps[None])[0],
            choroid=_scatter(inside, choroid[None])[0],
        )

    def _bend(self, points: Floats, evaluate: Callable[[RandomField], Floats]) -> Floats:
        """Return the template coordinates (mm from our origin) of the tissue at `points`."""
        z, y, x = points
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        rotated = (z + self.pitch * y + self.roll * x, cos * y - sin * x, sin * y + cos * x)
        displaced = [
            axis * scale + shift + 1.6 * evaluate(coarse_field) + 0.8 * evaluate(fine_field)
            for axis, scale, shift, (coarse_field, fine_field) in zip(
                rotated, self.scale, self.shift, self.bends, strict=True
            )
        ]
        return np.stack(displaced)

    def _widen_ventricles(
        self, points: Floats, near_ventricles: Floats, change: ShapeChange
    ) -> Floats:
        """Move points towards the ventricles' middle, which makes the ventricles larger."""
        z, y, x = points
        pull = 0.45 * (self.ventricles + self.asymmetry * np.tanh(x / 8)) * near_ventricles
        z_pull = y_pull = np.zeros_like(x)
        if change.widen:
            one_sided = change.widen * near_ventricles * smooth_step(change.side * x - 2, 1.5)
            pull = pull + 0.45 * one_sided
            z_pull, y_pull = 0.30 * one_sided, 0.15 * one_sided
        displaced = (z - z_pull * (z - 10), y - y_pull * (y + 5), x * (1 - np.minimum(pull, 0.8)))
        return np.stack(displaced)


def _ventricle_proximity(points: Floats) -> Floats:
    z, y, x = points
    return np.exp(-((x / 26) ** 2 + ((y + 5) / 46) ** 2 + ((z - 12) / 24) ** 2))


def _gaussian_ball(points: Floats, centre: Sequence[float], radius: float) -> Floats:
    """Return 1 at the centre, about 0.6 at half the radius, near 0 beyond the radius."""
    squared_distance = sum(
        (axis - coordinate) ** 2 for axis, coordinate in zip(points, centre, strict=True)
    )
    return np.exp(-2 * np.asarray(squared_distance) / radius**2)


def _clipped_normal(rng: np.random.Generator, std: float, limit: float) -> Floats:
    """Return three normal draws within +-limit, so that no brain leaves the field of view."""
    return np.clip(rng.normal(0, std, 3), -limit, limit)


def _scatter(inside: Flags, values: Floats, outside: Floats | float = 0.0) -> Floats:
    """Return (n, *S) with `values` (n, m) where `inside` (*S), and `outside` (n, 1) elsewhere."""
    result = np.empty((len(values), *inside.shape))
    result[:, ~inside] = outside
    result[:, inside] = values
    return result


@cache
def _template_maps() -> Floats:
    """Return the template's brain, ventricle surroundings, brain rim, and four tissues."""
    tissue, brain, _ = load_template()
    within = VOXEL_MM * distance_to_outside(brain > 0.5)
    ventricle = ndimage.gaussian_filter(tissue[0] * (within > 24), 3 / VOXEL_MM)
    rim = ndimage.gaussian_filter(brain, 2.0)
    return np.stack([brain, ventricle, rim, *tissue])


@cache
def _cortex_proximity() -> Floats:
    return ndimage.gaussian_filter(load_template().tissue[1:2], (0, *[2.5 / VOXEL_MM] * 3))


def _sample_maps(points: Floats, maps: Floats) -> Floats:
    """Return the values (n, *S) of template maps (n, Z, Y, X) at `points` (3, *S)."""
    offset = (ORIGIN_IN_MNI - load_template().origin).reshape(3, *[1] * (points.ndim - 1))
    index = (points + offset) / VOXEL_MM
    return np.stack(
        [ndimage.map_coordinates(tissue_map, index, np.float64, order=1) for tissue_map in maps]
    )
