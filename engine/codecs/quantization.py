"""Latents that are not real numbers: the nearest of some learnt vectors, or bits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..runtime.rng import Rng


class Codebook(nn.Module):
    """A codebook: vectors that follow the means of the encodings nearest to them.

    van den Oord et al. 2017, with running averages instead of a gradient (appendix A.1). What a
    step counts is kept in buffers and takes effect when the next step begins, so that neither rows
    at a time nor an interruption changes anything. In a team, the rows of rank 0 are counted.

    count: K, number of codes
    size: D, of each
    decay: of the running means
    epsilon: smooths the counts, so that no code is divided by 0

    >>> import torch
    >>> from adbench.engine.codecs.quantization import Codebook
    >>> Codebook(4, 2).nearest(torch.zeros(1, 2, 3)).shape
    torch.Size([1, 3])
    """

    codes: Tensor  # (K, D)
    sizes: Tensor  # (K,) running mean of the number of encodings nearest to each
    sums: Tensor  # (K, D) running mean of their sum
    found: Tensor  # (K,) their number in the present step
    total: Tensor  # (K, D) their sum in the present step
    counted: Tensor  # () the present step

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
        self._counted = (0, 0), -1  # a copy on the host, with the version of what it copies

    def nearest(self, z: Tensor) -> Tensor:
        """The index of the code closest to each position, (N, D, *S) -> (N, *S) int64."""
        flat = z.movedim(1, -1).flatten(0, -2).float()
        with torch.autocast(z.device.type, enabled=False):
            distance = self.codes.square().sum(1) - 2 * flat @ self.codes.T
        return distance.argmin(1).view(z.shape[0], *z.shape[2:])

    def embed(self, index: Tensor) -> Tensor:
        """The codes at the indices, (N, *S) -> (N, D, *S)."""
        return self.codes[index].movedim(-1, 1)

    def quantize(self, z: Tensor) -> Tensor:
        """The code closest to each position, like z (N, D, *S)."""
        return self.embed(self.nearest(z)).to(z.dtype)

    def quantize_and_count(self, z: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Quantise z with a straight-through gradient, and count the encodings of the step, which
        is rng's. Also returns the mean square distance of z from its codes, (N,), a loss."""
        with torch.no_grad():
            self._begin_step(int(rng.step.max()), rng.keys[0])
            index = self.nearest(z)
            flat = z.movedim(1, -1).flatten(0, -2).float()
            self.found.index_add_(0, index.flatten(), torch.ones_like(flat[:, 0]))
            self.total.index_add_(0, index.flatten(), flat)
        code = self.embed(index).to(z.dtype)
        distance = (z - code).float().square().flatten(1).mean(1)
        return z + (code - z).detach(), distance

    def _begin_step(self, step: int, first: str) -> None:
        """Update the codes by the counts of the step before. A step that starts again from its
        first row, as memory ran out, is counted anew."""
        counted = self._last_counted()
        if step != counted:
            if counted >= 0:
                self._update_codes()
            self.counted.fill_(step)
            self._first, self._counted = first, (self._count_version(), step)
        elif first != self._first:
            return
        self.found.zero_()
        self.total.zero_()

    def _last_counted(self) -> int:
        """The step that was counted last; read from the device only where it was loaded."""
        if self._counted[0] != self._count_version():
            self._counted = self._count_version(), int(self.counted)
        return self._counted[1]

    def _count_version(self) -> tuple[int, int]:
        return self.counted.data_ptr(), self.counted._version

    def _update_codes(self) -> None:
        self.sizes.lerp_(self.found, 1 - self.decay)
        self.sums.lerp_(self.total, 1 - self.decay)
        n, count = self.sizes.sum(), len(self.sizes)
        smoothed = (self.sizes + self.epsilon) / (n + count * self.epsilon) * n
        self.codes.copy_(self.sums / smoothed[:, None])


class BinaryQuantizer(nn.Module):
    """Binary latents: h (N, D, *S) -> bits (N, bits, *S), each with a vector of size D, which are
    added up where it is 1. Wang et al. 2023 (binary latent diffusion).

    ndim: number of axes of S
    size: D
    bits: per position

    >>> import torch
    >>> from adbench.engine.codecs.quantization import BinaryQuantizer
    >>> BinaryQuantizer(1, size=4, bits=3).embed(torch.ones(1, 3, 5)).shape
    torch.Size([1, 4, 5])
    """

    def __init__(self, ndim: int, size: int, bits: int) -> None:
        super().__init__()
        kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]
        self.chance = kind(size, bits, 1)
        self.vectors = nn.Parameter(torch.randn(bits, size))

    def probabilities(self, h: Tensor) -> Tensor:
        """The probability that each bit is 1, (N, bits, *S) float32."""
        return self.chance(h).float().sigmoid()

    def sample(self, probability: Tensor, rng: Rng) -> Tensor:
        """Draw bits, 1 with their probability, to which the gradient passes straight through."""
        bits = (rng.uniform(probability.shape[1:]) < probability.detach()).to(probability.dtype)
        return bits + (probability - probability.detach())  # which is 0 exactly

    def embed(self, bits: Tensor) -> Tensor:
        """The sum of the vectors of bits, which may be soft, (N, bits, *S) -> (N, D, *S)."""
        return torch.einsum("nb...,bd->nd...", bits, self.vectors.to(bits.dtype))
