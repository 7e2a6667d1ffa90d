"""One made-up person's brain: the template, bent and re-weighed, as tissue at any point.

Coordinates are (z, y, x) in mm: up, to the front, to the right; the origin is mid-brain. Nothing
here knows of grids, pixels or lesions, so that a brain with and without one is the same brain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..transforms.random_fields import Flags, Floats, Waves, spread, step
from .tissue_maps import STEP, depth, load

TISSUES = ("fluid", "cortex", "white", "deep", "vessel")
TO_MNI = np.array([10.0, -17.0, 0.0], np.float32)  # mm from our origin to the template's


class Tissue(NamedTuple):
    """What is where.

    amount: (5, *S) shares that sum to 1, in the order of TISSUES
    brain: (*S) 1 within the skull
    caps: (*S) 0..1, white matter beside the ventricles' horns, bright in some healthy people
    choroid: (*S) 0..1, the plexus within the ventricles, which takes up contrast agent
    """

    amount: Floats
    brain: Floats
    caps: Floats
    choroid: Floats


class Reshape(NamedTuple):
    """A change of form with no new tissue: one ventricle widened, or a patch of cortex thickened.

    side: +1 right, -1 left; widen: of order 1
    centre: (z, y, x) and radius in mm of where cortex thickens; thicken: 0..1, up to about 5 mm
    """

    side: float = 1.0
    widen: float = 0.0
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)
    radius: float = 1.0
    thicken: float = 0.0


NONE = Reshape()


class Anatomy:
    """A brain, drawn from `rng`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.turn, self.pitch, self.roll = _clipped(rng, 0.03, 0.08)  # radians
        self.scale = np.exp(_clipped(rng, 0.015, 0.05))
        self.shift = _clipped(rng, 1.0, 3.0)  # mm
        self.bends = [(Waves(rng, 34.0, count=24), Waves(rng, 10.0, count=32)) for _ in range(3)]
        self.folds = [(Waves(rng, 14.0, count=32), Waves(rng, 4.5, count=96)) for _ in range(2)]
        self.atrophy = rng.normal(0, 0.25)  # log odds of fluid
        self.ventricles = rng.normal(0, 0.14)
        self.lopsided = rng.normal(0, 0.06)
        self.crisp = np.float32(np.exp(rng.normal(0.45, 0.1)))  # undoes averaging 152 people

    def on(self, axes: Sequence[Floats], reshape: Reshape = NONE) -> Tissue:
        """Tissue on the grid that three axes span."""
        return self._tissue(spread(axes), lambda field: field.on(axes), reshape)

    def at(self, points: Floats, reshape: Reshape = NONE) -> Tissue:
        """Tissue at points (3, *S)."""
        return self._tissue(points, lambda field: field.at(points), reshape)

    def _tissue(self, points: Floats, look: Callable[[Waves], Floats], reshape: Reshape) -> Tissue:
        everywhere = self._bend(points, look)
        brain = _sample(everywhere, _maps()[:1])[0]
        inside = brain > 0.02  # the rest is fluid: about a third is left to compute
        midst = _near_ventricles(place := everywhere[:, inside])
        place = self._widen(place, midst, reshape)
        ventricle, rim, *plain = _sample(place, _maps()[1:])
        amount = np.clip(plain, 1e-4, 1) ** self.crisp
        slow, fine = (look(field)[inside] for field in self.folds[0])
        amount[0] *= np.exp(self.atrophy + (0.5 * slow + 0.4 * fine) * (1 - midst))
        slow, fine = (look(field)[inside] for field in self.folds[1])
        amount[2] *= np.exp(0.4 * slow + 0.32 * fine)
        z, y, x = place
        sinus = step(2.6 - np.abs(x), 0.5) * step(rim - 0.3, 0.05) * step(0.72 - rim, 0.05)
        sinus = sinus * (z > 0) * (np.abs(y) > 25)
        amount *= (1 - sinus) / amount.sum(0)
        if reshape.thicken:
            patch = step(_ball(points[:, inside], reshape.centre, reshape.radius) - 0.4, 0.05)
            rind = step(_sample(place, _near_cortex())[0] - 0.32 + 0.2 * reshape.thicken, 0.02)
            grown = patch * rind * amount[2]
            amount[1] += grown
            amount[2] -= grown
        plexus = np.maximum(_ball(place, (0, -24, 21), 7), _ball(place, (0, -24, -21), 7))
        caps = amount[2] * step(ventricle - 0.12, 0.03) * step(np.abs(y + 3) - 26, 2)
        choroid = step(plexus - 0.5, 0.08) * amount[0] * step(ventricle - 0.3, 0.05)
        fluid = np.eye(len(TISSUES), 1, dtype=np.float32)
        return Tissue(
            amount=_fill(inside, np.concatenate([amount, sinus[None]]), fluid),
            brain=step(brain - 0.5, 0.02),
            caps=_fill(inside, caps[None])[0],
            choroid=_fill(inside, choroid[None])[0],
        )

    def _bend(self, points: Floats, look: Callable[[Waves], Floats]) -> Floats:
        """Where in the template, measured from our origin, the tissue at `points` comes from."""
        z, y, x = points
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        turned = (z + self.pitch * y + self.roll * x, cos * y - sin * x, sin * y + cos * x)
        moved = [
            axis * scale + shift + 1.6 * look(slow) + 0.8 * look(fine)
            for axis, scale, shift, (slow, fine) in zip(
                turned, self.scale, self.shift, self.bends, strict=True
            )
        ]
        return np.stack(moved).astype(np.float32)

    def _widen(self, place: Floats, midst: Floats, reshape: Reshape) -> Floats:
        """Pull towards the ventricles' middle, which makes them larger."""
        z, y, x = place
        pull = 0.45 * (self.ventricles + self.lopsided * np.tanh(x / 8)) * midst
        z_pull = y_pull = np.zeros_like(x)
        if reshape.widen:
            one_sided = reshape.widen * midst * step(reshape.side * x - 2, 1.5)
            pull = pull + 0.45 * one_sided
            z_pull, y_pull = 0.30 * one_sided, 0.15 * one_sided
        pulled = (z - z_pull * (z - 10), y - y_pull * (y + 5), x * (1 - np.minimum(pull, 0.8)))
        return np.stack(pulled).astype(np.float32)


