"""Dropout whose draws belong to a sample, not to its batch: in any batch the same values are
dropped.

torch's own dropout draws for a whole batch from the global stream, which a resumed training does
not restore, and other values on a GPU than on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from ..runtime.rng import Rng


class PerSampleDropout:
    """Dropout before the second convolution of every residual block of a `build_unet`, as in
    guided-diffusion; active only within `with_streams`.

    net: of `build_unet`
    rate: share of the values that are dropped, in [0, 1); ValueError for another

    >>> import torch
    >>> from adbench.engine.networks.diffusion_unet import build_unet
    >>> from adbench.engine.networks.per_sample_dropout import PerSampleDropout
    >>> from adbench.engine.runtime.rng import Rng
    >>> net = build_unet(1, 1, (8,), res_blocks=1, head_channels=8)
    >>> x, time = torch.ones(2, 1, 4), torch.ones(2)
    >>> for value in net.parameters():
    ...     _ = torch.nn.init.constant_(value, 0.1)
    >>> dropout = PerSampleDropout(net, 0.5)
    >>> with dropout.with_streams(Rng(["a", "b"]), x):
    ...     both = net(x, time)
    >>> with dropout.with_streams(Rng(["b"]), x[1:]):
    ...     alone = net(x[1:], time[1:])
    >>> torch.allclose(both[1], alone[0]), torch.allclose(both[0], both[1])
    (True, False)
    """

    def __init__(self, net: nn.Module, rate: float) -> None:
        from .monai_unet import ResidualBlock  # here: importing MONAI takes seconds

        if not 0 <= rate < 1:
            raise ValueError(f"a dropout rate lies in 0..1, not {rate}")
        self.rate, self._streams = rate, cast("Rng | None", None)
        self._shapes = dict[torch.Size, dict[str, torch.Size]]()
        self._retained = dict[str, Tensor]()  # of each block, (N, C, *S) bool
        for name, part in net.named_modules():
            if rate and isinstance(part, ResidualBlock):
                part.conv2.register_forward_pre_hook(partial(self._drop_values, name))

    @contextmanager
    def with_streams(self, rng: Rng, x: Tensor) -> Iterator[None]:
        """A context for one call of the network, which drops values, each row by its stream.

        All draws are made here, before the call, so that a compiled network is one graph. Only the
        first call with rows of a shape draws as it goes, not compiled: it shows the blocks' shapes.

        rng: one stream per row
        x: the rows that the network is called with, (N, C, *S)
        """
        self._streams = rng.fork("dropout")
        shapes = self._shapes.get(x.shape[1:])
        try:
            for name, shape in (shapes or {}).items():  # in the order of the call
                self._retained[name] = self._draw(shape)
            first = bool(self.rate) and shapes is None  # set_stance acts when it is constructed
            with torch.compiler.set_stance("force_eager") if first else nullcontext():
                yield
            if shapes is None:
                drawn = {name: value.shape[1:] for name, value in self._retained.items()}
                self._shapes[x.shape[1:]] = drawn
        finally:
            self._streams, self._retained = None, {}

    def _draw(self, shape: Sequence[int]) -> Tensor:
        assert self._streams is not None
        bits = self._streams.bits(math.prod(shape))  # each block draws on
        return (bits >= round(self.rate * 2**32)).view(-1, *shape)

    def _drop_values(self, name: str, part: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
        if self._streams is None:
            return None
        if name not in self._retained:
            self._retained[name] = self._draw(inputs[0].shape[1:])
        return inputs[0] * self._retained[name] / (1 - self.rate)
