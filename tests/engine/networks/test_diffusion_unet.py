"""The networks are the papers': counted parameters, heads, conditions, and every number of axes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.engine.networks.diffusion_unet import build_unet, set_heads, side_divisor
from adbench.engine.profiling.cost import count_parameters, evaluation_flops

WOLLEB = (128, 128, 256, 256, 512, 512)
AT_16 = (False, False, False, False, True, False)
BELOW_64 = (False, False, False, True, True, True)

PAPERS: dict[str, tuple[int, tuple[Any, ...], dict[str, Any]]] = {
    "anoddpm": (131_649_793, (2, 1, WOLLEB),
        {"attention": BELOW_64, "updown": True, "head_channels": [w // 2 for w in WOLLEB]}),
    "autoddpm": (18_500_993, (2, 1, (128, 256, 256)),
        {"res_blocks": 1, "attention": (False, True, True), "head_channels": 256}),
    "pddpm": (37_513_857, (2, 1, (128, 256, 256)),
        {"res_blocks": 3, "updown": True, "scale_shift": True}),
    "cddpm": (44_068_481, (2, 1, (128, 256, 256)),
        {"res_blocks": 3, "updown": True, "scale_shift": True, "vector": 512}),
    "wolleb, brats": (113_681_160, (2, 4, WOLLEB),
        {"out_channels": 8, "attention": AT_16, "labels": 2, "head_channels": list(WOLLEB)}),
    "wolleb, unconditional": (113_680_136, (2, 4, WOLLEB),
        {"out_channels": 8, "attention": AT_16, "head_channels": list(WOLLEB)}),
    "wolleb, chexpert": (113_670_786, (2, 1, WOLLEB),
        {"out_channels": 2, "attention": AT_16, "labels": 2, "head_channels": list(WOLLEB)}),
    "ddad": (32_952_707, (2, 3, (64, 64, 128, 128, 256, 256)),
        {"attention": BELOW_64, "updown": True, "head_channels": [16, 16, 32, 32, 64, 64]}),
    "ddad-s": (8_257_731, (2, 3, (32, 32, 64, 64, 128, 128)),
        {"attention": BELOW_64, "updown": True, "head_channels": 16, "dropout": 0.3}),
    "berdiff": (36_034_432, (2, 128, (128, 256, 256, 256)),
        {"attention": (False, True, False, False), "head_channels": [128, 256, 256, 256]}),
    "ddpm-ood, small": (17_709_953, (2, 1, (128, 256, 256)),
        {"res_blocks": 1, "attention": (False, False, True), "head_channels": 256}),
    "ddpm-ood, volumes": (47_493_888, (3, 128, (128, 256, 256)),
        {"res_blocks": 1, "attention": (False, False, True), "head_channels": 256}),
    "ddpm-ood, big": (172_573_187, (2, 3, (256, 512, 768)),
        {"attention": (True,) * 3, "head_channels": 256}),
    "signals": (5_182_850, (1, 2, (64, 128, 192)), {"attention": (True,) * 3, "out_norm": False}),
}  # fmt: skip
"""Parameters, each counted in the authors' code, beside how its network is said to be built."""


@pytest.mark.parametrize("paper", PAPERS)
def test_a_papers_unet_has_the_papers_parameters(paper: str) -> None:
    count, shape, more = PAPERS[paper]
    with torch.device("meta"):
        assert count_parameters(build_unet(*shape, **more)) == count


def small(ndim: int, **more: Any) -> nn.Module:
    """With no weight at zero, so that all of it is heard."""
    torch.manual_seed(0)
    net = build_unet(ndim, 2, (8, 16, 16), res_blocks=1, attention=(False, False, True),
               head_channels=8, **more)  # fmt: skip
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    return net.eval()


@pytest.mark.parametrize("shape", [(16,), (8, 12), (4, 8, 4)])
@pytest.mark.parametrize("more", [{}, {"updown": True}, {"scale_shift": True}])
def test_a_unet_takes_any_number_of_axes(shape: tuple[int, ...], more: dict[str, Any]) -> None:
    net = small(len(shape), **more)
    x, t = torch.randn(3, 2, *shape), torch.tensor([0, 5, 900])
    out = net(x, t)
    assert out.shape == x.shape and side_divisor((8, 16, 16)) == 4
    assert not torch.allclose(out, net(x, t + 50)), "time is heard"
    torch.testing.assert_close(net(x[1:2], t[1:2]), out[1:2], rtol=1e-3, atol=1e-3)


GIVEN = {
    "image": (1, lambda: torch.randn(3, 1, 8, 8)),
    "vector": (5, lambda: torch.randn(3, 5)),
    "context": (6, lambda: torch.randn(3, 4, 6)),
    "labels": (3, lambda: torch.tensor([0, 1, 2])),
}


@pytest.mark.parametrize("condition", GIVEN)
def test_what_a_network_is_given_of_a_sample_is_heard_in_that_sample(condition: str) -> None:
    size, build = GIVEN[condition]
    net = small(2, **{condition: size})
    x, t, conditioning = torch.randn(3, 2, 8, 8), torch.tensor([3, 40, 500]), build()
    other = conditioning.roll(1, 0)
    other[0] = conditioning[0]
    a, b = net(x, t, conditioning), net(x, t, other)
    torch.testing.assert_close(a[0], b[0])
    assert not torch.allclose(a[1], b[1]) and not torch.allclose(a[2], b[2])
    with pytest.raises(ValueError, match="besides x and time; 0 given"):
        net(x, t)