def _near_ventricles(place: Floats) -> Floats:
    z, y, x = place
    return np.exp(-((x / 26) ** 2 + ((y + 5) / 46) ** 2 + ((z - 12) / 24) ** 2))


def _ball(place: Floats, centre: Sequence[float], radius: float) -> Floats:
    """1 at the centre, about 0.6 at half the radius, near 0 beyond it."""
    square = sum((axis - at) ** 2 for axis, at in zip(place, centre, strict=True))
    return np.exp(-2 * np.asarray(square) / radius**2).astype(np.float32)


def _clipped(rng: np.random.Generator, spread: float, limit: float) -> Floats:
    """Three normal draws, none beyond the limit: no brain leaves the field of view."""
    return np.clip(rng.normal(0, spread, 3), -limit, limit).astype(np.float32)


def _fill(inside: Flags, values: Floats, outside: Floats | float = 0.0) -> Floats:
    """An array (n, *S) with `values` (n, m) where `inside` (*S), and `outside` (n, 1) elsewhere."""
    whole = np.empty((len(values), *inside.shape), np.float32)
    whole[:, ~inside] = outside
    whole[:, inside] = values
    return whole


@cache
def _maps() -> Floats:
    """The template's brain, its ventricles' surroundings, its brain's rim, and its four tissues."""
    tissue, brain, _ = load()
    within = STEP * depth(brain > 0.5)
    ventricle = ndimage.gaussian_filter(tissue[0] * (within > 24), 3 / STEP)
    rim = ndimage.gaussian_filter(brain, 2.0)
    return np.stack([brain, ventricle, rim, *tissue]).astype(np.float32)


@cache
def _near_cortex() -> Floats:
    return ndimage.gaussian_filter(load().tissue[1:2], (0, *[2.5 / STEP] * 3))


def _sample(place: Floats, maps: Floats) -> Floats:
    """The values (n, *S) of maps (n, Z, Y, X) of the template at `place` (3, *S)."""
    offset = (TO_MNI - load().origin).reshape(3, *[1] * (place.ndim - 1))
    index = (place + offset) / np.float32(STEP)
    return np.stack([ndimage.map_coordinates(one, index, np.float32, order=1) for one in maps])
