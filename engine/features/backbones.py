"""Frozen backbones by name: those of a package, and those whose weights' file the user has.

Nothing is downloaded and nothing that a file brings is run: files are read as tensors alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..runtime.weight_names import describe_mismatch
from .pretrained import EfficientNetBlocks, FeaturesError, build_perceptual
from .resnet import ResNetLayers
from .vision_transformer import TransformerLayers

WEIGHTS_VARIABLE = "ADBENCH_BACKBONES"
"""The environment variable that names a file of weights, or a folder of such files."""

BackboneName = Literal[
    "effperc", "effperc-random", "resnet18", "resnet50", "wide-resnet50-2", "dinov2-small",
    "dinov2-base",
]  # fmt: skip
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


@dataclass(frozen=True)
class BackboneFamily:
    """How a backbone is built and what its weights' file is called.

    build: from the layers, ascending.
    strides: pixels of the image to a position of a layer's map, by the layer's number.
    files: beginnings of its weights' names, in lower case, as torchvision, timm or the authors have
        them.
    download: what to get, for the error message.

    >>> from adbench.engine.features.backbones import FAMILIES
    >>> FAMILIES["wide-resnet50-2"].strides[2]
    8
    """

    build: Callable[[Sequence[int]], ResNetLayers | TransformerLayers]
    strides: dict[int, int]
    files: tuple[str, ...]
    download: str


@dataclass(frozen=True)
class Backbone:
    """A frozen backbone: (N, 3, H, W) in [0, 1] to a list of feature maps (N, C', h, w).

    net: the network, in evaluation mode, without gradients.
    channels, strides: of each map.
    weights_id: what the weights are, for checkpoints.

    >>> from adbench.engine.features.backbones import load_backbone
    >>> load_backbone("effperc-random", (1, 2)).channels
    (24, 40)
    """

    net: nn.Module
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    weights_id: str


class EfficientNetLayers(nn.Module):
    """Some of the three feature maps of EfficientNet-lite0, at 1/4, 1/8 and 1/16 of the side.

    >>> import torch
    >>> from adbench.engine.features.backbones import EfficientNetLayers
    >>> from adbench.engine.features.pretrained import build_perceptual
    >>> net = EfficientNetLayers(build_perceptual("effperc-random").frozen, (2,))
    >>> [tuple(values.shape) for values in net(torch.zeros(1, 3, 32, 32))]
    [(1, 40, 4, 4)]
    """

    def __init__(self, net: EfficientNetBlocks, layers: Sequence[int]) -> None:
        super().__init__()
        self.net, self.layers = net, tuple(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps of (N, 3, H, W) in [0, 1], (N, C', h, w)."""
        maps = self.net.feature_maps(x)
        return [maps[number - 1] for number in self.layers]


def _resnet18(layers: Sequence[int]) -> ResNetLayers:
    return ResNetLayers((2, 2, 2, 2), bottleneck=False, layers=layers)


def _resnet50(layers: Sequence[int]) -> ResNetLayers:
    return ResNetLayers((3, 4, 6, 3), bottleneck=True, layers=layers)


def _wide_resnet50(layers: Sequence[int]) -> ResNetLayers:
    return ResNetLayers((3, 4, 6, 3), width=128, bottleneck=True, layers=layers)


def _dinov2_small(layers: Sequence[int]) -> TransformerLayers:
    return TransformerLayers(384, 12, 6, layers=layers)


def _dinov2_base(layers: Sequence[int]) -> TransformerLayers:
    return TransformerLayers(768, 12, 12, layers=layers)


EFFICIENTNET_CHANNELS = {1: 24, 2: 40, 3: 112}
EFFICIENTNET_STRIDES = {1: 4, 2: 8, 3: 16}
RESNET_STRIDES = {0: 4, 1: 4, 2: 8, 3: 16, 4: 32}
DINO_STRIDES: dict[int, int] = dict.fromkeys((1, 2, 3, 4), 14)
TORCHVISION = "from download.pytorch.org/models"
DINO_PAGE = "from dl.fbaipublicfiles.com/dinov2"
FAMILIES = {
    "resnet18": BackboneFamily(_resnet18, RESNET_STRIDES, ("resnet18",),
        f"resnet18-f37072fd.pth {TORCHVISION}"),
    "resnet50": BackboneFamily(_resnet50, RESNET_STRIDES, ("resnet50",),
        f"resnet50-0676ba61.pth {TORCHVISION}"),
    "wide-resnet50-2": BackboneFamily(_wide_resnet50, RESNET_STRIDES, ("wide_resnet50_2",),
        f"wide_resnet50_2-95faca4d.pth {TORCHVISION}"),
    "dinov2-small": BackboneFamily(_dinov2_small, DINO_STRIDES,
        ("dinov2_vits14_pretrain", "vit_small_patch14_dinov2"),
        f"dinov2_vits14_pretrain.pth {DINO_PAGE}"),
    "dinov2-base": BackboneFamily(_dinov2_base, DINO_STRIDES,
        ("dinov2_vitb14_pretrain", "vit_base_patch14_dinov2"),
        f"dinov2_vitb14_pretrain.pth {DINO_PAGE}"),
}  # fmt: skip
"""The backbones whose weights are a file of the user's."""


def load_backbone(
    name: str, layers: Sequence[int], *, weights: Path | str | None = None
) -> Backbone:
    """Load a frozen backbone.

    name: effperc and effperc-random are EfficientNet-lite0 of a package, trained and untrained;
        the others are in FAMILIES.
    layers: numbers of the feature maps to return, ascending: 1, 2 and 3 are at 1/4, 1/8 and 1/16 of
        the side; ResNets have 0, their pooled stem, and 4 as well; of DINOv2, 1 to 4 are after
        each quarter of its blocks, all at 1/14.
    weights: a file of weights or a folder of such files, else the environment's ADBENCH_BACKBONES.

    Raises FeaturesError for a name or a layer that there is not, and for weights that are missing
    or do not fit.

    >>> from adbench.engine.features.backbones import load_backbone
    >>> load_backbone("effperc-random", (2, 3)).strides
    (8, 16)
    """
    efficient = name in ("effperc", "effperc-random")
    if not efficient and name not in FAMILIES:
        names = ", ".join(["effperc", "effperc-random", *FAMILIES])
        raise FeaturesError(f"unknown backbone {name!r}. There are {names}.")
    strides = EFFICIENTNET_STRIDES if efficient else FAMILIES[name].strides
    if not layers or list(layers) != sorted(set(layers)) or set(layers) - set(strides):
        raise FeaturesError(
            f"layers of {name} are some of {', '.join(map(str, strides))}, ascending, "
            f"not {list(layers)}"
        )
    with torch.device("cpu"):  # whatever the caller's default
        if efficient:
            perceptual = build_perceptual(name)
            blocks = perceptual.frozen
            assert isinstance(blocks, EfficientNetBlocks)  # what these names build
            net: nn.Module = EfficientNetLayers(blocks, layers)
            channels = tuple(EFFICIENTNET_CHANNELS[number] for number in layers)
            weights_id = perceptual.weights_id
        else:
            path = _find_weights(name, weights or os.environ.get(WEIGHTS_VARIABLE))
            with torch.device("meta"):  # no random numbers for weights that are replaced
                built = FAMILIES[name].build(layers)
            _load(built, path, name)
            net, channels = built, built.channels
            weights_id = f"{name}, sha256 {sha256(path.read_bytes()).hexdigest()[:12]}"
    net = net.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Backbone(net, channels, tuple(strides[number] for number in layers), weights_id)


def _find_weights(name: str, place: Path | str | None) -> Path:
    family = FAMILIES[name]
    advice = f"get {family.download} and export {WEIGHTS_VARIABLE}=/folder/of/the/file"
    if place is None:
        raise FeaturesError(
            f"features {name!r} need a file of weights, which adbench does not download: {advice}"
        )
    place = Path(place).expanduser()
    if place.is_file():
        return place
    fitting = sorted(
        path
        for path in (place.iterdir() if place.is_dir() else ())
        if path.suffix in SUFFIXES and path.name.lower().startswith(family.files)
    )
    if not fitting:
        what = f"no file in {place} is called" if place.is_dir() else f"there is no {place} with"
        raise FeaturesError(
            f"features {name!r} need a file of weights, and {what} {family.files[0]}*: {advice}"
        )
    return fitting[0]


def _load(net: nn.Module, path: Path, name: str) -> None:
    """Load a file of weights into a network on the meta device."""
    try:
        if path.suffix == ".safetensors":
            values: object = load_file(path)
        else:
            values = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FeaturesError(f"{path} cannot be read as weights: {reason}") from error
    except Exception as error:  # pickle's own errors, whose text advises to run the file
        raise FeaturesError(f"{path} is no file of tensors alone, and is not read") from error
    own = net.state_dict()
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):
        values = values["state_dict"]
    weights = {
        key: value.float() if value.is_floating_point() else value
        for key, value in (values.items() if isinstance(values, dict) else ())
        if key in own and isinstance(value, Tensor)
    }
    counters = [key for key in own if key.endswith("num_batches_tracked")]
    weights |= {key: torch.tensor(0) for key in counters if key not in weights}
    if mismatch := describe_mismatch(own, weights):
        raise FeaturesError(f"{path} does not hold {name}: {mismatch}")
    net.load_state_dict(weights, assign=True)
