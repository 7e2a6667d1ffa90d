"""diffusers' own AutoencoderKL and VQModel save a folder; our codec with its weights computes the
same, and what ours writes diffusers opens and computes the same with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from adbench.engine.checkpoints.diffusers_autoencoder import (
    codec_arguments,
    convert_autoencoder,
    read_autoencoder_config,
)
from adbench.engine.checkpoints.diffusers_export import export_codec
from adbench.engine.checkpoints.reading import CheckpointError
from adbench.engine.codecs.autoencoder import KL, VQ, VQGAN, Binary

X = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def save(folder: Path, name: str, **changes: Any) -> Any:
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = getattr(diffusers, name)(**{
            "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "norm_num_groups": 4,
            "block_out_channels": (8, 16), "latent_channels": 2, "scaling_factor": 0.7,
            "down_block_types": ("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            "up_block_types": ("AttnUpDecoderBlock2D", "UpDecoderBlock2D"), **changes,
        }).eval()  # fmt: skip
        for value in net.parameters():
            torch.nn.init.normal_(value, std=0.15)
    net.save_pretrained(folder)
    return net


def load(folder: Path) -> KL | VQGAN:
    """Our codec with the folder's weights."""
    config = read_autoencoder_config(folder)
    kind = KL if config["_class_name"] == "AutoencoderKL" else VQGAN
    codec = kind((1, 16, 16), **codec_arguments(config)).eval()
    missing = codec.load_state_dict(convert_autoencoder(codec, folder)[0], strict=False)
    assert not missing.unexpected_keys
    return codec


def close(ours: Tensor, theirs: Tensor) -> bool:
    return bool((ours - theirs).abs().max() < 1e-5 * theirs.abs().max())


@pytest.mark.parametrize(
    "changes",
    [{}, {"mid_block_add_attention": False},
     {"use_quant_conv": False, "use_post_quant_conv": False},
     {"layers_per_block": 2, "shift_factor": 0.25}],
)  # fmt: skip
@torch.no_grad()
def test_an_autoencoder_gives_its_code_and_its_image(tmp_path: Path, changes: Any) -> None:
    theirs, ours = save(tmp_path, "AutoencoderKL", **changes), load(tmp_path)
    mean, shift = theirs.encode(X).latent_dist.mean, changes.get("shift_factor", 0.0)
    assert close(ours.encode(X), (mean - shift) * 0.7)
    assert close(ours.decode((mean - shift) * 0.7), theirs.decode(mean).sample)
    assert "log-variance" in convert_autoencoder(ours, tmp_path)[1][0]


@torch.no_grad()
def test_a_vqmodel_gives_its_code_and_its_image(tmp_path: Path) -> None:
    theirs = save(tmp_path, "VQModel", num_vq_embeddings=16, vq_embed_dim=3)
    ours = load(tmp_path)
    assert isinstance(ours, VQGAN) and ours.latent == (3, 8, 8)
    latents = theirs.encode(X).latents
    assert close(ours.encode_continuous(X), latents)
    assert close(ours.encode(X), theirs.quantize(latents)[0] * 0.7)
    assert close(ours.decode(latents * 0.7), theirs.decode(latents).sample)


@pytest.mark.parametrize(
    "codec",
    [
        KL((1, 16, 16), latent_channels=2, widths=(8, 16), res_blocks=1, activation=True),
        KL((1, 16, 16), latent_channels=2, widths=(8, 16), res_blocks=2, middle=True,
            activation=True, attention=(False, True)),
        VQGAN((1, 16, 16), latent_channels=3, hidden_channels=2, widths=(8, 16), res_blocks=1),
    ],
)  # fmt: skip
@torch.no_grad()
def test_ours_is_opened_by_diffusers_and_comes_back_equal(
    tmp_path: Path, codec: KL | VQGAN
) -> None:
    import diffusers

    codec.eval().scale.fill_(0.4)
    network = export_codec(codec)
    save_file({k: v.contiguous() for k, v in network.weights.items()},
        tmp_path / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(network.config))
    theirs = getattr(diffusers, network.config["_class_name"]).from_pretrained(tmp_path)
    z, again = codec.encode(X), load(tmp_path)
    if isinstance(codec, KL):
        assert close(z, theirs.encode(X).latent_dist.mean * 0.4)
        sigma = codec.net.encode(X)[1]
        assert close(theirs.encode(X).latent_dist.std, sigma)
        assert isinstance(again, KL) and close(again.net.encode(X)[1], sigma)
    else:
        assert close(codec.encode_continuous(X), theirs.encode(X).latents)
    assert close(codec.decode(z), theirs.decode(z / 0.4).sample)
    assert close(again.encode(X), z) and close(again.decode(z), codec.decode(z))


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        (VQ((1, 16, 16), latent_channels=2, widths=(4,), res_blocks=1, codes=4), "is a VQ"),
        (Binary((1, 16, 16), bits=4, size=8, widths=(4, 8), res_blocks=1), "is a Binary"),
        (KL((1, 16), widths=(4, 8), res_blocks=1, activation=True), "is of 1 axes"),
        (KL((1, 16, 16), widths=(4, 8), res_blocks=1), "no activation before the last"),
    ],
)
def test_a_codec_that_is_none_of_diffusers_is_refused(codec: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        export_codec(codec)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "AutoencoderTiny"}, "_class_name='AutoencoderTiny'"),
        ({"norm_type": "spatial"}, "norm_type='spatial'"),
        ({"latents_mean": [0.1, 0.2]}, "latents_mean"),
        ({"block_out_channels": 8}, "no block_out_channels"),
        ({"down_block_types": ["Other", "DownEncoderBlock2D"]}, "block Other"),
    ],
)
def test_another_computation_is_refused(tmp_path: Path, changes: Any, message: str) -> None:
    save(tmp_path, "AutoencoderKL")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match="is another network") as caught:
        read_autoencoder_config(tmp_path)
    assert message in str(caught.value)
