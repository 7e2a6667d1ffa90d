"""The WaveNet: the starter network's size and reach, and that it hears the time unless blind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from adbench.engine.networks.wavenet import WaveNet
from adbench.engine.profiling.cost import count_parameters

FORK: dict[str, Any] = {"layers": 8, "cycle": 3, "width": 256, "blind": True}


@pytest.mark.parametrize(
    ("more", "count"),
    [(FORK, 4_269_570), ({"blind": True}, 995_202), ({"blind": True, "width": 128}, 3_964_674),
     ({}, 2_308_866)],
)  # fmt: skip
def test_blind_it_is_the_challenges_and_else_time_is_added_to_every_layer(
    more: dict[str, Any], count: int
) -> None:
    with torch.device("meta"):
        assert count_parameters(WaveNet(2, **more)) == count


def awake(**more: Any) -> WaveNet:
    torch.manual_seed(0)
    net = WaveNet(2, **more)
    nn.init.normal_(net.exit.weight)
    return net


@pytest.mark.parametrize(
    ("layers", "cycle", "reach", "length"), [(8, 3, 35, 101), (30, 10, 6139, 7001)]
)
def test_its_reach_by_where_the_gradient_is(
    layers: int, cycle: int, reach: int, length: int
) -> None:
    net = awake(layers=layers, cycle=cycle, width=8).double()
    x = torch.randn(1, 2, length, dtype=torch.float64, requires_grad=True)
    net(x, torch.tensor([5]))[0, 0, length // 2].backward()
    assert x.grad is not None
    touched = x.grad[0].abs().sum(0).nonzero()[:, 0]
    assert net.receptive_field == reach
    assert (touched.min(), touched.max()) == (length // 2 - reach // 2, length // 2 + reach // 2)


def test_time_is_heard_unless_blind() -> None:
    x, t = torch.randn(2, 2, 50), torch.tensor([3, 400])
    net, blind = awake(layers=4, width=8), awake(layers=4, width=8, blind=True)
    assert not torch.allclose(net(x, t), net(x, t + 100))
    assert torch.equal(blind(x, t), blind(x, t + 100))
    torch.testing.assert_close(net(x, t)[1:], net(x[1:], t[1:]))


def test_time_is_added_before_the_convolution() -> None:
    """What it says of a level is what a blind one does with that much more in every layer."""
    torch.manual_seed(0)
    net, h = awake(layers=3, width=8), torch.randn(2, 8, 20)
    assert net.time is not None
    with torch.no_grad():
        embedding = net.time(torch.tensor([3, 400]), h.dtype)
        assert embedding.shape == (2, 3, 8)
        for i, block in enumerate(net.blocks):
            residual, skipped = block(h, embedding[:, i])
            other, same = block(h + embedding[:, i, :, None], None)
            torch.testing.assert_close(skipped, same)
            moved = embedding[:, i, :, None] / 2**0.5  # past the layer, h goes on as it came
            torch.testing.assert_close(other - residual, moved.expand_as(residual))


def test_before_training_the_output_is_the_last_bias_at_any_length() -> None:
    net = WaveNet(2, out_channels=3, layers=4, width=8)
    bias = net.state_dict()["exit.bias"]
    assert (bias != 0).all()
    for length in (1, 7, 3000):
        output = net(torch.randn(1, 2, length), torch.tensor([3]))
        assert torch.equal(output, bias[None, :, None].expand(1, 3, length))


def test_weights_of_convolutions_begin_as_in_the_starter_network() -> None:
    """Normal of variance 2 / fan-in: at width 16, .204 of the dilated convolutions (kernel 3) and
    .354 of those of kernel 1; the last convolution's weight is 0."""
    torch.manual_seed(0)
    state = WaveNet(2, layers=30, cycle=10, width=16).state_dict()
    dilated = torch.cat([state[f"blocks.{i}.wide.weight"].flatten() for i in range(30)])
    pointwise = torch.cat([state[f"blocks.{i}.both.weight"].flatten() for i in range(30)])
    assert dilated.std().item() == pytest.approx((2 / 48) ** 0.5, rel=0.02)
    assert pointwise.std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.02)
    assert state["skip.weight"].std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.15)
    assert state["entry.weight"].std().item() == pytest.approx(1.0, rel=0.3)
    assert (state["exit.weight"] == 0).all()
    for name in ("skip.bias", "exit.bias"):  # torch's: uniform up to 1 / sqrt(fan-in)
        assert 0 < state[name].abs().max() <= 1 / 4
    with pytest.raises(ValueError, match="at least 1"):
        WaveNet(2, layers=0)
