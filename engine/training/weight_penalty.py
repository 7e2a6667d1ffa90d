"""The squared norm of all weights of a network, as a part of its loss, in few kernels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch import _foreach_mul as foreach_mul  # pyright: ignore[reportPrivateImportUsage]
from torch import _foreach_norm as foreach_norm  # pyright: ignore[reportPrivateImportUsage]


def squared_norm(weights: Iterable[nn.Parameter]) -> Tensor:
    """Return the sum of the squares of all weights, () float32, with its gradient.

    On a GPU all tensors are read by one kernel, and their gradients written by one: a sum over
    tensors by autograd would launch four for each of some hundreds.

    weights: of one device; 0 for none

    >>> import torch
    >>> from adbench.engine.training.weight_penalty import squared_norm
    >>> net = torch.nn.Linear(2, 1)
    >>> for value in net.parameters():
    ...     _ = torch.nn.init.constant_(value, 3.0)
    >>> total = squared_norm(net.parameters())
    >>> total.backward()
    >>> total.item(), net.weight.grad
    (27.0, tensor([[6., 6.]]))
    """
    values = list(weights)
    return _SquaredNorm.apply(*values) if values else torch.zeros(())


class _SquaredNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        ctx.save_for_backward(*weights)
        if weights[0].is_cuda:
            return torch.stack(foreach_norm(weights)).square().sum()
        return sum((p.square().sum() for p in weights), weights[0].new_zeros(()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return tuple(foreach_mul(ctx.saved_tensors, 2 * gradients[0]))
