"""Dropout whose draws belong to a sample, not to its batch: in any batch the same values are
dropped.

torch's own dropout draws for a whole batch from the global stream, which a resumed training does
not restore.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..runtime.rng import Rng


class PerSampleDropout:
    """Dropout before the second convolution of every residual block of a `build_unet`, as in
    guided-diffusion; active only within `with_streams`.

    net: of `build_unet`
    rate: share of the values that are dropped, in [0, 1); ValueError for another
    """

    def __init__(self, net: nn.Module, rate: float) -> None:
        from .monai_unet import ResidualBlock  # here: importing MONAI takes seconds

        if not 0 <= rate < 1:
            raise ValueError(f"a dropout rate lies in 0..1, not {rate}")
        self.rate, self._generators = rate, list[torch.Generator]()
        for part in net.modules():
            if rate and isinstance(part, ResidualBlock):
                part.conv2.register_forward_pre_hook(self._drop_values)

    @contextmanager
    def with_streams(self, rng: Rng) -> Iterator[None]:
        """A context in which the network drops values, each row by its stream."""
        seeds = rng.fork("dropout").seeds(1)[:, 0].tolist()
        self._generators = [torch.Generator(rng.device).manual_seed(seed) for seed in seeds]
        try:
            yield
        finally:
            self._generators = []

    def _drop_values(self, part: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
        if not self._generators:
            return None
        x = inputs[0]
        mask = torch.stack([
            torch.empty_like(row).bernoulli_(1 - self.rate, generator=generator)
            for row, generator in zip(x.detach(), self._generators, strict=True)
        ])  # fmt: skip
        return x * mask / (1 - self.rate)
