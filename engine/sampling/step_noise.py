"""The noise of many chains' steps, drawn for several steps at once.

A draw belongs to its chain and to the level where a step starts, so it does not matter when it is
drawn; but a draw for a few small rows costs as much as for many.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..noise.noise import Noise
from ..runtime.rng import Rng
from ..runtime.transfer import to_device
from .continuous_batching import ChainBatch

BLOCK_VALUES, DEVICE_BLOCK_VALUES = 2**16, 2**22
"""How many values are drawn at once, about, on a CPU and elsewhere: more leave a processor's cache,
or take a gigabyte of a GPU's memory."""


class StepNoise:
    """The noise that samplers add in their steps.

    rng: one stream per chain; a step draws at the level where it starts
    noise: what is drawn

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.continuous_batching import ChainBatch
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> from adbench.engine.noise.noise import gaussian
    >>> from adbench.engine.sampling.continuous_batching import Step
    >>> step_noise, levels = StepNoise(Rng(["a", "b"]), gaussian), torch.tensor([5])
    >>> chain, zero = torch.tensor([1]), torch.tensor([0])
    >>> batch = ChainBatch(chain, chain, zero, levels, levels, zero, [[Step(5, 5, 0)]])
    >>> step_noise(batch, torch.zeros(1, 1, 4)).shape
    torch.Size([1, 1, 4])
    """

    def __init__(self, rng: Rng, noise: Noise) -> None:
        self.rng, self.noise = rng, noise
        self.drawn_ahead: dict[tuple[int, int], Tensor] = {}

    def __call__(self, batch: ChainBatch, x: Tensor) -> Tensor:
        """The noise of the chains' present steps, like x (B, C, *S)."""
        present = [
            (chain, path[0].start_level)
            for chain, path in zip(batch.chain.tolist(), batch.upcoming, strict=True)
        ]
        missing = [i for i, key in enumerate(present) if key not in self.drawn_ahead]
        if missing:
            values = BLOCK_VALUES if x.device.type == "cpu" else DEVICE_BLOCK_VALUES
            steps = max(1, values // (len(missing) * x[0].numel()))
            keys = [
                (present[i][0], step.start_level)
                for i in missing
                for step in batch.upcoming[i][:steps]
            ]
            chain, level = torch.tensor(keys).T
            streams, level = self.rng.rows(chain).at(level), to_device(level, x.device)
            drawn = self.noise(streams, x.shape[1:], level)
            self.drawn_ahead.update(zip(keys, drawn.unbind(), strict=True))
        return torch.stack([self.drawn_ahead.pop(key) for key in present])
