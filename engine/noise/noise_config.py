"""The settings of a kind of noise as methods group them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..runtime.setting_types import Count, Positive
from .noise import Noise, NoiseName, build_noise


@dataclass(frozen=True)
class MixedNoiseConfig:
    """A kind of noise by name, and the settings of simplex and pyramid noise.

    noise: gaussian, simplex, pyramid or coarse; or "random", which a method makes of two of them.
    octaves: fields that are added up, each of half the wavelength of the one before.
    persistence: the height of each in terms of the one before.
    frequency: the longest wavelength of simplex noise, in pixels (the paper's word for it).
    normalise: whether simplex noise is brought to unit variance.
    origin_jitter: whether every octave is moved by itself, so that the origin is like all else.
    generator: "2d" or "3d" simplex noise; lines and volumes are of "3d" all the same.

    >>> MixedNoiseConfig("simplex", octaves=2).build().octaves
    2
    """

    noise: NoiseName | Literal["random"] = "gaussian"
    octaves: Count = 6
    persistence: Positive = 0.8
    frequency: Positive = 64.0
    normalise: bool = False
    origin_jitter: bool = False
    generator: Literal["2d", "3d"] = "3d"

    def build(
        self,
        name: str | None = None,
        *,
        frequency: float | None = None,
        shared: bool = False,
        z: Literal["t", "zero", "random"] = "t",
    ) -> Noise:
        """Return the noise.

        name: of another kind with the same settings; None for `noise`.
        frequency: another wavelength; None for `frequency`.
        shared: one field for all samples of a step, as some published code has it.
        z: where images lie in three-dimensional simplex noise.
        """
        return build_noise(
            name or self.noise,
            octaves=self.octaves,
            persistence=self.persistence,
            frequency=frequency or self.frequency,
            normalise=self.normalise,
            origin_jitter=self.origin_jitter,
            z=z,
            shared=shared,
            generator=self.generator,
        )


@dataclass(frozen=True)
class NoiseConfig(MixedNoiseConfig):
    """A kind of noise by name, as MixedNoiseConfig without "random".

    >>> NoiseConfig("pyramid", octaves=2).build().octaves
    2
    """

    noise: NoiseName = "gaussian"
