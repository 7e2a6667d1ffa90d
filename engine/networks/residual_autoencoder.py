"""The residual autoencoder whose code is one vector: the network of VAE and constrained AAE.

Chen and Konukoglu 2018, arXiv 1806.04972, whose parameters it has. Norms are over groups: theirs
are over the batch, and would make a sample depend on the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_in_batches

LEAKY_SLOPE = 0.2


class ResidualAutoencoder(BatchedModule):
    """An encoder of (N, C, *S) to a vector (N, out), and a decoder from (N, code).

    shape, channels: of the samples; sides divide by the halvings, ValueError else
    widths: channels at each resolution, halved in between; in the paper each is twice the last
    code: size of the decoder's input
    out: size of the encoder's output, `code` if None

    >>> import torch
    >>> from adbench.engine.networks.residual_autoencoder import ResidualAutoencoder
    >>> ResidualAutoencoder((16,), 1, (8, 16), code=4).encode(torch.zeros(2, 1, 16)).shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: int,
        widths: Sequence[int],
        code: int,
        *,
        out: int | None = None,
    ) -> None:
        super().__init__()
        ndim, factor = len(shape), 2 ** (len(widths) - 1)
        if any(n % factor for n in shape) or widths[0] < 2:
            raise ValueError(
                f"sides must divide by {factor} and widths begin at 2 or more: {tuple(shape)}, "
                f"{tuple(widths)}"
            )
        self.smallest = (widths[-1], *(n // factor for n in shape))
        flat = math.prod(self.smallest)
        down = [_DownBlock(ndim, a, b) for a, b in pairwise(widths)]
        halves = [w // 2 for w in reversed(widths)]
        up = [_UpBlock(ndim, a, b) for a, b in pairwise(halves)]
        self.net = nn.ModuleDict({
            "encoder": nn.Sequential(
                _conv(ndim, channels, widths[0]), _norm(widths[0]), *down,
                nn.Flatten(), nn.Linear(flat, out or code),
            ),
            "enter": nn.Sequential(nn.Linear(code, flat), nn.LeakyReLU(LEAKY_SLOPE)),
            "decoder": nn.Sequential(
                _conv(ndim, widths[-1], halves[0]), nn.LeakyReLU(LEAKY_SLOPE), *up,
                _conv(ndim, halves[-1], channels),
            ),
        })  # fmt: skip
        for part in self.modules():
            if isinstance(part, nn.modules.conv._ConvNd):
                nn.init.trunc_normal_(part.weight, std=0.02)
            elif isinstance(part, nn.GroupNorm):
                nn.init.normal_(part.weight, 1.0, 0.02)

    def encode(self, x: Tensor) -> Tensor:
        """Encode (N, C, *S) to (N, out)."""
        return self._apply_part("encoder", x)

    def decode(self, z: Tensor) -> Tensor:
        """Decode (N, code) to (N, C, *S)."""
        h = self._apply_part("enter", z).view(-1, *self.smallest)
        return self._apply_part("decoder", h)

    def _apply_part(self, part: str, x: Tensor) -> Tensor:
        def apply(rows: Tensor) -> Tensor:
            return self.call_net(lambda net, inputs: net[part](inputs), rows)

        return apply(x) if self.training else apply_in_batches(apply, self.batch, x)


class _DownBlock(nn.Module):
    """A residual block that halves the resolution: two convolutions, and one as the shortcut."""

    def __init__(self, ndim: int, width: int, out: int) -> None:
        super().__init__()
        self.first, self.middle = _conv(ndim, width, width, 2), _norm(width)
        self.second, self.last = _conv(ndim, width, out), _norm(out)
        self.beside, self.norm = _conv(ndim, width, out, 2), _norm(out)

    def forward(self, x: Tensor) -> Tensor:
        h = leaky_relu(self.middle(self.first(x)), LEAKY_SLOPE)
        h = leaky_relu(self.last(self.second(h)), LEAKY_SLOPE)
        return h + leaky_relu(self.norm(self.beside(x)), LEAKY_SLOPE)


class _UpBlock(_DownBlock):
    """A residual block that doubles the resolution."""

    def __init__(self, ndim: int, width: int, out: int) -> None:
        super().__init__(ndim, width, out)
        kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[ndim - 1]
        self.first = kind(width, width, 3, 2, 1, 1)
        self.beside = kind(width, out, 3, 2, 1, 1)


def _conv(ndim: int, width: int, out: int, stride: int = 1) -> nn.Module:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]
    return kind(width, out, 3, stride, 1)


def _norm(width: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(8, width), width)


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the KL divergence of a normal distribution from the standard one, in nats, (N,).

    mean, log_variance: (N, Z)

    >>> import torch
    >>> from adbench.engine.networks.residual_autoencoder import kl_divergence
    >>> kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3))
    tensor([0., 0.])
    """
    return (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2


def gradient_penalty(critic: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Return the squared difference of the norm of a critic's gradient from 1, (N,).

    critic: (N, Z) -> (N,)
    z: (N, Z)

    >>> import torch
    >>> from adbench.engine.networks.residual_autoencoder import gradient_penalty
    >>> from torch import nn
    >>> gradient_penalty(nn.Linear(3, 1), torch.zeros(2, 3)).shape
    torch.Size([2])
    """
    with torch.enable_grad():
        inner = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(inner).sum(), inner, create_graph=True)
    return (gradient.norm(dim=1) - 1).square()
