"""Codecs: what a latent method diffuses in place of x, a latent z, with its encoder and decoder.

Trained first, by the same training loop: `train_module(lambda x, label, rng: codec.loss(x, rng),
codec, ...)`, then `fit_scale` gives the latents unit variance. All of it is in the state dict.
"""

from __future__ import annotations

import json
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..diffusion.denoiser import Mismatch
from ..features.feature_maps import FeatureMaps
from ..features.pretrained import FeatureExtractor
from ..runtime.context import BatchedModule, DeviceContext
from ..runtime.fixed_batches import apply_in_batches
from ..runtime.out_of_memory import retry_out_of_memory
from ..runtime.rng import Rng
from ..training.data_loading import Examples, evenly_spaced_indices


class Codec(BatchedModule):
    """An encoder of x to a latent z, and its decoder.

    shape: (C, *S) of x
    latent: (C', *S') of z
    range: in which x lies
    training_info: what else the weights depend on; saved in the state dict with shape and range,
        and a mismatch refuses to load
    batch: rows at a time, in encoding and decoding

    >>> import torch
    >>> from adbench.engine.codecs.codec import Codec
    >>> class Half(Codec):
    ...     def encode_unscaled(self, x):
    ...         return x[..., ::2]
    ...     def decode_unscaled(self, code):
    ...         return code.repeat_interleave(2, -1)
    >>> codec = Half((1, 4), (1, 2))
    >>> codec.decode(codec.encode(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])))
    tensor([[[1., 1., 3., 3.]]])
    """

    per_channel: ClassVar[bool] = False
    """Whether every latent channel is centred and scaled by itself; else all by one number."""

    centre: Tensor  # (C', 1..) or (1,), 0 until fitted; it stays 0 if not `per_channel`
    scale: Tensor  # likewise, 1 until fitted: 1 / deviation of the latents

    def __init__(
        self,
        shape: Sequence[int],
        latent: Sequence[int],
        range: tuple[float, float] = (0.0, 1.0),
        **training_info: object,
    ) -> None:
        super().__init__()
        self.shape, self.latent, self.range = tuple(shape), tuple(latent), range
        self.training_info = training_info
        sides = [self.latent[0], *[1] * (len(self.latent) - 1)] if self.per_channel else [1]
        self.register_buffer("centre", torch.zeros(sides))
        self.register_buffer("scale", torch.ones(sides))

    @abstractmethod
    def encode_unscaled(self, x: Tensor) -> Tensor:
        """The latent of (N, C, *S), not yet scaled; in full batches only."""

    @abstractmethod
    def decode_unscaled(self, code: Tensor) -> Tensor:
        """x of a latent that is not scaled, (N, C, *S); in full batches only."""

    def loss(self, x: Tensor, rng: Rng) -> Tensor:
        """The loss of the codec's training, (N,); 0 where there is nothing to learn."""
        return torch.zeros(len(x), device=x.device)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Encode (N, C, *S) in `range` to z (N, C', *S'), in x's precision."""
        code = apply_in_batches(self.encode_unscaled, self.batch, x).to(x.dtype)
        return (code - self.centre) * self.scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Decode z (N, C', *S') to (N, C, *S), about in `range`, in z's precision."""
        code = z / self.scale + self.centre
        return apply_in_batches(self.decode_unscaled, self.batch, code).to(z.dtype)

    @torch.no_grad()
    def fit_scale(
        self,
        data: Examples,
        context: DeviceContext,
        *,
        preprocess: Callable[[Tensor], Tensor] = lambda x: x,
        max_samples: int = 512,
    ) -> None:
        """Set `scale` (and `centre`) so that the latents of the data have unit variance.

        data: the training split; ValueError where it is empty
        context: of the computation
        preprocess: brings (N, C, *S) of the data into the codec's shape and range
        max_samples: from which the variance is taken, evenly spaced
        """
        context.place(self).eval()
        self.centre.zero_()
        self.scale.fill_(1)
        index = evenly_spaced_indices(len(data), max_samples)
        count = len(index)
        if not count:
            raise ValueError("latents cannot be measured: the training split is empty")

        def sum_latents() -> Tensor:
            total = torch.zeros(2, self.latent[0], dtype=torch.float64, device=context.device)
            for i in range(0, count, self.batch):
                x = torch.stack([data[j].x for j in index[i : i + self.batch]]).to(context.device)
                z = self.encode(preprocess(x)).double().transpose(0, 1).flatten(1)
                total += torch.stack([z.sum(1), z.square().sum(1)])
            return total

        total = retry_out_of_memory(sum_latents, self, context, "measuring the codec")
        mean, square = total / (count * math.prod(self.latent[1:]))
        if self.per_channel:
            self.centre.copy_(mean.view_as(self.centre))
            self.scale.copy_((square - mean**2).clamp(min=1e-12).rsqrt().view_as(self.scale))
        else:
            self.scale.fill_((square.mean() - mean.mean() ** 2).clamp(min=1e-12).rsqrt())

    def get_extra_state(self) -> Tensor:
        facts = {"codec": type(self).__name__, "shape": self.shape, "latent": self.latent,
                 "range": self.range, **self.training_info}  # fmt: skip
        return torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        theirs, ours = bytes(state.tolist()), bytes(self.get_extra_state().tolist())
        if theirs != ours:
            raise Mismatch(f"this codec was trained as {theirs.decode()}, not as {ours.decode()}")


