"""What a reconstruction is told besides its error: how it looks, and whether it looks made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..features.pretrained import build_perceptual


class PatchDiscriminatorLoss(nn.Module):
    """A patch discriminator, trained in the very steps that it judges: its own loss and what it
    says of the reconstruction are one sum, in which neither's gradient reaches the other.

    kind: least squares (Mao et al. 2017), as MONAI's tutorials; or hinge, as VQGAN. starts: the
    step from which on it is heard; it learns from the first. rate: times the learning rate of what
    it judges: its weights are kept divided by it, which to Adam is the same. Norms are over groups:
    a batch's mean, as the published ones have it, would tell a row of its neighbours.
    """

    def __init__(
        self,
        ndim: int,
        channels: int,
        *,
        weight: float = 0.01,
        starts: int = 0,
        width: int = 64,
        layers: int = 3,
        kind: Literal["least squares", "hinge"] = "least squares",
        rate: float = 1.0,
    ) -> None:
        super().__init__()
        from monai.networks.nets.patchgan_discriminator import PatchDiscriminator

        norm = ("group", {"num_groups": math.gcd(32, 2 * width)})
        self.net = PatchDiscriminator(ndim, width, channels, num_layers_d=layers, norm=norm)
        self.weight, self.starts, self.hinge = weight, starts, kind == "hinge"
        self.rate = rate
        with torch.no_grad():
            for value in self.net.parameters():
                value /= rate

    def forward(self, x: Tensor, reconstruction: Tensor, step: Tensor) -> Tensor:
        """(N,): what is to be made small by both; step: (N,)."""
        learnt = {key: value * self.rate for key, value in self.net.named_parameters()}
        frozen = {key: value.detach() for key, value in learnt.items()}
        fooled = functional_call(self.net, frozen, (reconstruction,))[-1].float()
        fooled = -fooled if self.hinge else (fooled - 1).square()
        heard = self.weight * (step >= self.starts) * fooled.flatten(1).mean(1)
        real, false = (
            functional_call(self.net, learnt, (y,))[-1].float()
            for y in (x, reconstruction.detach())
        )
        if self.hinge:
            own = (1 - real).relu() + (1 + false).relu()
        else:
            own = (1 - real).square() + false.square()
        return heard + own.flatten(1).mean(1) / 2


def discriminator_layers(shape: Sequence[int], maximum: int = 3) -> int:
    """Layers of an adversary of samples of these sides: the papers' three, or fewer where those
    would leave its last filters less than three places."""
    count = min(maximum, (min(shape) // 3).bit_length() - 1)
    if count < 1:
        raise ValueError(f"an adversary wants sides of at least 6, not {tuple(shape)}")
    return count


class PerceptualLoss(nn.Module):
    """Perceptual distance of images in a range, or of volumes by some planes across each axis.

    planes: how many, evenly spaced, across each axis of a volume
    """

    def __init__(
        self, range: tuple[float, float], *, features: str = "effperc", planes: int = 4
    ) -> None:
        super().__init__()
        self.perceptual = build_perceptual(features)
        self.range, self.planes = range, planes

    def forward(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """(N,), of two (N, C, *S)."""
        low, high = self.range
        x, reconstruction = ((image - low) / (high - low) for image in (x, reconstruction))
        if x.ndim == 4:
            return self.perceptual.mean_distance(reconstruction, x)
        if x.ndim != 5:
            raise ValueError("a perceptual distance is of images or volumes, not of signals")
        total = torch.zeros(len(x), device=x.device)
        for axis in (2, 3, 4):
            n = x.shape[axis]
            at = ((torch.arange(self.planes) + 0.5) / self.planes * n).long().to(x.device)
            pair = [
                v.index_select(axis, at).movedim(axis, 1).flatten(0, 1) for v in (reconstruction, x)
            ]
            total = total + self.perceptual.mean_distance(*pair).view(len(x), -1).mean(1)
        return total / 3
