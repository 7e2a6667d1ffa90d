"""diffusers' own UNet2DModel saves a folder; our network with its weights computes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from adbench.engine.checkpoints.diffusers_unet import (
    convert_diffusers,
    read_diffusers_config,
    unet_arguments,
)
from adbench.engine.checkpoints.reading import CheckpointError
from adbench.engine.networks.diffusion_unet import build_unet


def save(folder: Path, **changes: Any) -> Any:
    from diffusers import UNet2DModel  # pyright: ignore[reportPrivateImportUsage]

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet2DModel(**{
            "sample_size": 16, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
            "block_out_channels": (8, 16), "norm_num_groups": 4, "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), **changes,
        }).eval()  # fmt: skip
        for value in net.parameters():
            torch.nn.init.normal_(value, std=0.2)
    net.save_pretrained(folder)
    return net


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"flip_sin_to_cos": False}, {"layers_per_block": 2, "in_channels": 3},
        {"down_block_types": ("AttnDownBlock2D", "DownBlock2D"),
         "up_block_types": ("UpBlock2D", "AttnUpBlock2D")},
        {"down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
         "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
         "downsample_type": "resnet", "upsample_type": "resnet", "norm_eps": 1e-3},
        {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4,
         "attention_head_dim": None},
    ],
)  # fmt: skip
@torch.no_grad()
def test_its_weights_give_its_output(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = save(tmp_path, **changes)
    ours = build_unet(2, **unet_arguments(read_diffusers_config(tmp_path))).eval()
    ours.load_state_dict(convert_diffusers(ours, tmp_path))
    channels = changes.get("in_channels", 1)
    x = torch.randn(2, channels, 16, 16, generator=torch.Generator().manual_seed(1))
    t = torch.tensor([3, 700])
    expected = theirs(x, t).sample
    assert (ours(x, t) - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"act_fn": "relu"}, "act_fn='relu'"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups=None"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        ({"down_block_types": ("DownBlock2D", "SkipDownBlock2D")}, "block SkipDownBlock2D"),
        ({"up_block_types": ("UpBlock2D", "UpBlock2D")}, "attention at other resolutions"),
        ({"_class_name": "AutoencoderKL"}, "_class_name='AutoencoderKL'"),
    ],
)
def test_another_computation_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match="is another network") as caught:
        read_diffusers_config(tmp_path)
    assert message in str(caught.value)


def test_a_folder_without_config_or_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no readable config\.json"):
        read_diffusers_config(tmp_path)
    save(tmp_path)
    ours = build_unet(2, **unet_arguments(read_diffusers_config(tmp_path)))
    for path in tmp_path.glob("diffusion_pytorch_model*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="holds no diffusion_pytorch_model"):
        convert_diffusers(ours, tmp_path)
