"""The precision of networks: what `call_net` and `autocast` compute in, and what stays float32."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.networks.diffusion_unet import build_unet
from adbench.engine.runtime.context import DeviceContext, TrainingContext, numerics_fields
from adbench.engine.runtime.precision import LowPrecisionModule


class Probe(nn.Module):
    """Returns its input times a weight, and remembers the precision it was called in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0 + 2**-12))
        self.dtypes: list[torch.dtype] = []

    def forward(self, x: Tensor, *_: Tensor) -> Tensor:
        self.dtypes.append(x.dtype)
        return x * self.weight


def module(dtype: torch.dtype) -> LowPrecisionModule:
    part = LowPrecisionModule()
    part.net, part.dtype = Probe(), dtype
    return part.eval()


def test_inference_uses_a_copy_in_low_precision_and_returns_float32() -> None:
    part = module(torch.bfloat16)
    output = part.call_net(lambda net, x: net(x), torch.ones(2))
    assert output.dtype == torch.float32
    assert output.tolist() == [1.0, 1.0]  # 1 + 2^-12 rounds to 1 in 8 bits of mantissa
    assert part.get_submodule("net").weight.dtype == torch.float32
    assert list(part.state_dict()) == ["net.weight"]


def test_the_copy_follows_the_weights() -> None:
    part = module(torch.bfloat16)
    assert part.call_net(lambda net, x: net(x), torch.ones(1)).item() == 1
    first = part.net_in_use()
    assert part.net_in_use() is first
    with torch.no_grad():
        next(part.parameters()).fill_(3)
    assert part.call_net(lambda net, x: net(x), torch.ones(1)).item() == 3
    part.load_state_dict({"net.weight": torch.tensor(5.0)})
    assert part.call_net(lambda net, x: net(x), torch.ones(1)).item() == 5
    assert copy.deepcopy(part).call_net(lambda net, x: net(x), torch.ones(1)).item() == 5


def test_integers_are_not_cast() -> None:
    def call(net: nn.Module, x: Tensor, t: Tensor) -> Tensor:
        assert t.dtype == torch.int64
        return net(x)

    module(torch.bfloat16).call_net(call, torch.ones(1), torch.tensor([999]))


def test_float32_is_the_network_itself() -> None:
    part = module(torch.float32)
    assert part.net_in_use() is part.net
    assert part.call_net(lambda net, x: net(x), torch.ones(1)).item() == 1 + 2**-12


def test_training_keeps_the_weights_in_float32() -> None:
    part = LowPrecisionModule().train()
    part.net, part.dtype = nn.Linear(4, 2), torch.bfloat16
    output = part.call_net(lambda net, x: net(x), torch.ones(3, 4))
    output.sum().backward()
    gradient = part.get_submodule("net").weight.grad
    assert output.dtype == torch.float32
    assert gradient is not None and gradient.dtype == torch.float32


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_unet_in_low_precision_is_near_the_same_in_float32(axes: int) -> None:
    torch.manual_seed(0)
    net = build_unet(axes, 1, (8, 8), res_blocks=1, attention=(False, True), head_channels=8)
    with torch.no_grad():
        for value in net.parameters():  # the last layers begin at 0
            value.normal_(std=0.2)
    denoiser = Denoiser(net, linear_schedule(), prediction_type="clean").eval()
    x, level = torch.randn(3, 1, *(8,) * axes), torch.tensor([1, 500, 1000])
    with torch.no_grad():
        full = denoiser(x, level)
        DeviceContext(dtype=torch.bfloat16).place(denoiser)
        low = denoiser(x, level)
    assert low.dtype == torch.float32
    error = (low - full).abs().max() / full.abs().max()
    assert 0 < error < 0.05


def test_names_of_numerics() -> None:
    for name in ("float32", "tf32", "bfloat16"):
        assert DeviceContext(**numerics_fields(name)).numerics == name
    assert TrainingContext(**numerics_fields("tf32")).dtype == torch.float32
    with pytest.raises(ValueError, match="not in 'half'"):
        numerics_fields("half")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions_train_in_float32_on_a_cpu_where_torchs_gradients_are_wrong(axes: int) -> None:
    """At these sizes the bfloat16 gradient of torch 2.15 is memory that nobody wrote."""
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    part = LowPrecisionModule()
    part.net = convolution(24, 8, 3, stride=2, padding=1)
    x = torch.randn(2, 24, *[1] * axes, generator=torch.Generator().manual_seed(0))
    gradients = []
    for dtype in (torch.float32, torch.bfloat16):
        part.dtype = dtype
        part.train().zero_grad()
        part.call_net(lambda net, value: net(value), x).square().sum().backward()
        gradients.append([p.grad for p in part.parameters()])
    for expected, gradient in zip(*gradients, strict=True):
        assert expected is not None and gradient is not None and torch.equal(expected, gradient)


def test_products_train_in_bfloat16_on_a_cpu() -> None:
    part = LowPrecisionModule()
    part.net, part.dtype = nn.Linear(4, 2), torch.bfloat16
    seen: list[torch.dtype] = []
    part.net.register_forward_hook(lambda _net, _inputs, output: seen.append(output.dtype))
    assert part.train().call_net(lambda net, x: net(x), torch.ones(3, 4)).dtype == torch.float32
    assert seen == [torch.bfloat16]
