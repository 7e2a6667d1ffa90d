"""Dropout whose draws belong to a sample, not to its batch: in any batch the same values are
dropped.

torch's own dropout draws for a whole batch from the global stream, which a resumed training does
not restore, and other values on a GPU than on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    >>> with dropout.with_streams(Rng(["a", "b"])):
    ...     both = net(x, time)
    >>> with dropout.with_streams(Rng(["b"])):
    ...     alone = net(x[1:], time[1:])
    >>> torch.allclose(both[1], alone[0]), torch.allclose(both[0], both[1])
    (True, False)
    """

    _streams: Rng | None

    def __init__(self, net: nn.Module, rate: float) -> None:
        from .monai_unet import ResidualBlock  # here: importing MONAI takes seconds

        if not 0 <= rate < 1:
            raise ValueError(f"a dropout rate lies in 0..1, not {rate}")
        self.rate, self._streams = rate, None
        for part in net.modules():
            if rate and isinstance(part, ResidualBlock):
                part.conv2.register_forward_pre_hook(self._drop_values)

    @contextmanager
    def with_streams(self, rng: Rng) -> Iterator[None]:
        """A context in which the network drops values, each row by its stream."""
        self._streams = rng.fork("dropout")
        try:
            yield
        finally:
            self._streams = None

    def _drop_values(self, part: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor | None:
        if self._streams is None:
            return None
        x = inputs[0]
        bits = self._streams.bits(x[0].numel()).view_as(x)  # each block draws on
        return x * (bits >= round(self.rate * 2**32)) / (1 - self.rate)
