"""Where a codebook begins: at encodings of the data. From random codes, those that the first step
finds no use for never come back, and a short training ends with one code for everything."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime.context import TrainingContext
from ..runtime.fixed_batches import apply_in_batches
from ..runtime.rng import Rng
from ..training.data_loading import Examples, evenly_spaced_indices
from .autoencoder import VQ


@torch.no_grad()
def initialize_codebook(
    codec: VQ,
    data: Examples,
    context: TrainingContext,
    *,
    preprocess: Callable[[Tensor], Tensor],
    max_samples: int = 64,
) -> None:
    """Set every code to what the encoder, as it is, makes of some place of some of the samples."""
    index = evenly_spaced_indices(len(data), max_samples)
    if not index:
        raise ValueError("a codebook cannot begin: the training split is empty")
    context.place(codec).eval()
    x = torch.stack([data[i].x for i in index]).to(context.device)
    z = apply_in_batches(codec.net["encoder"], codec.batch, preprocess(x))
    flat = z.movedim(1, -1).flatten(0, -2).float()
    book = codec.codebook
    places = Rng(["codes"], context.seed).integers(len(flat), (len(book.codes),))[0]
    book.codes.copy_(flat[places.to(flat.device)])
    book.sums.copy_(book.codes)
    book.sizes.fill_(1)
