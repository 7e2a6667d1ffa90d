"""Random streams: noise belongs to a sample, not to the batch in which it is computed.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) in integer
tensor operations: counter-based, so a draw depends on (seed, sample key, purpose, step) alone,
and the integers are the same on every device. Normals are Box-Muller in float64, rounded to
float32, which hides the last-digit differences between devices' logarithms.

Our own because torch.Generator gives other numbers on a GPU than on a CPU, has one state for a
whole batch, and reaches a step only by drawing everything before it. The price, on one CPU core:
64 samples of 64 x 64 take 11 ms, by a torch.Generator per sample 1 ms (512 samples of 16 values:
0.5 ms and 2.1 ms); one evaluation of a network on them takes seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor

from .compiled_kernels import call_compiled
from .transfer import to_device

LOW = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


class Rng:
    """Counter-based random streams, one per sample: the same noise in any batch and any order.

    Consecutive draws from one Rng differ; `fork` and `at` open new streams that do not depend on
    what was drawn before.

    keys: N stable names, one per sample; with `seed` they determine everything drawn
    seed: of the experiment
    device: of the tensors drawn; the integers are the same on every device

    >>> from adbench.engine.runtime.rng import Rng
    >>> rng = Rng(["patient-07/slice-41", "patient-08/slice-02"])
    >>> alone = Rng(["patient-08/slice-02"]).fork("noise").normal((4,))
    >>> bool((rng.fork("noise").normal((4,))[1] == alone[0]).all())
    True
    """

    def __init__(
        self, keys: Sequence[str], seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self.keys, self.seed, self.device = tuple(keys), seed, torch.device(device)
        self._words = _stream_words(self.keys, seed, self.device)
        self._step = torch.zeros(len(self.keys), dtype=torch.int64, device=self.device)
        self._host_step: Tensor | None = torch.zeros(len(self.keys), dtype=torch.int64)
        self._draws = 0

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def step(self) -> Tensor:
        """The step of each stream, (N,) int64; on the CPU unless it was computed on the device."""
        return self._step if self._host_step is None else self._host_step

    def fork(self, *names: object) -> Rng:
        """New streams for the purpose `names`, at the same steps."""
        suffix = "\0".join(map(str, names))
        keys = [f"{key}\0{suffix}" for key in self.keys]
        words = _stream_words(tuple(keys), self.seed, self.device)
        return self._with_streams(keys, words, self._step, self._host_step)

    def at(self, step: int | Tensor) -> Rng:
        """New streams at a step, one number or one per sample (N,), 0 <= step < 2**32."""
        on_host = not isinstance(step, Tensor) or step.device.type == "cpu"
        host_step = torch.zeros(len(self), dtype=torch.int64) + step if on_host else None
        if isinstance(step, Tensor):
            step = to_device(step, self.device)
        step = torch.zeros_like(self._step) + step
        return self._with_streams(self.keys, self._words, step, host_step)

    def rows(self, index: Tensor) -> Rng:
        """The streams of the samples at `index` (M,), in that order, repeats allowed.

        index: on the CPU, or the host waits for it
        """
        index = index.cpu()
        keys = [self.keys[i] for i in index.tolist()]
        host_step = None if self._host_step is None else self._host_step[index]
        index = to_device(index, self.device)
        return self._with_streams(keys, self._words[index], self._step[index], host_step)

    def shared(self) -> Rng:
        """The same stream for every sample: for published code that draws once per batch."""
        keys = ["shared\0" + key.partition("\0")[2] for key in self.keys]
        words = _stream_words(tuple(keys), self.seed, self.device)
        return self._with_streams(keys, words, self._step, self._host_step)

    @staticmethod
    def cat(rngs: Sequence[Rng]) -> Rng:
        """Join the streams of several Rngs, in their order."""
        host_steps = [rng._host_step for rng in rngs if rng._host_step is not None]
        return rngs[0]._with_streams(
            [key for rng in rngs for key in rng.keys],
            torch.cat([rng._words for rng in rngs]),
            torch.cat([rng._step for rng in rngs]),
            torch.cat(host_steps) if len(host_steps) == len(rngs) else None,
        )

    def bits(self, count: int) -> Tensor:
        """Draw (N, count) int64, uniform on 0 .. 2**32 - 1."""
        blocks = -(-count // 4)
        self._draws += 1
        block = torch.arange(blocks, dtype=torch.int64, device=self.device).expand(len(self), -1)
        draws = torch.full_like(block, self._draws)
        words = call_compiled(_draw_words, block, self._step[:, None], draws, self._words)
        return torch.stack(words, -1).flatten(1)[:, :count]

    def uniform(self, shape: Sequence[int] = ()) -> Tensor:
        """Draw (N, *shape) float64, uniform in (0, 1), never the ends."""
        return ((self.bits(math.prod(shape)).double() + 0.5) / 2**32).view(len(self), *shape)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Draw standard normal noise, (N, *shape) float32."""
        count = math.prod(shape)
        pairs = -(-count // 2)
        u = (self.bits(2 * pairs).double() + 0.5) / 2**32
        values = torch.cat(call_compiled(_box_muller, u[:, :pairs], u[:, pairs:]), 1)
        return values[:, :count].view(len(self), *shape)

    def integers(self, high: int, shape: Sequence[int] = ()) -> Tensor:
        """Draw (N, *shape) int64, uniform on 0 .. high - 1; high is at most 2**31."""
        return ((self.bits(math.prod(shape)) * high) >> 32).view(len(self), *shape)

    def seeds(self, count: int) -> Tensor:
        """Draw (N, count) int64 in 1 .. 2**62: seeds for generators of another kind.

        Drawn on the CPU, where such generators are seeded, unless a step is known to the device
        alone.
        """
        streams = self
        if self._host_step is not None and self.device.type != "cpu":
            streams = Rng(self.keys, self.seed).at(self._host_step)
            streams._draws, self._draws = self._draws, self._draws + 1
        high, low = streams.bits(2 * count).chunk(2, 1)
        return ((high >> 2) << 32 | low) + 1

    def _with_streams(
        self, keys: Sequence[str], words: Tensor, step: Tensor, host_step: Tensor | None
    ) -> Rng:
        other = object.__new__(Rng)
        other.keys, other.seed, other.device = tuple(keys), self.seed, self.device
        other._words, other._step, other._host_step, other._draws = words, step, host_step, 0
        return other


@lru_cache(maxsize=256)  # a training forks the same streams at every step
def _stream_words(keys: tuple[str, ...], seed: int, device: torch.device) -> Tensor:
    """The two words of every stream's key, (N, 2) int64; never written to."""
    words = [_hash_words(f"{seed}\0{key}") for key in keys]
    return to_device(torch.tensor(words, dtype=torch.int64).view(-1, 2), device)


def _hash_words(name: str) -> tuple[int, int]:
    digest = blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")


def _draw_words(block: Tensor, step: Tensor, draw: Tensor, key: Tensor) -> tuple[Tensor, ...]:
    """The words of blocks (N, M) at steps (N, 1) of the streams with these keys (N, 2)."""
    return _philox((block, step, draw, block * 0), (key[:, :1], key[:, 1:]))


def _box_muller(radius: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Two standard normal float32 values from two float64 values that are uniform on (0, 1)."""
    radius = (-2 * radius.log()).sqrt()
    angle = 2 * math.pi * angle
    return (radius * angle.cos()).float(), (radius * angle.sin()).float()


def _philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Philox4x32-10, four words per counter: ten rounds on int64 tensors that hold 32-bit words.

    int64 products wrap, which keeps their 64 bits right; the mask removes the sign that the shift
    brings in.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        left, right = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (right >> 32 & LOW) ^ c1 ^ k0,
            right & LOW,
            (left >> 32 & LOW) ^ c3 ^ k1,
            left & LOW,
        )
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return c0, c1, c2, c3
