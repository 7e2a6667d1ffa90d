"""One fixed batch shape per network, so that its output for a sample is independent of the batch.

A network's output for a row is the same to the bit at one batch shape, whatever the other rows
hold; between shapes it moves in the last digits. So rows always travel in full, padded batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def apply_in_batches(net: Callable[..., Tensor], batch_size: int, *rows: Tensor) -> Tensor:
    """Apply `net` to all rows, `batch_size` at a time, and return its outputs, (M, ...).

    The last batch is padded with its own last row.

    net: takes one batch of each of `rows`
    batch_size: rows of every call, at least 1
    rows: tensors of the same length M, at least 1

    >>> import torch
    >>> from adbench.engine.runtime.fixed_batches import apply_in_batches
    >>> apply_in_batches(lambda x: 2 * x, 2, torch.tensor([1, 2, 3]))
    tensor([2, 4, 6])
    """
    return apply_to_lists_in_batches(lambda *parts: [net(*parts)], batch_size, *rows)[0]


def apply_to_lists_in_batches(
    net: Callable[..., Sequence[Tensor]], batch_size: int, *rows: Tensor
) -> list[Tensor]:
    """Apply a network that returns several tensors to all rows, as `apply_in_batches`; each of its
    outputs, (M, ...).

    net, batch_size, rows: as there

    >>> import torch
    >>> from adbench.engine.runtime.fixed_batches import apply_to_lists_in_batches
    >>> apply_to_lists_in_batches(lambda x: [x, -x], 2, torch.tensor([1, 2, 3]))
    [tensor([1, 2, 3]), tensor([-1, -2, -3])]
    """
    outputs = []
    for start in range(0, len(rows[0]), batch_size):
        parts = [tensor[start : start + batch_size] for tensor in rows]
        missing = batch_size - len(parts[0])
        if missing:
            parts = [torch.cat([p, p[-1:].expand(missing, *p.shape[1:])]) for p in parts]
        outputs.append([output[: batch_size - missing] for output in net(*parts)])
    if len(outputs) == 1:
        return outputs[0]
    return [torch.cat(parts) for parts in zip(*outputs, strict=True)]
