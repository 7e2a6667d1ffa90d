"""Channels last: for images everywhere, for volumes where it pays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.runtime import memory_format as module
from adbench.engine.runtime.context import DeviceContext


class Recorder(nn.Module):
    """A convolution that stores the layout of what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 2, 3, padding=1)
        self.strides = list[tuple[int, ...]]()

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        self.strides.append(x.stride())
        return self.conv(x)


@pytest.mark.parametrize("last", [False, True])
def test_volumes_and_their_weights_have_channels_last_on_a_gpu(
    last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if last:
        monkeypatch.setattr(module, "CHANNELS_LAST_3D_DEVICES", frozenset({"cpu"}))
    denoiser = Denoiser(Recorder(), linear_schedule()).eval()
    DeviceContext().place(denoiser)
    x = torch.rand(8, 2, 4, 5, 6)
    denoiser(x, torch.full((8,), 5))
    weight = denoiser.net.get_parameter("conv.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last_3d) is last
    (stride,) = denoiser.net.get_submodule("").strides  # pyright: ignore
    assert (stride[1] == 1) is last