class Identity(Codec):
    """The codec whose latent is x itself.

    shape, range: of x

    >>> import torch
    >>> from adbench.engine.codecs.codec import Identity
    >>> Identity((1, 4)).encode(torch.ones(2, 1, 4)).shape
    torch.Size([2, 1, 4])
    """

    def __init__(self, shape: Sequence[int], range: tuple[float, float] = (0.0, 1.0)) -> None:
        super().__init__(shape, shape, range)

    def encode_unscaled(self, x: Tensor) -> Tensor:
        return x

    def decode_unscaled(self, code: Tensor) -> Tensor:
        return code

    def fit_scale(self, data: Examples, context: DeviceContext, **_: object) -> None:
        """Do nothing: x stays as it is."""


class BackboneFeatures(Codec):
    """The codec whose latent is a frozen backbone's feature maps on one grid, every channel
    standardised; it has no decoder.

    shape: (C, H, W) of images in [0, 1]
    maps: of the backbone
    layer: index of the map that has the grid

    >>> import torch
    >>> from adbench.engine.codecs.codec import BackboneFeatures
    >>> from adbench.engine.features.feature_maps import FeatureMaps
    >>> codec = BackboneFeatures((1, 64, 64), FeatureMaps(1, "effperc-random", (2, 3)), layer=1)
    >>> codec.encode(torch.zeros(2, 1, 64, 64)).shape
    torch.Size([2, 152, 4, 4])
    """

    per_channel = True

    def __init__(self, shape: Sequence[int], maps: FeatureMaps, *, layer: int = 0) -> None:
        grid = maps.grids(shape[1:])[layer]
        super().__init__(shape, (sum(maps.channels), *grid), features=maps.weights_id)
        self.maps, self.layer = maps, layer

    def encode_unscaled(self, x: Tensor) -> Tensor:
        return self.maps.embed(x, layer=self.layer)

    def decode_unscaled(self, code: Tensor) -> Tensor:
        raise NotImplementedError(
            "features cannot be decoded to an image; compare them as they are"
        )


class Features(Codec):
    """The codec whose latent is a frozen network's features of an image in [0, 1], every channel
    standardised; it has no decoder.

    shape: (C, H, W) of the images; ValueError for another number of axes
    features: the network's name, as `FeatureExtractor` has it
    grid: (h, w) of the features, an eighth of the image's if None

    >>> import torch
    >>> from adbench.engine.codecs.codec import Features
    >>> Features((1, 16, 16), features="effperc-random").encode(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 176, 2, 2])
    """

    per_channel = True

    def __init__(
        self, shape: Sequence[int], *, features: str = "effperc", grid: Sequence[int] | None = None
    ) -> None:
        channels, *extent = shape
        if len(extent) != 2:
            raise ValueError(f"a feature network takes images of two axes, not of {len(extent)}")
        grid = [-(-n // 8) for n in extent] if grid is None else list(grid)
        views = 1 if channels == 3 else channels
        trunk = FeatureExtractor(features)
        super().__init__(shape, (views * trunk.channels, *grid), features=trunk.weights_id)
        self.trunk, self.grid = trunk, grid

    def encode_unscaled(self, x: Tensor) -> Tensor:
        return self.trunk.extract(x, self.grid)

    def decode_unscaled(self, code: Tensor) -> Tensor:
        raise NotImplementedError(
            "features cannot be decoded to an image; compare them as they are"
        )
