"""Losses of a reconstruction besides its error: a patch discriminator and a perceptual distance."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import leaky_relu

from ..features.pretrained import build_perceptual
from ..runtime.precision import LowPrecisionModule
from ..runtime.transfer import to_device
from ..training.loop import Training


class PatchDiscriminatorLoss(LowPrecisionModule):
    """A patch discriminator and the adversarial loss, trained in the same steps as the generator.

    The discriminator's own loss and the generator's are one sum, in which neither's gradient
    reaches the other's weights. Norms are over groups: a batch's mean, as in the published ones,
    would make a row depend on the others.

    ndim, channels: of the samples
    weight: of the generator's loss
    starts: step from which on the generator's loss counts; the discriminator learns from the first
    warmup: steps from there in which the generator's weight rises linearly from 0
    width: channels after the first layer
    layers: of the discriminator
    kind: least squares (Mao et al. 2017) of rectified logits, as MONAI's tutorials and ddpm-ood; or
        hinge, as VQGAN
    slope: of the leaky rectifier below 0 that the logits, real and fake, pass before the least
        squares; 1 for none (the loss of Mao et al.)
    rate: times the generator's learning rate: the weights are stored divided by it, which to Adam
        is the same

    >>> import torch
    >>> from adbench.engine.networks.discriminator import PatchDiscriminatorLoss
    >>> loss = PatchDiscriminatorLoss(2, 1, width=4, layers=1, starts=10)
    >>> x, y = torch.zeros(2, 1, 8, 8), torch.ones(2, 1, 8, 8)
    >>> before, after = (loss(x, y, torch.full((2,), step)) for step in (9, 10))
    >>> (after > before).tolist()  # the generator's loss counts from step 10 on
    [True, True]
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        *,
        weight: float = 0.01,
        starts: int = 0,
        warmup: int = 0,
        width: int = 64,
        layers: int = 3,
        kind: Literal["least squares", "hinge"] = "least squares",
        rate: float = 1.0,
        slope: float = 0.05,
    ) -> None:
        super().__init__()
        from monai.networks.nets.patchgan_discriminator import PatchDiscriminator

        norm = ("group", {"num_groups": math.gcd(32, 2 * width)})
        self.net = PatchDiscriminator(ndim, width, channels, num_layers_d=layers, norm=norm)
        self.weight, self.starts, self.hinge = weight, starts, kind == "hinge"
        self.warmup = warmup
        self.rate, self.slope = rate, slope
        with torch.no_grad():
            for value in self.net.parameters():
                value /= rate

    def forward(self, x: Tensor, reconstruction: Tensor, step: Tensor) -> Tensor:
        """The sum of both losses, (N,); step: of the training, (N,)."""
        weights = {key: value * self.rate for key, value in self.net.named_parameters()}
        frozen = {key: value.detach() for key, value in weights.items()}
        fake = self._logits(frozen, reconstruction)
        fake = -fake if self.hinge else (fake - 1).square()
        weight = to_device(self._generator_weight(step), x.device)
        generator = weight * fake.flatten(1).mean(1)
        real, false = (self._logits(weights, y) for y in (x, reconstruction.detach()))
        if self.hinge:
            discriminator = (1 - real).relu() + (1 + false).relu()
        else:
            discriminator = (1 - real).square() + false.square()
        return generator + discriminator.flatten(1).mean(1) / 2

    def _generator_weight(self, step: Tensor) -> Tensor:
        weight = self.weight * (step >= self.starts)
        if not self.warmup:
            return weight
        return weight * ((step - self.starts) / self.warmup).clamp(max=1)

    def _logits(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """The discriminator's logits of x, rectified where the loss is of least squares."""
        logits = self.autocast(lambda y: functional_call(self.net, dict(weights), (y,))[-1], x)
        return logits if self.hinge else leaky_relu(logits, self.slope)


def adversary_options(
    weight: float, lr: float, generator: Training, *, starts: int = 0, warmup: int = 0
) -> dict[str, Any] | None:
    """Return the arguments of a codec's PatchDiscriminatorLoss, None for a weight of 0.

    weight: of the adversarial loss; UserWarning where it counts in no step
    lr: learning rate of the discriminator
    generator: the training of the codec
    starts, warmup: as in PatchDiscriminatorLoss

    >>> from adbench.engine.networks.discriminator import adversary_options
    >>> from adbench.engine.training.loop import Training
    >>> adversary_options(0.01, 5e-4, Training(steps=10, batch=1, lr=1e-4), starts=5)["rate"]
    5.0
    """
    if not weight:
        return None
    if starts >= generator.steps:
        warnings.warn(
            f"the adversarial loss counts from step {starts} on, so in none of the codec's "
            f"{generator.steps}; set adversary_start below coder_steps, or adversary=0",
            stacklevel=3,
        )
    return {"weight": weight, "starts": starts, "warmup": warmup, "rate": lr / generator.lr}


def discriminator_layers(shape: Sequence[int], maximum: int = 3) -> int:
    """Return the number of a patch discriminator's layers: the papers' three, or fewer where those
    would leave the last filters less than three positions.

    shape: sides of the samples; ValueError below 6
    maximum: of layers

    >>> from adbench.engine.networks.discriminator import discriminator_layers
    >>> discriminator_layers((64, 64)), discriminator_layers((8, 8))
    (3, 1)
    """
    count = min(maximum, (min(shape) // 3).bit_length() - 1)
    if count < 1:
        raise ValueError(f"a patch discriminator needs sides of at least 6, not {tuple(shape)}")
    return count


class PerceptualLoss(nn.Module):
    """The perceptual distance of images, or of volumes by some planes across each axis, as a loss.

    range: of the samples
    features: the network's name, as `build_perceptual` has it
    planes: how many, evenly spaced, across each axis of a volume

    >>> import torch
    >>> from adbench.engine.networks.discriminator import PerceptualLoss
    >>> loss, x = PerceptualLoss((-1.0, 1.0), features="effperc-random"), torch.zeros(2, 1, 16, 16)
    >>> loss(x, x)
    tensor([0., 0.])
    """

    def __init__(
        self, range: tuple[float, float], *, features: str = "effperc", planes: int = 4
    ) -> None:
        super().__init__()
        self.perceptual = build_perceptual(features)
        self.range, self.planes = range, planes

    def forward(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """The mean distance of each pair of samples (N, C, *S), (N,)."""
        low, high = self.range
        x, reconstruction = ((image - low) / (high - low) for image in (x, reconstruction))
        if x.ndim == 4:
            return self.perceptual.mean_distance(reconstruction, x)
        if x.ndim != 5:
            raise ValueError("a perceptual distance is of images or volumes, not of signals")
        total = torch.zeros(len(x), device=x.device)
        for axis in (2, 3, 4):
            n = x.shape[axis]
            planes = ((torch.arange(self.planes) + 0.5) / self.planes * n).long().tolist()
            pair = [
                torch.stack([v.select(axis, plane) for plane in planes], 1).flatten(0, 1)
                for v in (reconstruction, x)
            ]
            total = total + self.perceptual.mean_distance(*pair).view(len(x), -1).mean(1)
        return total / 3
