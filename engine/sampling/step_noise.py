"""The noise of many chains' steps, drawn for several moves at once.

A draw belongs to its chain and to the level that a step starts from, so when it is made does not
matter; but for a few small rows it costs as much as for many.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise.noise import Noise
from ..runtime.rng import Rng
from .continuous_batching import ChainBatch

BLOCK_VALUES = 2**16
"""How many values are drawn at once, about: more leave a processor's cache."""


class StepNoise:
    """rng: one stream per chain; a step draws at the level that it starts from."""

    def __init__(self, rng: Rng, noise: Noise) -> None:
        self.rng, self.noise = rng, noise
        self.drawn_ahead: dict[tuple[int, int], Tensor] = {}

    def __call__(self, batch: ChainBatch, x: Tensor) -> Tensor:
        """For the moves that these rows are at, like x (B, C, *S)."""
        now = [
            (job, path[0].start_level)
            for job, path in zip(batch.chain.tolist(), batch.upcoming, strict=True)
        ]
        missing = [i for i, key in enumerate(now) if key not in self.drawn_ahead]
        if missing:
            moves = max(1, BLOCK_VALUES // (len(missing) * x[0].numel()))
            keys = [
                (now[i][0], move.start_level) for i in missing for move in batch.upcoming[i][:moves]
            ]
            job, level = torch.tensor(keys).T
            level = level.to(x.device)
            drawn = self.noise(self.rng.rows(job).at(level), x.shape[1:], level)
            self.drawn_ahead.update(zip(keys, drawn.unbind(), strict=True))
        return torch.stack([self.drawn_ahead.pop(key) for key in now])
