"""Folding loses nothing, agrees with torch, and makes a UNet the one that is built by hand."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from adbench.engine.checkpoints.diffusers_export import export_unet
from adbench.engine.checkpoints.formats import convert_file
from adbench.engine.checkpoints.imported_networks import apply_networks
from adbench.engine.checkpoints.reading import CheckpointError
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.networks.diffusion_unet import build_unet, side_divisor
from adbench.engine.networks.folding import fold_blocks, unfold_blocks
from adbench.engine.runtime.context import TrainingContext


@given(
    fold=st.integers(1, 3),
    sides=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    channels=st.integers(1, 3),
)
def test_unfolding_is_the_inverse_of_folding(fold: int, sides: list[int], channels: int) -> None:
    shape = (2, channels, *(fold * side for side in sides))
    x = torch.arange(float(prod(shape))).view(shape)
    folded = fold_blocks(x, fold)
    assert folded.shape == (2, channels * fold ** len(sides), *sides)
    assert torch.equal(unfold_blocks(folded, fold), x)


def test_on_images_it_is_pixel_unshuffle() -> None:
    x = torch.randn(2, 3, 6, 12)
    assert torch.equal(fold_blocks(x, 3), nn.functional.pixel_unshuffle(x, 3))
    y = torch.randn(2, 8, 3, 5)
    assert torch.equal(unfold_blocks(y, 2), nn.functional.pixel_shuffle(y, 2))


def test_each_channel_of_a_volume_is_one_offset_in_a_block() -> None:
    x = torch.randn(1, 1, 4, 2, 6)
    folded = fold_blocks(x, 2)
    for channel in range(8):
        d, h, w = channel // 4, channel // 2 % 2, channel % 2
        assert torch.equal(folded[0, channel], x[0, 0, d::2, h::2, w::2])


@pytest.mark.parametrize("shape", [(16,), (8, 16), (8, 4, 8)])
def test_a_folded_unet_is_the_one_built_by_hand(shape: tuple[int, ...]) -> None:
    """The network on blocks as channels, its image condition folded with the sample."""
    ndim = len(shape)
    options: dict[str, Any] = {"res_blocks": 1, "head_channels": 8}
    torch.manual_seed(0)
    folded = build_unet(ndim, 2, (8, 16), out_channels=3, image=1, fold=2, **options)
    for value in folded.parameters():
        nn.init.normal_(value, std=0.1)
    blocks = 2**ndim
    plain = build_unet(ndim, 3 * blocks, (8, 16), out_channels=3 * blocks, **options)
    plain.load_state_dict(folded.state_dict())
    x, image, time = torch.randn(2, 2, *shape), torch.randn(2, 1, *shape), torch.tensor([3, 700])
    expected = unfold_blocks(plain(fold_blocks(torch.cat([x, image], 1), 2), time), 2)
    result = folded(x, time, image)
    assert result.shape == (2, 3, *shape) and torch.equal(result, expected)


def test_sides_that_do_not_divide_are_refused_in_one_line() -> None:
    net = build_unet(2, 1, (8, 16), res_blocks=1, head_channels=8, fold=3)
    with pytest.raises(ValueError, match=r"^fold=3 does not divide the sides \(12, 16\) of a"):
        net(torch.zeros(1, 1, 12, 16), torch.tensor([1]))
    assert side_divisor((8, 16), fold=3) == 6


def folded_denoiser() -> Denoiser:
    return Denoiser(
        build_unet(2, 1, (8, 16), res_blocks=1, head_channels=8, fold=2), linear_schedule()
    )


def test_it_is_no_network_of_diffusers() -> None:
    with pytest.raises(CheckpointError, match=r"2 pixels a side as channels \(fold=2\)"):
        export_unet(folded_denoiser(), (16, 16))
    method: Any = nn.Module()
    method.denoiser = folded_denoiser()
    method.spec = type("Spec", (), {"shape": (16, 16)})
    with pytest.raises(CheckpointError, match=r"fold=2\): leave fold at 1"):
        apply_networks(method, {"denoiser": {"unet": {"channels": 1, "widths": [8, 16]}}})


def test_weights_of_a_network_on_pixels_do_not_fit(tmp_path: Any) -> None:
    pixels = build_unet(2, 1, (8, 16), res_blocks=1, head_channels=8)
    torch.save(pixels.state_dict(), tmp_path / "pixels.pt")
    with pytest.raises(CheckpointError, match=r"conv_in.conv.weight"):
        convert_file(folded_denoiser().net, tmp_path / "pixels.pt")
    torch.save(folded_denoiser().net.state_dict(), tmp_path / "folded.pt")
    weights = convert_file(folded_denoiser().net, tmp_path / "folded.pt").weights
    assert weights["conv_in.conv.weight"].shape[1] == 4


def test_a_folded_network_stays_contiguous_on_a_cpu() -> None:
    """Its norms over single channels are slow in channels_last; one on pixels is faster there."""
    for fold, layout in ((1, torch.channels_last), (2, torch.contiguous_format)):
        net: Any = build_unet(2, 1, (8, 16), res_blocks=1, head_channels=8, fold=fold)
        TrainingContext().place(net)
        weight = net.down_blocks[0].resnets[0].conv1.conv.weight
        assert weight.is_contiguous(memory_format=layout)
