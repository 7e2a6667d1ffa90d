"""One fixed batch shape per network, so that what it says of a sample does not depend on company.

A network's output for a row is the same to the bit at one batch shape, whatever the other rows
hold; between shapes it moves in the last digits. So rows always travel in full, padded batches.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def apply_in_batches(net: Callable[..., Tensor], batch_size: int, *rows: Tensor) -> Tensor:
    """net of all rows, `batch_size` at a time, the last batch padded with its own last row.

    rows: tensors of the same length M, at least 1; the answer is (M, ...).
    """
    out = []
    for i in range(0, len(rows[0]), batch_size):
        parts = [tensor[i : i + batch_size] for tensor in rows]
        short = batch_size - len(parts[0])
        if short:
            parts = [torch.cat([p, p[-1:].expand(short, *p.shape[1:])]) for p in parts]
        out.append(net(*parts)[: batch_size - short])
    return out[0] if len(out) == 1 else torch.cat(out)
