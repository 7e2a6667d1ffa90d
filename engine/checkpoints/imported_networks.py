"""Networks whose architecture a folder says, in place of those that a method builds by itself.

A folder of diffusers has the configuration of its network. A method takes that network over, with
what its scheduler says of the training; the rest of the method stays. What is read is plain data,
so that a run elsewhere builds the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..codecs.autoencoder import KL, VQGAN, Autoencoder, Binary
from ..diffusion.denoiser import Denoiser
from ..networks.diffusion_unet import build_unet, side_divisor
from .diffusers_autoencoder import codec_arguments, read_autoencoder_config
from .diffusers_folder import network_folder, read_json
from .diffusers_scheduler import apply_scheduler, find_scheduler
from .diffusers_unet import read_diffusers_config, unet_arguments
from .reading import CheckpointError

OWN_FILE = "adbench.json"
"""Beside a network that was exported: the range of its samples, which diffusers does not write."""

UNIT_RANGE = (-1.0, 1.0)
"""The range in which diffusers' pipelines have images."""

CODECS = {"AutoencoderKL": KL, "VQModel": VQGAN}


def read_network(folder: Path, part: str) -> dict[str, Any]:
    """Read the architecture in a folder of diffusers and return it, as plain data.

    folder: of a network, or of a pipeline
    part: denoiser or codec
    Raises CheckpointError on a network that ours are not.

    >>> from adbench.engine.checkpoints.imported_networks import read_network
    >>> from adbench.engine.checkpoints.reading import CheckpointError
    >>> try:
    ...     read_network(Path("unet"), "classifier")
    ... except CheckpointError as error:
    ...     print(error)
    a folder of diffusers holds a denoiser or a codec, not a classifier
    """
    inner = network_folder(folder, part)
    if part == "denoiser":
        config = read_diffusers_config(inner)
        return {"unet": unet_arguments(config), "scheduler": find_scheduler(inner)}
    if part != "codec":
        raise CheckpointError(f"a folder of diffusers holds a denoiser or a codec, not a {part}")
    config = read_autoencoder_config(inner)
    own = read_json(inner / OWN_FILE) if (inner / OWN_FILE).is_file() else {}
    return {
        "codec": config["_class_name"], "arguments": codec_arguments(config),
        "network_range": list(own.get("range") or UNIT_RANGE),
    }  # fmt: skip


def apply_networks(method: nn.Module, networks: Mapping[str, Mapping[str, Any]]) -> None:
    """Put networks in place of those of a method, with their first weights.

    method: with a `denoiser` or a `codec`, as its constructor made it
    networks: by part, as `read_network` returns them
    Raises CheckpointError where a network does not fit the method.

    >>> from adbench.engine.checkpoints.imported_networks import apply_networks
    >>> from adbench.engine.checkpoints.reading import CheckpointError
    >>> method = nn.Module()
    >>> method.denoiser = nn.Identity()
    >>> try:
    ...     apply_networks(method, {"denoiser": {"unet": {"channels": 1}}})
    ... except CheckpointError as error:
    ...     print(error)
    the denoiser of this method is no UNet
    """
    if "codec" in networks:
        _replace_codec(method, networks["codec"])
    if "denoiser" in networks:
        _replace_unet(method, networks["denoiser"])


def _replace_unet(method: Any, network: Mapping[str, Any]) -> None:
    denoiser, arguments = method.denoiser, dict(network["unet"])
    if not isinstance(denoiser, Denoiser) or not hasattr(denoiser.net, "condition_names"):
        raise CheckpointError("the denoiser of this method is no UNet")
    if len(method.spec.shape) != 2:
        raise CheckpointError(
            f"a UNet2DModel is of images, not of samples of {len(method.spec.shape)} axes"
        )
    old: Any = denoiser.net
    if old.fold > 1:
        raise CheckpointError(
            f"a UNet2DModel sees pixels, the method gives it blocks of them (fold={old.fold}): "
            "leave fold at 1"
        )
    channels = old.get_submodule("conv_in.conv").in_channels
    if arguments["channels"] != channels:
        raise CheckpointError(
            f"the network takes {arguments['channels']} channels, the method gives it {channels}"
        )
    codec = getattr(method, "codec", None)
    sides = method.canvas.padded_shape if codec is None else codec.latent[1:]
    divisor = side_divisor(arguments["widths"])
    if any(side % divisor for side in sides):
        raise CheckpointError(
            f"the network halves {len(arguments['widths']) - 1} times, so that sides divide by "
            f"{divisor}, and the method gives it {tuple(sides)}"
        )
    net: Any = build_unet(2, **arguments)
    if net.condition_names != old.condition_names:
        names = [" and ".join(n.condition_names) or "nothing" for n in (net, old)]
        raise CheckpointError(
            f"besides an image and time the network takes {names[0]}, the method gives {names[1]}"
        )
    denoiser.net = net
    if network["scheduler"] is not None:
        apply_scheduler(denoiser, network["scheduler"])


def _replace_codec(method: Any, network: Mapping[str, Any]) -> None:
    codec = method.codec
    if not isinstance(codec, Autoencoder) or isinstance(codec, Binary):
        raise CheckpointError("the codes of this method are bits: no codec of diffusers has such")
    if len(codec.shape) != 3:
        raise CheckpointError(
            f"{network['codec']} is of images, not of {len(codec.shape) - 1} axes"
        )
    arguments = dict(network["arguments"])
    if network["codec"] == "VQModel":
        quantised = getattr(codec, "quantizes_output", True)
        arguments["kind"] = "quantised" if quantised else "continuous"
    low, high = network["network_range"]
    if (low, high) != tuple(codec.range):
        arguments["network_range"] = (low, high)
    new = CODECS[network["codec"]](codec.shape, range=codec.range, **arguments)
    if new.latent != codec.latent:
        raise CheckpointError(
            f"the codec's code is {new.latent}, the method's {codec.latent}: its channels are "
            "latent_channels, and its sides follow from the length of coder_widths"
        )
    method.codec = new
