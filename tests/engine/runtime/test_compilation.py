"""Compiled networks: the mode by the input's size, one graph, few batch shapes, no compiler."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._dynamo import config

from adbench.engine.codecs.autoencoder import KL
from adbench.engine.networks.diffusion_unet import build_unet
from adbench.engine.runtime import compilation
from adbench.engine.runtime.compilation import (
    compile_network,
    compiles,
    is_compiled,
    rows_at_a_time,
    torch_mode,
)
from adbench.engine.runtime.context import BatchedModule, DeviceContext


@pytest.fixture(autouse=True)
def _without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilation, "BACKEND", "eager")
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("choice", "kind", "shape", "mode"),
    [
        ("auto", "cuda", (64, 1, 256, 256), "default"),
        ("auto", "cuda", (8, 3, 128, 128), "default"),
        ("auto", "cuda", (64, 1, 64, 64), "reduce-overhead"),
        ("auto", "cuda", (1, 1, 256, 256), "reduce-overhead"),  # training of one row
        ("auto", "cuda", (8, 1, 16, 32, 32), "default"),
        ("auto", "cuda", (64, 512), "reduce-overhead"),
        ("on", "cuda", (64, 1, 64, 64), "default"),
        ("reduce-overhead", "cuda", (64, 1, 256, 256), "reduce-overhead"),
        ("on", "cpu", (1, 1, 8, 8), "default"),
    ],
)
def test_the_mode_follows_the_size_of_the_input(
    choice: Any, kind: str, shape: tuple[int, ...], mode: str
) -> None:
    assert torch_mode(choice, torch.empty(shape, device="meta"), kind) == mode


def test_nothing_is_compiled_on_a_cpu_unless_asked() -> None:
    assert [compiles(choice, "cpu") for choice in ("auto", "on", "off", "reduce-overhead")] == [
        False, True, False, False
    ]  # fmt: skip
    assert DeviceContext(compile="auto", device="cuda").compiles
    assert not DeviceContext(compile="off", device="cuda").compiles


@given(st.integers(1, 200), st.integers(1, 200))
def test_a_step_is_cut_into_equal_parts_or_left(count: int, micro: int) -> None:
    rows = rows_at_a_time(count, micro)
    assert 1 <= rows <= micro or count < micro
    assert count % rows == 0 or rows == micro
    assert -(-count // rows) <= 2 * -(-count // micro)


def test_a_unet_is_one_graph_for_each_use(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = list[torch.fx.GraphModule]()
    monkeypatch.setattr(
        compilation, "BACKEND", lambda graph, example: graphs.append(graph) or graph
    )
    net = build_unet(3, 1, (8,), res_blocks=1, head_channels=8)
    compile_network(net, "on")
    x, t = torch.zeros(2, 1, 4, 4, 4), torch.zeros(2, dtype=torch.int64)
    for _ in range(2):
        net(x, t).sum().backward()
        with torch.no_grad():
            net.eval()(x, t)
        net.train()
    assert len(graphs) == 2  # training and inference
    assert config.recompile_limit >= 64


def test_a_codec_is_compiled_by_halves() -> None:
    codec = KL((1, 8, 8), latent_channels=2, widths=(4,), res_blocks=1)
    before = list(codec.state_dict())
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        plain = codec.eval().decode(codec.encode(x))
        DeviceContext(compile="on").place(codec)
        assert is_compiled(codec.net) and list(codec.state_dict()) == before
        torch.testing.assert_close(codec.decode(codec.encode(x)), plain)


def test_a_copy_in_another_precision_is_compiled_like_its_network() -> None:
    class Half(BatchedModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.call_net(lambda net, rows: net(rows), x)

    module = Half().eval()
    DeviceContext(compile="on", dtype=torch.bfloat16).place(module)
    assert module(torch.ones(3, 4)).dtype == torch.float32
    assert module.net_in_use() is not module.net and is_compiled(module.net_in_use())


def test_without_a_compiler_the_call_is_eager_with_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(graph: torch.fx.GraphModule, example: object) -> Any:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(compilation, "BACKEND", broken)
    net, x = nn.Linear(2, 1), torch.ones(3, 2)
    plain = net(x)
    compile_network(net, "on")
    with pytest.warns(UserWarning, match=r"Linear could not be compiled .*C compiler"):
        assert torch.equal(net(x), plain)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(net(x), plain)


def test_an_error_of_the_network_itself_is_not_hidden() -> None:
    net = nn.Linear(2, 1)
    compile_network(net, "on")
    with pytest.raises(Exception, match=r"shape|size"):
        net(torch.ones(3, 4))
