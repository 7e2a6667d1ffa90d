"""A classifier of noisy samples: it guides a sampler towards a label.

Dhariwal & Nichol 2021 (classifier guidance); Wolleb et al., MICCAI 2022 (for anomalies).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..diffusion.gaussian import Gaussian, Process
from ..diffusion.schedule import Schedule
from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_in_batches
from ..runtime.rng import Rng


class NoisyClassifier(BatchedModule):
    """A classifier of samples at any level of a Gaussian process.

    net: (x (N, C, *S), timesteps (N,)) -> logits (N, labels), as `build_encoder` builds; it is
        called with t = level - 1, like the denoiser that it guides, and level 0 as level 1
    schedule: of the process that adds noise in training
    batch: rows in every call at inference

    >>> import torch
    >>> from adbench.engine.networks.noisy_classifier import NoisyClassifier
    >>> from torch import nn
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> class Net(nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return x.flatten(1)[:, :2]
    >>> classifier = NoisyClassifier(Net(), linear_schedule()).eval()
    >>> classifier(torch.zeros(3, 1, 4), torch.tensor([1, 2, 3])).shape
    torch.Size([3, 2])
    """

    def __init__(self, net: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.net = net
        self.process: Process = Gaussian(schedule)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Logits (N, labels) of x at its levels (N,)."""
        return self._call_network(x, level) if self.training else self._logits(x, level)

    def loss(self, x: Tensor, label: Tensor, rng: Rng, *, max_level: int | None = None) -> Tensor:
        """The cross-entropy in nats at a level uniform on 1..max_level, (N,).

        x: (N, C, *S)
        label: (N,) int or bool
        rng: one stream per sample
        max_level: on the 1000-step scale, all if None.
        """
        highest = self.process.schedule.to_level(1000 if max_level is None else max_level)
        level = 1 + rng.fork("level").integers(highest)
        noise = self.process.default_noise(rng.fork("noise"), x.shape[1:], level)
        noisy = self.process.add_noise(x, level, noise)
        return cross_entropy(
            self._call_network(noisy, level).float(), label.long(), reduction="none"
        )

    def log_prob_gradient(self, x: Tensor, level: Tensor, label: Tensor) -> Tensor:
        """The gradient of log p(label | x at level) with respect to x, (N, C, *S).

        Guidance adds it to the score, and minus sigma times it to the noise. label: (N,) int64
        """

        def gradient(x: Tensor, level: Tensor, label: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                inputs = x.clone()  # counting FLOPs hooks the inputs of a network: no leaf
                log_prob = (
                    self._call_network(inputs, level)
                    .float()
                    .log_softmax(1)
                    .gather(1, label[:, None])
                )
                return torch.autograd.grad(log_prob.sum(), x)[0]

        return apply_in_batches(gradient, self.batch, x, level, label)

    def _logits(self, x: Tensor, level: Tensor) -> Tensor:
        return apply_in_batches(self._call_network, self.batch, x, level)

    def _call_network(self, x: Tensor, level: Tensor) -> Tensor:
        return self.call_net(lambda net, *rows: net(*rows), x, (level - 1).clamp(min=0))


def build_encoder(
    shape: Sequence[int],
    channels: int,
    labels: int,
    widths: Sequence[int] = (32, 32, 64, 64, 128, 128),
    *,
    res_blocks: int = 4,
    attention: Sequence[bool] = (False, False, False, True, True, True),
    head_channels: int = 64,
) -> nn.Module:
    """Build the network of Wolleb et al.: half a UNet with attention pooling, (x (N, C, *S),
    timesteps) -> (N, labels).

    shape: S, one to three axes, which divide by `side_divisor(widths)`
    channels: C
    labels: number of logits
    widths: channels at each resolution
    res_blocks: at each resolution
    attention: at which resolutions
    head_channels: per head

    >>> import torch
    >>> from adbench.engine.networks.noisy_classifier import build_encoder
    >>> net = build_encoder((8, 8), 1, 2, (8, 16), res_blocks=1, attention=(False, True))
    >>> net(torch.zeros(3, 1, 8, 8), torch.tensor([0, 10, 20])).shape
    torch.Size([3, 2])
    """
    from .unet_encoder import UNetEncoder  # here: importing MONAI takes seconds

    return UNetEncoder(
        shape, channels, labels, widths,
        res_blocks=res_blocks, attention=attention, head_channels=head_channels,
    )  # fmt: skip