def test_conditions_go_together_and_in_one_order() -> None:
    net = small(2, **{name: size for name, (size, _) in GIVEN.items()})
    x, t = torch.randn(3, 2, 8, 8), torch.tensor([3, 40, 500])
    assert net(x, t, *(build() for _, build in GIVEN.values())).shape == x.shape


def test_a_silent_vector_leaves_the_condition_out() -> None:
    """With its embedding at zero, the output does not depend on it."""
    net = small(2, scale_shift=True, vector=5)
    for p in net.get_submodule("vector_embed").parameters():
        nn.init.zeros_(p)
    x, t = torch.randn(3, 2, 8, 8), torch.tensor([3, 40, 500])
    assert torch.equal(net(x, t, torch.randn(3, 5)), net(x, t, torch.zeros(3, 5)))


def test_without_conditions_it_computes_what_monais_does() -> None:
    from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet

    ours = small(2, updown=True, labels=3)
    theirs = DiffusionModelUNet(
        spatial_dims=2, in_channels=2, out_channels=2, channels=(8, 16, 16), num_res_blocks=1,
        attention_levels=(False, False, True), num_head_channels=8, norm_num_groups=8,
        resblock_updown=True, num_class_embeds=3,
    ).eval()  # fmt: skip
    theirs.load_state_dict(ours.state_dict())
    x, t, label = torch.randn(2, 2, 8, 12), torch.tensor([1, 700]), torch.tensor([0, 2])
    torch.testing.assert_close(ours(x, t, label), theirs(x, t, class_labels=label))


def test_the_last_norm_can_be_left_out() -> None:
    """Then it is MONAI's network without its last norm, under the same names."""
    ours, theirs = small(1, out_norm=False), small(1)
    assert ours.state_dict().keys() == theirs.state_dict().keys() - {"out.0.weight", "out.0.bias"}
    theirs.load_state_dict(ours.state_dict(), strict=False)
    x, t = torch.randn(2, 2, 16), torch.tensor([3, 700])
    assert not torch.allclose(ours(x, t), theirs(x, t))
    theirs.get_submodule("out").add_module("0", nn.Identity())
    assert torch.equal(ours(x, t), theirs(x, t))


def test_every_norm_has_the_epsilon_that_it_is_given() -> None:
    for more, eps in (({}, 1e-6), ({"eps": 1e-5}, 1e-5)):
        norms = [part for part in small(2, **more).modules() if isinstance(part, nn.GroupNorm)]
        assert len(norms) > 10 and {part.eps for part in norms} == {eps}


def test_time_scales_and_shifts_what_was_normalised() -> None:
    """The block written out again, in one axis."""
    net = small(1, scale_shift=True)
    block: Any = net.get_submodule("middle_block.resnet_1")
    x, emb = torch.randn(2, 16, 6), torch.randn(2, 32)
    h = block.conv1(nn.functional.silu(block.norm1(x)))
    scale, shift = block.time_emb_proj(nn.functional.silu(emb)).split(16, 1)
    h = block.norm2(h) * (1 + scale[..., None]) + shift[..., None]
    torch.testing.assert_close(block(x, emb), x + block.conv2(nn.functional.silu(h)))


def test_dropout_is_for_training() -> None:
    net = small(2, dropout=0.5)
    x, t = torch.randn(2, 2, 8, 8), torch.tensor([3, 9])
    assert torch.equal(net(x, t), net(x, t))
    torch.testing.assert_close(net(x, t), small(2)(x, t))
    net.train()
    assert not torch.allclose(net(x, t), net(x, t))


def test_it_is_one_graph_to_a_compiler() -> None:
    net = small(2, labels=2)
    x, t, label = torch.randn(2, 2, 8, 8), torch.tensor([3, 9]), torch.tensor([0, 1])
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, t, label), net(x, t, label))


def test_fused_attention_is_the_same_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU; with two heads."""
    from adbench.engine.networks.monai_unet import FusedAttention

    net, x, t = small(2), torch.randn(2, 2, 8, 8), torch.tensor([3, 9])
    plain = net(x, t)
    calls: list[Tensor] = []

    def fused(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        calls.append(q)
        return nn.functional.scaled_dot_product_attention(q, k, v, scale=scale)

    monkeypatch.setattr("adbench.engine.networks.monai_unet.scaled_dot_product_attention", fused)
    monkeypatch.setattr(FusedAttention, "fused_devices", {"cpu"})
    torch.testing.assert_close(net(x, t), plain)
    assert len(calls) == 4 and calls[0].shape == (2, 2, 4, 8)


def test_fewer_heads_are_another_network_with_the_same_weights() -> None:
    torch.manual_seed(0)
    net = build_unet(2, 1, (16, 16), res_blocks=1, attention=(False, True), head_channels=8)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.2)
    one = build_unet(2, 1, (16, 16), res_blocks=1, attention=(False, True), head_channels=16)
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

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return self.conv(x)

    assert evaluation_flops(Net(), 3, (7, 6)) == 2 * 5 * 3 * 9 * 42
