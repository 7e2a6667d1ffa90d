"""Latents that are not real numbers: the nearest of some learnt vectors, or bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime.rng import Rng


class Codebook(nn.Module):
    """Vectors that follow the means of what is nearest to them: van den Oord et al. 2017, with
    running averages instead of a gradient (appendix A.1).

    What a step finds is counted in buffers and takes effect when the next step begins, so that
    neither rows at a time nor an interruption changes anything. In a team, the first process's
    rows are what is followed.
    """

    codes: Tensor  # (K, D)
    sizes: Tensor  # (K,) running mean of how many were nearest to each
    sums: Tensor  # (K, D) and of their sum
    found: Tensor  # (K,) how many in the step that is going on
    total: Tensor  # (K, D) and their sum
    counted: Tensor  # () the step that they are of

    def __init__(
        self, count: int, size: int, *, decay: float = 0.99, epsilon: float = 1e-5
    ) -> None:
        super().__init__()
        self.decay, self.epsilon, self._first = decay, epsilon, ""
        codes = torch.randn(count, size)
        self.register_buffer("codes", codes)
        self.register_buffer("sizes", torch.zeros(count))
        self.register_buffer("sums", codes.clone())
        self.register_buffer("found", torch.zeros(count))
        self.register_buffer("total", torch.zeros(count, size))
        self.register_buffer("counted", torch.tensor(-1))

    def nearest(self, z: Tensor) -> Tensor:
        """(N, D, *S) -> (N, *S) int64: which code each place is closest to."""
        flat = z.movedim(1, -1).flatten(0, -2).float()
        with torch.autocast(z.device.type, enabled=False):
            apart = self.codes.square().sum(1) - 2 * flat @ self.codes.T
        return apart.argmin(1).view(z.shape[0], *z.shape[2:])

    def embed(self, index: Tensor) -> Tensor:
        """(N, *S) -> (N, D, *S)."""
        return self.codes[index].movedim(-1, 1)

    def quantize(self, z: Tensor) -> Tensor:
        return self.embed(self.nearest(z)).to(z.dtype)

    def quantize_and_count(self, z: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """z quantised, its gradient passed straight through; and how far z was from it, (N,) mean
        squares, which is to be made small. The step is rng's."""
        with torch.no_grad():
            self._begin_step(int(rng.step.max()), rng.keys[0])
            index = self.nearest(z)
            flat = z.movedim(1, -1).flatten(0, -2).float()
            self.found += torch.bincount(index.flatten(), minlength=len(self.codes))
            self.total.index_add_(0, index.flatten(), flat)
        code = self.embed(index).to(z.dtype)
        away = (z - code).float().square().flatten(1).mean(1)
        return z + (code - z).detach(), away

    def _begin_step(self, step: int, first: str) -> None:
        """Take over what the step before found. A step that is seen from its first row again, as
        memory ran out, is counted anew."""
        if step != int(self.counted):
            if self.counted >= 0:
                self._update_codes()
            self.counted.fill_(step)
            self._first = first
        elif first != self._first:
            return
        self.found.zero_()
        self.total.zero_()

    def _update_codes(self) -> None:
        self.sizes.lerp_(self.found, 1 - self.decay)
        self.sums.lerp_(self.total, 1 - self.decay)
        n, count = self.sizes.sum(), len(self.sizes)
        smooth = (self.sizes + self.epsilon) / (n + count * self.epsilon) * n
        self.codes.copy_(self.sums / smooth[:, None])


class BinaryQuantizer(nn.Module):
    """h (N, D, *S) -> bits (N, bits, *S), each with a vector of size D of its own, which are added
    up where it is 1. Wang et al. 2023 (binary latent diffusion)."""

    def __init__(self, ndim: int, size: int, bits: int) -> None:
        super().__init__()
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]
        self.chance = kind(size, bits, 1)
        self.vectors = nn.Parameter(torch.randn(bits, size))

    def probabilities(self, h: Tensor) -> Tensor:
        """The chance that each bit is 1, (N, bits, *S) float32."""
        return self.chance(h).float().sigmoid()

    def sample(self, probability: Tensor, rng: Rng) -> Tensor:
        """Bits, 1 with their chance, through which the gradient passes to it."""
        bits = (rng.uniform(probability.shape[1:]) < probability.detach()).to(probability.dtype)
        return bits + (probability - probability.detach())  # which is 0 exactly

    def embed(self, bits: Tensor) -> Tensor:
        """(N, bits, *S), soft ones too -> (N, D, *S)."""
        return torch.einsum("nb...,bd->nd...", bits, self.vectors.to(bits.dtype))
