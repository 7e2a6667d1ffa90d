"""The settings of a KL autoencoder and of its training as methods group them."""

from __future__ import annotations

from dataclasses import dataclass

from ..runtime.setting_types import Count, Many, NonNegative, Positive
from ..training.loop import Training
from ..transforms.resizing import ResizePad
from .autoencoder import KL


@dataclass(frozen=True)
class KLConfig:
    """The autoencoder.

    coder_widths: channels at each resolution, halved in between.
    latent_channels: of the code.
    kl, looks, adversary: weights of the divergence, of a perceptual and of an adversarial loss.
    coder_steps, coder_batch, coder_lr: of its training.

    >>> from adbench.engine.codecs.kl_config import KLConfig
    >>> from adbench.engine.transforms.resizing import ResizePad
    >>> config = KLConfig(coder_widths=(4, 8), latent_channels=2)
    >>> config.build(1, ResizePad((16, 16))).latent
    (2, 8, 8)
    """

    coder_widths: Many[Count] = (128, 256, 512, 512)
    latent_channels: Count = 4
    kl: NonNegative = 1e-6
    looks: NonNegative = 0.0
    adversary: NonNegative = 0.0
    coder_steps: Count = 23_200
    coder_batch: Count = 16
    coder_lr: Positive = 1e-4

    def build(self, channels: int, canvas: ResizePad) -> KL:
        """Return the autoencoder of samples of so many channels on a canvas."""
        return KL(
            (channels, *canvas.padded_shape), latent_channels=self.latent_channels,
            widths=self.coder_widths, middle=True, kl=self.kl, looks=self.looks,
            range=canvas.range,
            adversary={"weight": self.adversary} if self.adversary else None,
        )  # fmt: skip

    def plan(self, network: Training) -> Training:
        """Return the plan of its training, whose learning rate falls as that of the network."""
        return Training(self.coder_steps, self.coder_batch, self.coder_lr, ema=None,
            decay=network.decay)  # fmt: skip
