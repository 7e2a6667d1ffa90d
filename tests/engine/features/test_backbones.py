"""Backbones of the user's files: the same numbers as other implementations; what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets.resnet import ResNet
from safetensors.torch import save_file
from torch import Tensor, nn

from adbench.engine.features.backbones import FAMILIES, load_backbone
from adbench.engine.features.feature_maps import FeatureMaps
from adbench.engine.features.imagenet import DEVIATION, MEAN
from adbench.engine.features.pretrained import FeaturesError
from adbench.engine.features.vision_transformer import TransformerLayers


def filled(net: nn.Module) -> Any:
    """With random weights and statistics."""
    generator = torch.Generator().manual_seed(0)
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            scale = (2 / max(value[0].numel(), 1)) ** 0.5 if value.ndim > 1 else 0.1
            value.copy_(scale * torch.randn(value.shape, generator=generator))
            if name.endswith("running_var") or (".bn" in name and name.endswith("weight")):
                value.abs_().add_(0.5)
    return net.eval()


def normalised(x: Tensor) -> Tensor:
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)


@torch.no_grad()
@pytest.mark.parametrize(("name", "kind", "blocks"), [
    ("resnet18", "basic", [2, 2, 2, 2]), ("resnet50", "bottleneck", [3, 4, 6, 3]),
])  # fmt: skip
def test_a_file_of_torchvisions_names_gives_monais_maps(
    name: str, kind: str, blocks: list[int], tmp_path: Path
) -> None:
    """MONAI's ResNet, whose names are torchvision's, with strides as in torchvision's."""
    theirs = filled(ResNet(kind, blocks, [64, 128, 256, 512], spatial_dims=2, n_input_channels=3,
        conv1_t_stride=2, num_classes=10, bias_downsample=False))  # fmt: skip
    torch.save(theirs.state_dict(), tmp_path / f"{name}-0123abcd.pth")
    backbone = load_backbone(name, (0, 1, 2, 3), weights=tmp_path)
    x = torch.rand(1, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    h = theirs.maxpool(theirs.act(theirs.bn1(theirs.conv1(normalised(x)))))
    expected = [h]
    for layer in (theirs.layer1, theirs.layer2, theirs.layer3):
        expected.append(layer(expected[-1]))
    for mine, reference, stride in zip(backbone.net(x), expected, backbone.strides, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4)
        assert mine.shape[2:] == (64 // stride, 32 // stride)


def test_the_wide_resnet_has_torchvisions_names_and_shapes() -> None:
    with torch.device("meta"):
        own = FAMILIES["wide-resnet50-2"].build((1, 2, 3, 4)).state_dict()
        count = sum(p.numel() for p in FAMILIES["wide-resnet50-2"].build((4,)).parameters())
    assert count == 68_883_240 - 2048 * 1000 - 1000  # torchvision's, without its classifier
    assert own["layer3.5.conv2.weight"].shape == (512, 512, 3, 3)
    assert own["layer4.0.downsample.0.weight"].shape == (2048, 1024, 1, 1)


@torch.no_grad()
def test_the_transformer_is_torchs_encoder() -> None:
    """With norms first, without scales by channel; 37 x 37 patches need no resizing."""
    net = filled(TransformerLayers(16, 4, 2, layers=(2, 4)))
    for block in net.blocks:
        block.ls1["gamma"].fill_(1)
        block.ls2["gamma"].fill_(1)
    x = torch.rand(1, 3, 518, 518, generator=torch.Generator().manual_seed(1))
    patches = net.patch_embed["proj"](normalised(x)).flatten(2).mT
    tokens = torch.cat([net.cls_token, patches], 1) + net.pos_embed
    maps = iter(net(x))
    for i, block in enumerate(net.blocks, 1):
        layer = nn.TransformerEncoderLayer(16, 2, 64, 0.0, "gelu", 1e-6, True, True)
        layer.load_state_dict({
            "self_attn.in_proj_weight": block.attn["qkv"].weight,
            "self_attn.in_proj_bias": block.attn["qkv"].bias,
            "self_attn.out_proj.weight": block.attn["proj"].weight,
            "self_attn.out_proj.bias": block.attn["proj"].bias,
            "linear1.weight": block.mlp["fc1"].weight, "linear1.bias": block.mlp["fc1"].bias,
            "linear2.weight": block.mlp["fc2"].weight, "linear2.bias": block.mlp["fc2"].bias,
            "norm1.weight": block.norm1.weight, "norm1.bias": block.norm1.bias,
            "norm2.weight": block.norm2.weight, "norm2.bias": block.norm2.bias,
        })  # fmt: skip
        tokens = layer.eval()(tokens)
        if i in (2, 4):
            expected = net.norm(tokens)[:, 1:].mT.reshape(1, 16, 37, 37)
            torch.testing.assert_close(next(maps), expected, rtol=1e-3, atol=1e-4)


def test_what_is_missing_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADBENCH_BACKBONES", raising=False)
    with pytest.raises(FeaturesError, match=r"get wide_resnet50_2-95faca4d.pth from .*port"):
        load_backbone("wide-resnet50-2", (2, 3))
    monkeypatch.setenv("ADBENCH_BACKBONES", str(tmp_path))
    with pytest.raises(FeaturesError, match=r"no file in .* is called dinov2_vits14_pretrain\*"):
        load_backbone("dinov2-small", (4,))
    with pytest.raises(FeaturesError, match=r"there is no .*nowhere with resnet18\*"):
        load_backbone("resnet18", (1,), weights=tmp_path / "nowhere")
    with pytest.raises(FeaturesError, match=r"unknown backbone 'resnet'\. There are effperc"):
        load_backbone("resnet", (1,))
    with pytest.raises(FeaturesError, match=r"layers of effperc are some of 1, 2, 3, ascending"):
        load_backbone("effperc", (3, 1))


def test_a_file_that_does_not_fit_or_would_run_code_is_refused(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "resnet18.safetensors")
    with pytest.raises(FeaturesError, match=r"does not hold resnet18: missing: bn1.weight, .*"):
        load_backbone("resnet18", (1,), weights=tmp_path)
    (tmp_path / "resnet50.pth").write_bytes(b"nothing")
    with pytest.raises(FeaturesError, match=r"resnet50.pth (is no file|cannot be read)"):
        load_backbone("resnet50", (1,), weights=tmp_path)
    torch.save({"conv1.weight": nn.Linear(1, 1)}, tmp_path / "wide_resnet50_2.pth")
    with pytest.raises(FeaturesError, match=r"is no file of tensors alone"):
        load_backbone("wide-resnet50-2", (1,), weights=tmp_path)


@torch.no_grad()
def test_maps_of_several_channels_are_those_of_each_and_alike_in_any_batch() -> None:
    maps = FeatureMaps(2, "effperc-random", (1, 2))
    single = FeatureMaps(1, "effperc-random", (1, 2))
    x = torch.rand(3, 2, 64, 32, generator=torch.Generator().manual_seed(0))
    shallow, deep = maps.extract(x)
    assert shallow.shape == (3, 48, 16, 8) and deep.shape == (3, 80, 8, 4)
    torch.testing.assert_close(shallow[:, 24:], single.extract(x[:, 1:])[0])
    joined = maps.embed(x)
    torch.testing.assert_close(joined[:, 64:88], shallow[:, 24:])
    assert torch.equal(maps.embed(x[1:2])[0], joined[1])
    averaged = maps.embed(x, window=3)[0, 0, 5, 4]
    torch.testing.assert_close(averaged, shallow[0, 0, 4:7, 3:6].mean())
    assert not maps.train().training and list(maps.state_dict()) == ["_extra_state"]
    with pytest.raises(ValueError, match="sides must divide by 8"):
        maps.extract(x[..., :20])
    with pytest.raises(FeaturesError, match="fitted on layers 1, 2 of effperc-random"):
        FeatureMaps(2, "effperc-random", (2, 3)).load_state_dict(maps.state_dict())
