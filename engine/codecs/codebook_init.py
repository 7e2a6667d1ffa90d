"""Initialisation of a codebook from encodings of the data. Of random codes, those that the first
step does not use are never used again, and a short training ends with one code for everything."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime.context import DeviceContext
from ..runtime.fixed_batches import apply_in_batches
from ..runtime.out_of_memory import retry_out_of_memory
from ..runtime.rng import Rng
from ..training.data_loading import Examples, evenly_spaced_indices
from .autoencoder import VQ, VQGAN


@torch.no_grad()
def initialize_codebook(
    codec: VQ | VQGAN,
    data: Examples,
    context: DeviceContext,
    *,
    preprocess: Callable[[Tensor], Tensor],
    max_samples: int = 64,
) -> None:
    """Set every code to the encoding of a random position of a sample.

    codec: whose encoder, as it is, encodes the samples
    data: the training split; ValueError where it is empty
    context: for device and seed
    preprocess: brings (N, C, *S) of the data into the codec's shape and range
    max_samples: that are encoded, evenly spaced

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from adbench.engine.codecs.autoencoder import VQ
    >>> from adbench.engine.codecs.codebook_init import initialize_codebook
    >>> from adbench.engine.runtime.context import DeviceContext
    >>> codec = VQ((1, 2, 2), latent_channels=3, widths=(4,), res_blocks=1, codes=16)
    >>> data = [SimpleNamespace(x=torch.ones(1, 2, 2), label=False)]
    >>> initialize_codebook(codec, data, DeviceContext(), preprocess=lambda x: x)
    >>> len(codec.codebook.codes.unique(dim=0))  # the one position of the one sample
    1
    """
    index = evenly_spaced_indices(len(data), max_samples)
    if not index:
        raise ValueError("a codebook cannot be initialised: the training split is empty")
    context.place(codec).eval()
    x = torch.stack([data[i].x for i in index]).to(context.device)
    z = retry_out_of_memory(
        lambda: apply_in_batches(codec.encode_continuous, codec.batch, preprocess(x)),
        codec, context, "initialising the codebook",
    )  # fmt: skip
    flat = z.movedim(1, -1).flatten(0, -2).float()
    codebook = codec.codebook
    places = Rng(["codes"], context.seed).integers(len(flat), (len(codebook.codes),))[0]
    codebook.codes.copy_(flat[places.to(flat.device)])
    codebook.sums.copy_(codebook.codes)
    codebook.sizes.fill_(1)
