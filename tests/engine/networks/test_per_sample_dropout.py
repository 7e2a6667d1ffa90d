"""Dropout by each sample's own stream: what is dropped, how much, and in which batch."""

from __future__ import annotations

import pytest
import torch

from adbench.engine.networks.diffusion_unet import build_unet
from adbench.engine.networks.per_sample_dropout import PerSampleDropout
from adbench.engine.runtime import compilation
from adbench.engine.runtime.rng import Rng


def net() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = build_unet(2, 2, (8, 16), res_blocks=1, head_channels=8)
        for p in unet.parameters():  # some begin at nothing
            torch.nn.init.normal_(p, std=0.1)
    return unet


X, T = Rng(["x"]).normal((4, 2, 8, 8))[0], torch.zeros(4, dtype=torch.long)
KEYS = ["a", "b", "c", "d"]


@torch.no_grad()
def test_each_row_drops_its_own_in_any_batch_and_nothing_outside() -> None:
    unet = net()
    before = unet(X, T)
    dropout = PerSampleDropout(unet, 0.5)
    with dropout.with_streams(Rng(KEYS), X):
        whole = unet(X, T)
    with dropout.with_streams(Rng(KEYS[2:]), X[2:]):
        part = unet(X[2:], T[2:])
    torch.testing.assert_close(part, whole[2:], rtol=1e-4, atol=1e-5)
    assert (whole - before).abs().amax((1, 2, 3)).min() > 1e-3
    with dropout.with_streams(Rng(KEYS).at(1), X):  # another step, another draw
        assert not torch.allclose(unet(X, T), whole, atol=1e-3)
    assert torch.equal(unet(X, T), before)
    state = torch.get_rng_state()
    with dropout.with_streams(Rng(KEYS), X):
        assert torch.equal(unet(X, T), whole)
    assert torch.equal(state, torch.get_rng_state())


@torch.no_grad()
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_share_is_dropped_and_the_mean_stays(share: float) -> None:
    dropout = PerSampleDropout(net(), share)
    ones = torch.ones(2, 8, 64, 64)
    with dropout.with_streams(Rng(["a", "b"]), ones):
        got = dropout._drop_values("block", torch.nn.Identity(), (ones,))
    assert got is not None
    for row in got:
        assert (row == 0).double().mean().item() == pytest.approx(share, abs=0.015)
        assert row.max().item() == pytest.approx(1 / (1 - share))
    assert not torch.equal(got[0], got[1])


def test_all_or_more_cannot_be_dropped() -> None:
    with pytest.raises(ValueError, match="not 1"):
        PerSampleDropout(net(), 1.0)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_a_compiled_network_is_one_graph_and_drops_the_same(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first call with dropout, which is not compiled."""
    graphs = list[int]()

    def count(graph: torch.fx.GraphModule, example: object) -> torch.fx.GraphModule:
        graphs.append(len(graph.graph.nodes))
        return graph

    monkeypatch.setattr(compilation, "BACKEND", count)
    torch.compiler.reset()
    unet, dropped = net(), list[list[torch.Tensor]]()
    dropout = PerSampleDropout(unet, rate)
    for compiled in (False, True):
        if compiled:
            compilation.compile_network(unet, "on")
        dropped.append([])
        for step in range(3):
            with dropout.with_streams(Rng(KEYS).at(step), X):
                dropped[-1].append(unet(X, T))
    assert len(graphs) == 1 and graphs[0] > 100
    for one, other in zip(*dropped, strict=True):
        torch.testing.assert_close(one, other)
