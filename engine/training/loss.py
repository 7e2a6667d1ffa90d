"""What a training minimises, and how it fails."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..runtime.rng import Rng

LossFunction = Callable[[Tensor, Tensor, Rng], Tensor]
"""(x, label, rng) -> (N,); x is (N, C, *S) as the dataset gives it, label (N,) bool. N is any
number of a batch's rows, each with its own stream: the loss of a row depends on no other row."""


class NotFinite(ArithmeticError):
    """NaN or infinity in a training or in the output of a network. Nothing was cached.

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.training.loop import Training, train_module
    >>> from adbench.engine.training.loss import NotFinite
    >>> net, data = torch.nn.Linear(1, 1), [SimpleNamespace(x=torch.zeros(1), label=False)]
    >>> plan = Training(steps=1, batch=1, lr=0.1)
    >>> loss = lambda x, label, rng: net(x)[:, 0] / x[:, 0]
    >>> try:
    ...     train_module(loss, net, data, TrainingContext(), plan)
    ... except NotFinite as error:
    ...     print(error)
    training step 0: the loss is ...inf; ...
    """
