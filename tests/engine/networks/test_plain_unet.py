"""The plain UNet: its parameters, its convolutions and its skips."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import conv2d, pad

from adbench.engine.networks.plain_unet import PlainUNet, WeightStandardizedConv, group_count


@pytest.mark.parametrize("shape", [(16,), (16, 12), (8, 12, 8)])
def test_it_gives_back_what_it_takes_in_every_dimension(shape: tuple[int, ...]) -> None:
    net = PlainUNet(len(shape), 3, (8, 16, 16))
    x = torch.rand(2, 3, *shape)
    assert net(x, torch.zeros(2)).shape == x.shape


def test_its_parameters_are_those_of_the_papers_network() -> None:
    """Depth 4 from 64 channels on: two convolutions of three places a block, a doubling between
    two resolutions, one place at the end; a norm has two numbers a channel."""
    with torch.device("meta"):
        net = PlainUNet(2, 4, (64, 128, 256, 512))

    def block(a: int, b: int) -> int:
        return 9 * a * b + b + 9 * b * b + b + 4 * b

    down = block(4, 64) + block(64, 128) + block(128, 256) + block(256, 512)
    up = sum(block(2 * b, b) + 4 * 2 * b * b + b for b in (256, 128, 64))
    assert sum(p.numel() for p in net.parameters()) == down + up + 64 * 4 + 4


def test_groups_are_the_middle_divisor() -> None:
    assert [group_count(c) for c in (1, 6, 16, 64, 128, 256, 512)] == [1, 3, 4, 8, 16, 16, 32]


def test_filters_are_standardised_and_edges_mirrored() -> None:
    conv = WeightStandardizedConv(2, 3, 5)
    x = torch.rand(2, 3, 6, 7)
    weight = conv.conv.weight
    flat = weight.flatten(1)
    shape = (-1, 1, 1, 1)
    even = (weight - flat.mean(1).view(shape)) / flat.std(1).view(shape)
    expected = conv2d(pad(x, (1, 1, 1, 1), mode="reflect"), even, conv.conv.bias)
    torch.testing.assert_close(conv(x), expected, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        conv.conv.weight.mul_(7).add_(2)
    torch.testing.assert_close(conv(x), expected, rtol=1e-3, atol=1e-3)
