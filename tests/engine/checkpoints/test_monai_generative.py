"""Weights of monai-generative, renamed as that package named them, fill ours; others do not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from adbench.engine.checkpoints.monai_generative import load_monai_generative
from adbench.engine.checkpoints.reading import CheckpointError
from adbench.engine.codecs.autoencoder import KL, VQ
from adbench.engine.networks.diffusion_unet import build_unet

State = dict[str, Tensor]


def net(**more: Any) -> nn.Module:
    return build_unet(2, 1, (8, 16), res_blocks=1, attention=(False, True), head_channels=8, **more)


def kl() -> KL:
    return KL((1, 8, 8), widths=(8, 16), res_blocks=1, attention=(False, True), middle=True)


def vq() -> VQ:
    return VQ((1, 8, 8), latent_channels=4, widths=(8, 16), res_blocks=1, codes=16)


def state(module: nn.Module) -> State:
    """With every number at random, but for self-attention's output layers: these were there and
    never called, which is what the identity comes to."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for key, value in module.state_dict().items():
        if "_extra" not in key:
            tensors[key] = torch.randn(value.shape, generator=generator)
            if ".attn.out_proj." in key:
                tensors[key] = torch.eye(len(value)) if value.ndim == 2 else torch.zeros(len(value))
    return tensors


def old(state: State) -> State:
    """Under the names of generative 0.2.3: attention had no module of its own and `proj_attn`,
    cross-attention `to_out.0`, a magnifying layer `conv`."""
    tensors = {}
    for key, value in state.items():
        key = re.sub(r"\.attn\.(to_[qkv])\.", r".\1.", key)
        key = key.replace(".attn.out_proj.", ".proj_attn.").replace(".postconv.", ".conv.")
        tensors[re.sub(r"(attn[12])\.out_proj\.", r"\1.to_out.0.", key)] = value
    for key in tensors:
        if ".proj_attn." in key:
            tensors[key] = torch.randn(
                tensors[key].shape, generator=torch.Generator().manual_seed(1)
            )
    return tensors


@pytest.mark.parametrize("more", [{}, {"updown": True}, {"context": 6}, {"labels": 3}])
def test_a_unets_old_weights_are_ours(more: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours, weights = net(**more), net(**more), state(net(**more))
    theirs.load_state_dict(weights)
    renamed = old(weights)
    assert set(renamed) != set(weights)
    save_file(renamed, tmp_path / "unet.safetensors")
    load_monai_generative(ours, tmp_path / "unet.safetensors")
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([3, 500])
    conditioning = [torch.randn(2, 3, 6)] if "context" in more else []
    conditioning += [torch.tensor([0, 2])] if "labels" in more else []
    assert torch.equal(ours(x, t, *conditioning), theirs(x, t, *conditioning))


def test_an_old_kl_autoencoder_is_ours(tmp_path: Path) -> None:
    theirs, ours = kl(), kl()
    weights = state(theirs.net)
    theirs.net.load_state_dict(weights)
    torch.save({"epoch": 3, "state_dict": old(weights)}, tmp_path / "kl.pt")
    load_monai_generative(ours.net, tmp_path / "kl.pt")
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(ours.encode(x), theirs.encode(x))
    assert torch.equal(ours.decode(ours.encode(x)), theirs.decode(theirs.encode(x)))


def test_an_old_vq_autoencoder_computes_what_monais_does(tmp_path: Path) -> None:
    """MONAI's own has the old names, but for a layer between; here in processes' wrapper."""
    from monai.networks.nets.vqvae import VQVAE

    theirs = VQVAE(2, 1, 1, (8, 16), 1, (8, 16), (2, 4, 1, 1), (2, 4, 1, 1, 0), 16, 4).eval()
    weights = {f"module.{key}": value for key, value in theirs.state_dict().items()}
    assert "module.quantizer.quantizer.embedding.weight" in weights
    torch.save(weights, tmp_path / "vq.pt")
    ours = vq().eval()
    load_monai_generative(ours, tmp_path / "vq.pt")
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(ours.encode(x), theirs.encode_stage_2_inputs(x))
    z = theirs.encode_stage_2_inputs(x)
    torch.testing.assert_close(ours.decode(z), theirs.decode_stage_2_outputs(z))
    loaded = theirs.quantizer.quantizer
    assert torch.equal(ours.codebook.sums, loaded.ema_w)


def test_new_names_load_too() -> None:
    ours, weights = net(), state(net())
    weights = {key: value + 1 if "out_proj" in key else value for key, value in weights.items()}
    load_monai_generative(ours, weights)
    assert all(torch.equal(value, weights[key]) for key, value in ours.state_dict().items())


def test_another_networks_weights_are_refused_and_change_nothing() -> None:
    ours = net()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    weights = old(state(ours))
    missing = {key: value for key, value in weights.items() if "conv_in" not in key}
    wrong = weights | {"out.2.conv.bias": torch.zeros(7)}
    for theirs, pattern in (
        (missing, "missing: conv_in.conv.weight, conv_in.conv.bias"),
        (weights | {"extra.weight": torch.zeros(1)}, "unknown: extra.weight"),
        (wrong, r"of another shape: out.2.conv.bias \(7,\) for \(1,\)"),
    ):
        with pytest.raises(CheckpointError, match=pattern) as error:
            load_monai_generative(ours, theirs)
        assert "\n" not in str(error.value) and len(str(error.value)) < 300
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_a_file_that_is_no_checkpoint_is_an_error(tmp_path: Path) -> None:
    for name, content in (("a.pt", b"text"), ("b.safetensors", b"text")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match="cannot be read as weights alone"):
            load_monai_generative(net(), tmp_path / name)
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="there is no state dict; its keys: epoch, loss"):
        load_monai_generative(net(), tmp_path / "c.pt")
    torch.save(net(), tmp_path / "d.pt")  # a pickled network: code, which is never run
    with pytest.raises(CheckpointError, match="weights alone"):
        load_monai_generative(net(), tmp_path / "d.pt")
    with pytest.raises(CheckpointError, match="no file"):
        load_monai_generative(net(), tmp_path / "none.pt")


def test_a_network_of_signals_without_a_last_norm_counts_its_last_layer_from_one() -> None:
    """ddpm-ood-signals: its GroupNorm before the last convolution is commented out."""
    ours = build_unet(1, 2, (8, 16), res_blocks=1, groups=4, head_channels=8, out_norm=False)
    state = {
        key.replace("out.2.", "out.1."): torch.full_like(value, 0.5)
        for key, value in ours.state_dict().items()
    }
    load_monai_generative(ours, state)
    assert all(bool(value.eq(0.5).all()) for value in ours.state_dict().values())
