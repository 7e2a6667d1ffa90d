"""From tissue to MRI: contrast, bias field, ghosts, noise, and normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from ..transforms.quantisation import quantise
from ..transforms.random_fields import Flags, Floats, RandomField
from .anatomy import TissueMap

MODALITIES = ("t1", "t2", "flair", "t1ce")
CONTRASTS = np.array(  # fluid, cortex, white, deep, vessel
    [
        (0.12, 0.58, 0.88, 0.68, 0.45),
        (1.00, 0.60, 0.38, 0.46, 0.25),
        (0.10, 0.62, 0.47, 0.54, 0.30),
        (0.12, 0.60, 0.89, 0.70, 1.05),
    ]
)
CAP_INTENSITIES = np.array([0.70, 0.70, 0.85, 0.70]).reshape(4, 1, 1, 1)
NOISE_LEVEL = 0.014
REFERENCE_LEVEL = (
    0.8  # where the healthy P99 comes to lie: what is brighter keeps its order up to 1.25 P99
)


class Scanner:
    """A random examination: contrast, artefacts and noise of every modality.

    Healthy structures and artefacts that a method may take for a lesion: caps beside the ventricles
    (in 45 % of subjects), a choroid plexus that enhances (60 %), a ghost of motion (15 % of
    modalities), a strong bias field (15 %).

    >>> from adbench.datasets.synthbrain.anatomy import Anatomy
    >>> from adbench.datasets.synthbrain.subject import ViewGrid
    >>> axes = ViewGrid((0.0,), size=16, mm=12.0).axes()
    >>> tissue = Anatomy(np.random.default_rng(0)).on_grid(axes)
    >>> Scanner(np.random.default_rng(0)).ideal_image(tissue, axes).shape
    (4, 1, 16, 16)
    """

    def __init__(self, rng: np.random.Generator) -> None:
        vary = np.exp(rng.normal(0, (0.08, 0.03, 0.03, 0.03, 0.08), (4, 5)))
        self.contrast = (CONTRASTS * vary).astype(np.float32)
        self.texture = RandomField(rng, 6.0)
        self.caps = np.float32(rng.uniform(0.25, 0.7) * (rng.random() < 0.45))
        self.choroid = np.float32(rng.uniform(0.4, 1.0) * (rng.random() < 0.6))
        self.bias = np.where(rng.random(4) < 0.85, 0.05, 0.13).astype(np.float32)
        self.fields = [RandomField(rng, 70.0, count=24) for _ in MODALITIES]
        self.blur = rng.uniform(0.5, 1.0, 4)  # mm
        self.ghost = (rng.uniform(0.02, 0.05, 4) * (rng.random(4) < 0.15)).astype(np.float32)
        self.offset = rng.uniform(0.12, 0.35, 4)  # of the field of view, from image to ghost
        self.noise = (NOISE_LEVEL * np.exp(rng.normal(0, 0.25, 4))).astype(np.float32)

    def ideal_image(self, tissue: TissueMap, axes: Sequence[Floats]) -> Floats:
        """Return ideal intensities of all modalities, (4, K, H, W), about 0 to 1."""
        image = np.einsum("mt,tkhw->mkhw", self.contrast, tissue.fractions)
        caps = self.caps * tissue.caps
        image = image * (1 - caps) + CAP_INTENSITIES * caps
        image[3] += self.choroid * tissue.choroid * (0.9 - image[3])
        return image * (1 + 0.02 * self.texture.on_grid(axes))

    def acquire(self, image: Floats, brain: Flags, axes: Sequence[Floats], noise: Floats) -> Floats:
        """Return the acquired image, skull-stripped: (4, K, h, w).

        image: (4, K, H, W) ideal intensities; H and W are a whole multiple of h and w
        brain: (K, h, w) bool
        axes: coordinates of the pixels
        noise: standard normal, (4, 2, K, h, w)
        """
        fold = image.shape[-1] // brain.shape[-1]
        mm = float(axes[2][1] - axes[2][0]) / fold
        acquired = np.empty((4, *brain.shape))
        for i, ideal in enumerate(image):
            blurred = ndimage.gaussian_filter(ideal, (0, self.blur[i] / mm, self.blur[i] / mm))
            clean = downsample(blurred, fold) * np.exp(self.bias[i] * self.fields[i].on_grid(axes))
            if self.ghost[i]:
                offset = round(self.offset[i] * clean.shape[-2])
                clean = clean + self.ghost[i] * (
                    np.roll(clean, offset, -2) + np.roll(clean, -offset, -2)
                )
            real, imaginary = self.noise[i] * noise[i]
            acquired[i] = np.hypot(clean + real, imaginary) * brain
        return acquired


def downsample(image: Floats, factor: int) -> Floats:
    """Return means over factor x factor pixels of the last two axes.

    image: (..., H, W)
    factor: divides H and W

    >>> downsample(np.arange(4.0).reshape(2, 2), 2).tolist()
    [[1.5]]
    """
    *leading, height, width = image.shape
    return image.reshape(*leading, height // factor, factor, width // factor, factor).mean((-3, -1))


def intensity_limits(image: Floats, brain: Flags) -> Floats:
    """Return the 1st and 99th percentile of each modality within the brain: (4, 2).

    image: (4, K, H, W)
    brain: (K, H, W) bool

    >>> image = np.broadcast_to(np.arange(101.0), (4, 1, 1, 101))
    >>> intensity_limits(image, np.ones((1, 1, 101), bool))[0].tolist()
    [1.0, 99.0]
    """
    return np.stack([np.percentile(channel[brain], (1, 99)) for channel in image])


def normalise(image: Floats, brain: Flags, limits: Floats, *, top: float) -> Floats:
    """Return intensities mapped to [0, 1] and clipped: the lower limit to 0, the upper to `top`.

    They are at one of 4096 levels, float32.

    image: (4, K, H, W)
    brain: (K, H, W) bool; the result is 0 outside
    limits: (4, 2), from `intensity_limits`
    top: the value of the upper limit

    >>> limits = np.array([[0.0, 2.0]] * 4)
    >>> normalise(np.ones((4, 1, 1, 1)), np.ones((1, 1, 1), bool), limits, top=0.8).ravel().round(1)
    array([0.4, 0.4, 0.4, 0.4], dtype=float32)
    """
    low, high = (limits[:, i].reshape(-1, 1, 1, 1) for i in (0, 1))
    return quantise(np.clip((image - low) / (high - low) * top, 0, 1) * brain)
