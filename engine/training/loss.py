"""What a training minimises, and how it fails."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..runtime.rng import Rng

LossFunction = Callable[[Tensor, Tensor, Rng], Tensor]
"""(x, label, rng) -> (N,); x is (N, C, *S) as the dataset gives it, label (N,) bool. N is any
number of a batch's rows, each with its own stream: the loss of a row depends on no other row."""


class NotFinite(ArithmeticError):
    """NaN or infinity in a training or in the output of a network. Nothing was cached."""
