"""Networks that one repository has of its own: written anew from their equations under their
parameters' names, against ours with their weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool2d,
    conv1d,
    conv2d,
    conv_transpose2d,
    group_norm,
    interpolate,
    pad,
    silu,
    softmax,
)

from adbench.engine.checkpoints.formats import convert_file
from adbench.engine.checkpoints.reading import CheckpointError
from adbench.engine.codecs.autoencoder import Binary
from adbench.engine.networks.context_encoder import ContextEncoder
from adbench.engine.networks.diffusion_unet import build_unet
from adbench.engine.networks.plain_unet import PlainUNet
from adbench.engine.networks.unet_config import MiddleAttentionUNetConfig
from adbench.engine.networks.wavenet import WaveNet
from adbench.methods.ae1d import SignalAutoencoder


class Weights(dict[str, Tensor]):
    """A state dict that draws a weight when it is first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)

    def __call__(self, name: str, *shape: int) -> Tensor:
        if name not in self:
            self[name] = torch.randn(shape, generator=self.generator) * 0.3
        return self[name]

    def layer(self, name: str, out: int, *inner: int) -> tuple[Tensor, Tensor]:
        return self(f"{name}.weight", out, *inner), self(f"{name}.bias", out)

    def norm(self, x: Tensor, name: str, groups: int, eps: float = 1e-5) -> Tensor:
        weight, bias = self.layer(name, x.shape[1])
        return group_norm(x, groups, weight, bias, eps)


def check(net: nn.Module, content: Any, path: Path, x: Sequence[Tensor], expected: Tensor) -> Any:
    """Save a file, convert it, load it, and compare the outputs; return the conversion."""
    torch.save(content, path)
    conversion = convert_file(net, path)
    net.load_state_dict(conversion.weights)
    with torch.no_grad():
        ours = net.eval()(*x)
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    return conversion


