"""guided-diffusion's UNet, written anew from its equations under its parameters' names, against
ours with its weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import group_norm, interpolate, silu

from adbench.engine.checkpoints.conversion import split_prefix
from adbench.engine.checkpoints.guided_diffusion import (
    ANODDPM,
    GuidedDiffusionNames,
    convert_guided_diffusion,
)
from adbench.engine.checkpoints.reading import CheckpointError, read_checkpoint, select_state
from adbench.engine.networks.diffusion_unet import build_unet
from adbench.engine.networks.noisy_classifier import build_encoder

GUIDED = GuidedDiffusionNames()
QUERIES_FIRST = GuidedDiffusionNames(heads_first=False)


class Reference:
    """The UNet of Dhariwal & Nichol as functions of a state dict, which it fills at first."""

    def __init__(
        self, names: GuidedDiffusionNames, *, updown: bool, scale_shift: bool, widths: list[int],
        heads: int, attend: list[bool], res_blocks: int = 1, groups: int = 4, labels: int = 0,
    ) -> None:  # fmt: skip
        self.names, self.updown, self.scale_shift = names, updown, scale_shift
        self.widths, self.heads, self.attend = widths, heads, attend
        self.res_blocks, self.groups, self.labels = res_blocks, groups, labels
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(3)

    def weight(self, name: str, *shape: int) -> Tensor:
        if name not in self.state:
            scale = 0.5 / math.sqrt(max(math.prod(shape[1:]), 1))
            self.state[name] = torch.randn(shape, generator=self.generator) * scale
        return self.state[name]

    def linear(self, x: Tensor, name: str, out: int) -> Tensor:
        weight = self.weight(f"{name}.weight", out, x.shape[1])
        return x @ weight.T + self.weight(f"{name}.bias", out)

    def conv(self, x: Tensor, name: str, out: int, kernel: int = 3, stride: int = 1) -> Tensor:
        weight = self.weight(f"{name}.weight", out, x.shape[1], kernel, kernel)
        bias = self.weight(f"{name}.bias", out)
        return torch.conv2d(x, weight, bias, stride, kernel // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        weight = self.weight(f"{name}.weight", x.shape[1])
        return group_norm(x, self.groups, weight, self.weight(f"{name}.bias", x.shape[1]), 1e-5)

    def residual(self, x: Tensor, emb: Tensor, name: str, out: int, resize: str = "") -> Tensor:
        h = silu(self.norm(x, f"{name}.in_layers.0"))
        if resize:
            x, h = resized(x, resize), resized(h, resize)
        h = self.conv(h, f"{name}.in_layers.2", out)
        wide = out * (2 if self.scale_shift else 1)
        time = self.linear(silu(emb), f"{name}.{self.names.embedding}", wide)[..., None, None]
        if self.scale_shift:
            scale, shift = time.chunk(2, 1)
            h = self.norm(h, f"{name}.out_layers.0") * (1 + scale) + shift
        else:
            h = self.norm(h + time, f"{name}.out_layers.0")
        h = self.conv(silu(h), f"{name}.out_layers.3", out)
        return h + (x if x.shape[1] == out else self.conv(x, f"{name}.skip_connection", out, 1))

    def attention(self, x: Tensor, name: str) -> Tensor:
        n, c, *sides = x.shape
        flat = self.norm(x, f"{name}.norm").flatten(2)
        weight = self.weight(f"{name}.{self.names.qkv}.weight", 3 * c, c, 1)
        bias = self.weight(f"{name}.{self.names.qkv}.bias", 3 * c)
        qkv = torch.conv1d(flat, weight, bias)
        if self.names.heads_first:
            q, k, v = qkv.reshape(n * self.heads, 3 * c // self.heads, -1).chunk(3, 1)
        else:
            q, k, v = (p.reshape(n * self.heads, c // self.heads, -1) for p in qkv.chunk(3, 1))
        mixing = (torch.einsum("bct,bcs->bts", q, k) / math.sqrt(c / self.heads)).softmax(-1)
        out = torch.einsum("bts,bcs->bct", mixing, v).reshape(n, c, -1)
        weight = self.weight(f"{name}.proj_out.weight", c, c, 1)
        out = torch.conv1d(out, weight, self.weight(f"{name}.proj_out.bias", c))
        return x + out.view(n, c, *sides)

    def embedding(self, t: Tensor) -> Tensor:
        names, width = self.names, self.widths[0]
        half = width // 2
        angle = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        waves = [angle.cos(), angle.sin()] if names.cosine_first else [angle.sin(), angle.cos()]
        emb = self.linear(torch.cat(waves, 1), names.time[0], 4 * width)
        return self.linear(silu(emb), names.time[1], 4 * width)

    def descend(self, x: Tensor, emb: Tensor) -> list[Tensor]:
        """What each block on the way down gives, and then the middle."""
        names, width = self.names, self.widths[0]
        h = self.conv(x, f"{names.down}.0.0", width)
        skips, number = [h], 1
        for i, out in enumerate(self.widths):
            for _ in range(self.res_blocks):
                h = self.residual(h, emb, f"{names.down}.{number}.0", out)
                h = self.attention(h, f"{names.down}.{number}.1") if self.attend[i] else h
                skips, number = [*skips, h], number + 1
            if i < len(self.widths) - 1:
                name = f"{names.down}.{number}.0"
                if self.updown:
                    h = self.residual(h, emb, name, out, "down")
                else:
                    h = self.conv(h, f"{name}.{names.downsample}", out, stride=2)
                skips, number = [*skips, h], number + 1
        h = self.residual(h, emb, f"{names.middle}.0", h.shape[1])
        h = self.attention(h, f"{names.middle}.1")
        return [*skips, self.residual(h, emb, f"{names.middle}.2", h.shape[1])]

    def classify(self, x: Tensor, t: Tensor, labels: int) -> Tensor:
        h = silu(self.norm(self.descend(x, self.embedding(t))[-1], "out.0")).flatten(2)
        h = torch.cat([h.mean(2, keepdim=True), h], 2)
        n, c, length = h.shape
        h = h + self.weight("out.2.positional_embedding", c, length)
        qkv = torch.conv1d(h, self.weight("out.2.qkv_proj.weight", 3 * c, c, 1),
            self.weight("out.2.qkv_proj.bias", 3 * c))  # fmt: skip
        q, k, v = (p.reshape(n * self.heads, c // self.heads, -1) for p in qkv.chunk(3, 1))
        mixing = (torch.einsum("bct,bcs->bts", q, k) / math.sqrt(c / self.heads)).softmax(-1)
        h = torch.einsum("bts,bcs->bct", mixing, v).reshape(n, c, -1)
        weight = self.weight("out.2.c_proj.weight", labels, c, 1)
        return torch.conv1d(h, weight, self.weight("out.2.c_proj.bias", labels))[..., 0]

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        names, emb = self.names, self.embedding(t)
        if label is not None:
            emb = emb + self.weight("label_emb.weight", self.labels, 4 * self.widths[0])[label]
        *skips, h = self.descend(x, emb)
        number = 0
        for i, out in reversed([*enumerate(self.widths)]):
            for j in range(self.res_blocks + 1):
                h = torch.cat([h, skips.pop()], 1)
                h = self.residual(h, emb, f"{names.up}.{number}.0", out)
                h = self.attention(h, f"{names.up}.{number}.1") if self.attend[i] else h
                if i and j == self.res_blocks:
                    name = f"{names.up}.{number}.{1 + self.attend[i]}"
                    if self.updown:
                        h = self.residual(h, emb, name, out, "up")
                    else:
                        h = self.conv(resized(h, "up"), f"{name}.conv", out)
                number += 1
        return self.conv(silu(self.norm(h, "out.0")), "out.2", x.shape[1])


def resized(x: Tensor, how: str) -> Tensor:
    if how == "up":
        return interpolate(x, scale_factor=2, mode="nearest")
    return torch.nn.functional.avg_pool2d(x, 2)


def ours(reference: Reference) -> nn.Module:
    widths = reference.widths
    return build_unet(
        2, 1, widths, res_blocks=reference.res_blocks, attention=reference.attend,
        head_channels=[w // reference.heads for w in widths], updown=reference.updown,
        scale_shift=reference.scale_shift, groups=reference.groups, eps=1e-5,
        labels=reference.labels,
    ).eval()  # fmt: skip


CASES = {
    "guided-diffusion": (GUIDED, True, True, 2),
    "guided-diffusion by convolution": (GUIDED, False, False, 4),
    "pDDPM": (QUERIES_FIRST, True, True, 2),
    "AnoDDPM": (ANODDPM, True, False, 2),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("attend", [[False, True], [True, False]])
@torch.no_grad()
def test_its_weights_give_its_output(case: str, attend: list[bool]) -> None:
    names, updown, scale_shift, heads = CASES[case]
    reference = Reference(names, updown=updown, scale_shift=scale_shift, widths=[8, 16],
        heads=heads, attend=attend)  # fmt: skip
    x, t = torch.randn(2, 1, 16, 8, generator=torch.Generator().manual_seed(1)), torch.arange(2) * 7
    expected = reference(x, t)
    net = ours(reference)
    prefixed = {f"diffusion.model.{key}": value for key, value in reference.state.items()}
    for state in (reference.state, {**prefixed, "other.scale": torch.ones(1)}):
        net.load_state_dict(convert_guided_diffusion(net, state, names))
        difference = (net(x, t) - expected).abs().max() / expected.abs().max()
        assert difference < 1e-5, difference


@torch.no_grad()
def test_labels_are_embedded_as_theirs() -> None:
    reference = Reference(GUIDED, updown=True, scale_shift=True, widths=[8, 16], heads=2,
        attend=[False, False], labels=3)  # fmt: skip
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(2)
    label = torch.tensor([2, 0])
    expected, net = reference(x, t, label), ours(reference)
    net.load_state_dict(convert_guided_diffusion(net, reference.state))
    assert (net(x, t, label) - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_an_encoder_with_attention_pooling() -> None:
    """The classifier of guided-diffusion, `EncoderUNetModel` with pool="attention"."""
    reference = Reference(GUIDED, updown=True, scale_shift=True, widths=[8, 16], heads=2,
        attend=[False, True])  # fmt: skip
    x, t = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(2) * 9
    expected = reference.classify(x, t, 3)
    net = build_encoder((8, 8), 1, 3, (8, 16), res_blocks=1, attention=(False, True),
        head_channels=8).eval()  # fmt: skip
    for part in net.modules():  # 2 heads of 8 in a width of 16; the reference has 4 groups
        if isinstance(part, nn.GroupNorm):
            part.num_groups = reference.groups
    net.load_state_dict(convert_guided_diffusion(net, reference.state))
    assert (net(x, t) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.fixture
def reference() -> Reference:
    reference = Reference(ANODDPM, updown=True, scale_shift=False, widths=[8, 16], heads=2,
        attend=[False, True])  # fmt: skip
    reference(torch.zeros(1, 1, 8, 8), torch.zeros(1))
    return reference


def test_what_is_missing_left_over_or_of_another_shape_is_listed(reference: Reference) -> None:
    net, state = ours(reference), dict(reference.state)
    del state["out.0.weight"]
    state["out.9.weight"] = torch.ones(1)
    with pytest.raises(CheckpointError, match=r"missing: out.0.weight; unknown: out.9.weight"):
        convert_guided_diffusion(net, state, ANODDPM)
    state = {**reference.state, "middle.1.to_qkv.weight": torch.ones(30, 16, 1)}
    with pytest.raises(CheckpointError, match=r"of another shape: middle.1.to_qkv.weight"):
        convert_guided_diffusion(net, state, ANODDPM)
    with pytest.raises(CheckpointError, match="none is named down"):
        convert_guided_diffusion(net, {"x": torch.ones(1)}, ANODDPM)


def test_files_of_each_wrapping_are_read(reference: Reference, tmp_path: Path) -> None:
    state = {f"module.{key}": value.double() for key, value in reference.state.items()}
    path = tmp_path / "a.pt"
    for content in (state, {"model_state_dict": state, "n_epoch": 3}, {"ema": state, "loss": 1.0}):
        torch.save(content, path)
        read = select_state(read_checkpoint(path))
        assert read.keys() == reference.state.keys()
        assert all(value.dtype == torch.float32 for value in read.values())
    torch.save({"weights": {"deep": state}, "model": {"x": torch.ones(1)}}, path)
    assert len(select_state(read_checkpoint(path), "weights.deep")) == len(state)
    with pytest.raises(CheckpointError, match="no state dict at 'other'; its keys: model, weights"):
        select_state(read_checkpoint(path), "other")
    assert split_prefix({"a.b.w": torch.ones(1), "a.b.v": torch.ones(1)}, "w")[0].keys() == {
        "w",
        "v",
    }


@pytest.mark.parametrize("content", [bytes(range(256)) * 4, b"", b"PK\x03\x04 cut off", b"text"])
def test_a_damaged_file_is_one_line_without_advice_to_run_it(
    content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as weights alone") as caught:
        read_checkpoint(tmp_path / "x.pt")
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


class Config:
    """What an author's file may carry beside its weights."""


def test_a_file_that_needs_a_class_is_refused_with_what_mends_it(
    reference: Reference, tmp_path: Path
) -> None:
    torch.save({"state_dict": reference.state, "hyper_parameters": Config()}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"needs \S*Config to be built") as caught:
        read_checkpoint(tmp_path / "x.ckpt")
    lines = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert len(lines) == 3
    script = "\n".join(lines).replace('"x', f'"{tmp_path}/x')
    exec(script)  # the lines are the user's, and here the file is ours
    read = select_state(read_checkpoint(tmp_path / "x-weights.pt"))
    assert read.keys() == reference.state.keys()
