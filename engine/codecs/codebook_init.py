"""Where a codebook begins: at encodings of the data. From random codes, those that the first step
finds no use for never come back, and a short training ends with one code for everything."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime.fixed_batches import in_batches
from ..runtime.rng import Rng
from ..runtime.run import Run
from ..training.data_loading import Examples, evenly
from .autoencoder import VQ


@torch.no_grad()
def seed_codes(
    codec: VQ, data: Examples, run: Run, *, enter: Callable[[Tensor], Tensor], most: int = 64
) -> None:
    """Set every code to what the encoder, as it is, makes of some place of some of the samples."""
    index = evenly(len(data), most)
    if not index:
        raise ValueError("a codebook cannot begin: the training split is empty")
    run.place(codec).eval()
    x = torch.stack([data[i].x for i in index]).to(run.device)
    z = in_batches(codec.net["encoder"], codec.batch, enter(x))
    flat = z.movedim(1, -1).flatten(0, -2).float()
    book = codec.codebook
    places = Rng(["codes"], run.seed).integers(len(flat), (len(book.codes),))[0]
    book.codes.copy_(flat[places.to(flat.device)])
    book.sums.copy_(book.codes)
    book.sizes.fill_(1)