def rand(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_the_rf_challenges_wavenet(tmp_path: Path) -> None:
    state, width, layers, cycle, x = Weights(), 6, 4, 2, rand(2, 2, 20)
    h = conv1d(x, *state.layer("input_projection", width, 2, 1)).relu()
    total = torch.zeros_like(h)
    for i in range(layers):
        name, dilation = f"residual_layers.{i}", 2 ** (i % cycle)
        wide = state.layer(f"{name}.dilated_conv", 2 * width, width, 3)
        gate, value = conv1d(h, *wide, padding=dilation, dilation=dilation).chunk(2, 1)
        both = state.layer(f"{name}.output_projection", 2 * width, width, 1)
        residual, skip = conv1d(gate.sigmoid() * value.tanh(), *both).chunk(2, 1)
        h, total = (h + residual) / 2**0.5, total + skip
    inner = conv1d(total / layers**0.5, *state.layer("skip_projection", width, width, 1)).relu()
    expected = conv1d(inner, *state.layer("output_projection", 2, width, 1))
    net = WaveNet(2, layers=layers, cycle=cycle, width=width, blind=True)
    content = {"epoch": 1, "model_state_dict": dict(state), "best_loss": 0.1}
    conversion = check(net, content, tmp_path / "x.pth", (x, torch.zeros(2)), expected)
    assert conversion.format == "WaveNet" and not conversion.unread
    with pytest.raises(CheckpointError, match="build it with blind=true"):
        convert_file(WaveNet(2, layers=layers, cycle=cycle, width=width), tmp_path / "x.pth")


def test_denoising_autoencoders_unet(tmp_path: Path) -> None:
    state, widths, x = Weights(), [4, 8], rand(2, 1, 8, 8)

    def block(h: Tensor, name: str, out: int, groups: int) -> Tensor:
        for conv, norm in ((1, 3), (5, 7)):
            weight, bias = state.layer(f"{name}.{conv}", out, h.shape[1], 3, 3)
            weight = weight - weight.mean((1, 2, 3), keepdim=True)
            weight = weight / (weight.flatten(1).std(1).view(-1, 1, 1, 1) + 1e-5)
            h = silu(conv2d(pad(h, (1, 1, 1, 1), mode="reflect"), weight, bias))
            h = state.norm(h, f"{name}.{norm}", groups)
        return h

    first = block(x, "down_path.0.block", widths[0], 2)  # divisors of 4: 1, 2, 4
    h = block(avg_pool2d(first, 2), "down_path.1.block", widths[1], 4)  # of 8: 1, 2, 4, 8
    weight, bias = state("up_path.0.up.weight", 8, 4, 2, 2), state("up_path.0.up.bias", 4)
    up = conv_transpose2d(h, weight, bias, stride=2)
    h = block(torch.cat([up, first], 1), "up_path.0.conv_block.block", widths[0], 2)
    expected = conv2d(h, *state.layer("last", 1, widths[0], 1, 1))
    content = {"epoch_no": 3, "model_state_dict": dict(state), "model_class": "UNet"}
    conversion = check(PlainUNet(2, 1, widths), content, tmp_path / "x.pt", (x,), expected)
    assert conversion.format == "DenoisingAE"


class BinaryReference:
    """BinaryLatentDiffusion's autoencoder; each residual block has a conv_out, used or not."""

    def __init__(self, widths: list[int], size: int, bits: int, groups: int) -> None:
        self.widths, self.size, self.bits, self.groups = widths, size, bits, groups
        self.state = Weights()

    def norm(self, h: Tensor, name: str) -> Tensor:
        return self.state.norm(h, name, self.groups, 1e-6)

    def residual(self, h: Tensor, name: str, out: int) -> Tensor:
        state = self.state
        x = conv2d(silu(self.norm(h, f"{name}.norm1")),
            *state.layer(f"{name}.conv1", out, h.shape[1], 3, 3), padding=1)  # fmt: skip
        x = conv2d(silu(self.norm(x, f"{name}.norm2")),
            *state.layer(f"{name}.conv2", out, out, 3, 3), padding=1)  # fmt: skip
        shortcut = state.layer(f"{name}.conv_out", out, h.shape[1], 1, 1)
        return x + (h if h.shape[1] == out else conv2d(h, *shortcut))

    def attention(self, h: Tensor, name: str) -> Tensor:
        n, c, *sides = h.shape
        y = self.norm(h, f"{name}.norm")
        layers = [self.state.layer(f"{name}.{part}", c, c, 1, 1) for part in ("q", "k", "v")]
        q, k, v = (conv2d(y, *layer).flatten(2) for layer in layers)
        mixing = softmax(torch.einsum("ncs,nct->nst", q, k) * c**-0.5, 2)
        y = torch.einsum("nct,nst->ncs", v, mixing).view(n, c, *sides)
        return h + conv2d(y, *self.state.layer(f"{name}.proj_out", c, c, 1, 1))

    def middle(self, h: Tensor, name: str, first: int) -> Tensor:
        h = self.residual(h, f"{name}.{first}", h.shape[1])
        h = self.attention(h, f"{name}.{first + 1}")
        return self.residual(h, f"{name}.{first + 2}", h.shape[1])

    def probabilities(self, x: Tensor) -> Tensor:
        name, state, n = "encoder.blocks", self.state, 1
        h = conv2d(x, *state.layer(f"{name}.0", self.widths[0], x.shape[1], 3, 3), padding=1)
        for i, width in enumerate(self.widths):
            h, n = self.residual(h, f"{name}.{n}", width), n + 1
            if i < len(self.widths) - 1:
                layer = state.layer(f"{name}.{n}.conv", width, width, 3, 3)
                h, n = conv2d(pad(h, (0, 1, 0, 1)), *layer, stride=2), n + 1
        h = self.norm(self.middle(h, name, n), f"{name}.{n + 3}")
        h = conv2d(h, *state.layer(f"{name}.{n + 4}", self.size, h.shape[1], 3, 3), padding=1)
        return conv2d(h, *state.layer("quantize.proj.0", self.bits, self.size, 1, 1)).sigmoid()

    def decode(self, bits: Tensor, channels: int) -> Tensor:
        name, state, n, width = "generator.blocks", self.state, 5, self.widths[0]
        vectors = state("quantize.embed.weight", self.bits, self.size)
        h = self.norm(torch.einsum("nbhw,bd->ndhw", bits, vectors), f"{name}.0")
        h = conv2d(h, *state.layer(f"{name}.1", self.widths[-1], self.size, 3, 3), padding=1)
        h = self.middle(h, name, 2)
        for i, out in reversed([*enumerate(self.widths)]):
            h, n = self.residual(h, f"{name}.{n}", out), n + 1
            if i:
                layer = state.layer(f"{name}.{n}.conv", out, out, 3, 3)
                h, n = conv2d(interpolate(h, scale_factor=2), *layer, padding=1), n + 1
        state.layer("generator.logsigma.0", width, width, 3, 3)  # for another loss
        h = self.norm(h, f"{name}.{n}")
        return conv2d(h, *state.layer(f"{name}.{n + 1}", channels, width, 3, 3), padding=1)


@torch.no_grad()
def test_the_binary_autoencoder_of_binary_latent_diffusion(tmp_path: Path) -> None:
    reference, x = BinaryReference([4, 8], size=8, bits=6, groups=4), rand(2, 1, 8, 8)
    codec = Binary((1, 8, 8), bits=6, size=8, widths=(4, 8), res_blocks=1).eval()
    codec.net["norm"] = nn.GroupNorm(4, 8, eps=1e-6)  # at these widths; 32 groups in both else
    expected = reference.probabilities(x)
    decoded = reference.decode((expected > 0.5).float(), 1)
    file = {f"ae.{name}": value for name, value in reference.state.items()}
    file |= {"disc.main.0.weight": torch.ones(1), "perceptual.lin0.weight": torch.ones(1)}
    torch.save(file, tmp_path / "x.th")
    conversion = convert_file(codec.net, tmp_path / "x.th")
    codec.net.load_state_dict(conversion.weights)
    ours = codec.bit_probabilities(x)
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    ours = codec.decode(codec.encode(x))
    assert (ours - decoded).abs().max() < 1e-5 * decoded.abs().max()
    assert {"disc.main.0.weight", "perceptual.lin0.weight"} < set(conversion.unread)
    rest = [name for name in conversion.unread if not name.startswith(("disc", "perceptual"))]
    assert rest and all("conv_out" in name or "logsigma" in name for name in rest)
    del file["ae.quantize.embed.weight"]
    torch.save(file | {"ae.encoder.extra.weight": torch.ones(1)}, tmp_path / "y.th")
    with pytest.raises(CheckpointError, match=r"missing: quantize.embed.weight; unknown: encoder"):
        convert_file(codec.net, tmp_path / "y.th")


def test_monais_autoencoder_of_signals(tmp_path: Path) -> None:
    from monai.networks.nets.autoencoder import AutoEncoder

    theirs = AutoEncoder(spatial_dims=1, in_channels=2, out_channels=2, channels=(4, 8),
        strides=(2, 2)).eval()  # fmt: skip
    for value in theirs.parameters():
        nn.init.normal_(value, std=0.4)
    x = rand(2, 2, 16)
    with torch.no_grad():
        expected = theirs(x)
    net = SignalAutoencoder(2, (4, 8))
    content = {"model_state_dict": theirs.state_dict(), "epoch": 2}
    conversion = check(net.net, content, tmp_path / "x.pth", (x,), expected)
    assert conversion.format == "MONAI AutoEncoder"


def test_cddpms_unet_and_encoder_stand_in_one_file(tmp_path: Path) -> None:
    from monai.networks.nets.resnet import ResNet

    theirs = ResNet("bottleneck", [1, 1, 1, 1], [4, 8, 16, 32], spatial_dims=2, n_input_channels=1,
        conv1_t_stride=2, num_classes=6, bias_downsample=False).eval()  # fmt: skip
    for name, value in theirs.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape) + 0.1 if "var" in name else rand(*value.shape) / 2)
    unet = MiddleAttentionUNetConfig(8, (1, 2), 1, head_channels=4).build(2, 1, vector=6)
    assert unet.queries_first
    state = {f"encoder.{name}": value for name, value in theirs.state_dict().items()}
    names = {"vector_embed.0": "label_emb.0", "vector_embed.2": "label_emb.2"}
    own = unet.state_dict()
    state |= {f"diffusion.model.{name}": value for name, value in guided_names(own, names).items()}
    torch.save({"state_dict": state}, tmp_path / "x.ckpt")
    x = rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = theirs(x)
    encoder = ContextEncoder(2, 1, 6, layers=(1, 1, 1, 1), width=4, norm="batch")
    conversion = convert_file(encoder.net, tmp_path / "x.ckpt")
    encoder.net.load_state_dict(conversion.weights)
    with torch.no_grad():
        ours = encoder.eval()(x)
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    assert all(name.startswith("diffusion.model.") for name in conversion.unread)
    converted = convert_file(unet, tmp_path / "x.ckpt")
    assert converted.weights.keys() == own.keys()
    assert all(torch.equal(value, own[name]) for name, value in converted.weights.items())
    assert all(name.startswith("encoder.") for name in converted.unread)
    with pytest.raises(CheckpointError, match="build it with encoder_norm=batch"):
        other = ContextEncoder(2, 1, 6, layers=(1, 1, 1, 1), width=4)
        convert_file(other.net, tmp_path / "x.ckpt")


