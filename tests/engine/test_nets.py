"""The networks are the papers': counted parameters, heads, and every number of axes."""

from __future__ import annotations

import pytest
import torch

from adbench.engine.cost import flops, parameters
from adbench.engine.nets import divisor, set_heads, unet


def test_anoddpms_unet_has_the_papers_parameters() -> None:
    """methods-1, T1.9."""
    widths = (128, 128, 256, 256, 512, 512)
    with torch.device("meta"):
        net = unet(
            2, 1, widths, attention=(False, False, False, True, True, True), updown=True,
            head_channels=[w // 2 for w in widths],
        )  # fmt: skip
    assert parameters(net) == 131_649_793


def test_autoddpms_unet_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        net = unet(
            2, 1, (128, 256, 256), res_blocks=1, attention=(False, True, True), head_channels=256
        )
    assert parameters(net) == 18_500_993


@pytest.mark.parametrize("shape", [(16,), (8, 12), (4, 8, 4)])
@pytest.mark.parametrize("updown", [False, True])
def test_a_unet_takes_any_number_of_axes(shape: tuple[int, ...], updown: bool) -> None:
    torch.manual_seed(0)
    net = unet(len(shape), 2, (8, 16, 16), res_blocks=1, attention=(False, False, True),
               head_channels=8, updown=updown)  # fmt: skip
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x = torch.randn(3, 2, *shape)
    t = torch.tensor([0, 5, 900])
    out = net(x, t)
    assert out.shape == x.shape and divisor((8, 16, 16)) == 4
    later = net(x, t + 50)
    assert not torch.allclose(out, later), "time is heard"
    torch.testing.assert_close(net(x[1:2], t[1:2]), out[1:2], rtol=1e-3, atol=1e-3)


def test_fewer_heads_are_another_network_with_the_same_weights() -> None:
    torch.manual_seed(0)
    net = unet(2, 1, (16, 16), res_blocks=1, attention=(False, True), head_channels=8)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    one = unet(2, 1, (16, 16), res_blocks=1, attention=(False, True), head_channels=16)
    one.load_state_dict(net.state_dict())
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 9])
    two_heads = net(x, t)
    set_heads(net, 1)
    torch.testing.assert_close(net(x, t), one(x, t))
    assert not torch.allclose(two_heads, one(x, t))


def test_flops_of_a_convolution_are_counted() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.conv(x)

    assert flops(Net(), 3, (7, 6)) == 2 * 5 * 3 * 9 * 42