def guided_names(own: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """The weights of a UNet of two resolutions, one block each, as guided-diffusion saves them."""
    blocks = {
        "time_embed": "time_embed", "conv_in.conv": "input_blocks.0.0",
        "down_blocks.0.resnets.0": "input_blocks.1.0", "down_blocks.0.downsampler":
        "input_blocks.2.0", "down_blocks.1.resnets.0": "input_blocks.3.0",
        "middle_block.resnet_1": "middle_block.0", "middle_block.attention": "middle_block.1",
        "middle_block.resnet_2": "middle_block.2", "up_blocks.0.resnets.0": "output_blocks.0.0",
        "up_blocks.0.resnets.1": "output_blocks.1.0", "up_blocks.0.upsampler": "output_blocks.1.1",
        "up_blocks.1.resnets.0": "output_blocks.2.0", "up_blocks.1.resnets.1": "output_blocks.3.0",
        "out.0": "out.0", "out.2.conv": "out.2", **names,
    }  # fmt: skip
    layers = {
        "norm1": "in_layers.0", "conv1.conv": "in_layers.2", "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0", "conv2.conv": "out_layers.3",
        "skip_connection.conv": "skip_connection", "attn.out_proj": "proj_out",
    }  # fmt: skip
    state: dict[str, Tensor] = {}
    for key, value in own.items():
        block = max((b for b in blocks if key.startswith(f"{b}.")), key=len)
        layer, _, kind = key.removeprefix(f"{block}.").rpartition(".")
        if layer.startswith("attn.to_"):
            continue
        name = ".".join(filter(None, (blocks[block], layers.get(layer, layer), kind)))
        state[name] = value[..., None] if "proj_out.weight" in name else value
    attention = "middle_block.attention.attn"
    for kind in ("weight", "bias"):
        parts = [own[f"{attention}.to_{part}.{kind}"] for part in "qkv"]
        joint = torch.cat(parts)
        state[f"middle_block.1.qkv.{kind}"] = joint[..., None] if kind == "weight" else joint
    return state


def test_a_unet_of_monai_within_a_larger_module(tmp_path: Path) -> None:
    net = build_unet(2, 1, (4, 8), res_blocks=1, attention=(False, True), head_channels=4)
    state = {f"unet.{name}": value for name, value in net.state_dict().items()}
    content = {"model_weights": state | {"l_pips_sq.lin0.weight": torch.ones(1)}, "epoch": 3}
    torch.save(content, tmp_path / "latest_model.pt")
    conversion = convert_file(net, tmp_path / "latest_model.pt")
    assert conversion.format == "MONAI" and conversion.unread == ["l_pips_sq.lin0.weight"]
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in conversion.weights.items())


def test_diffusers_names_in_a_file_of_weights(tmp_path: Path) -> None:
    from diffusers import UNet2DModel  # pyright: ignore[reportPrivateImportUsage]

    theirs = UNet2DModel(
        in_channels=3, out_channels=3, block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), layers_per_block=1,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    net = build_unet(2, 3, (8, 16), res_blocks=1, attention=(False, True), head_channels=8,
        groups=4, eps=1e-5)  # fmt: skip
    x, t = rand(1, 3, 8, 8), torch.tensor([7])
    with torch.no_grad():
        expected = theirs(x, t).sample
    conversion = check(net, theirs.state_dict(), tmp_path / "final.pt", (x, t), expected)
    assert conversion.format == "diffusers names"
