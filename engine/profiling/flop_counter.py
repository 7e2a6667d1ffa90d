"""Counting floating-point operations as torch dispatches them: two per multiply-add."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """A context in which `total` grows by the cost of every convolution, matrix product and
    attention, by torch's own formulas.

    torch's FlopCounterMode counts for every module as well, and takes several times as long. Not
    for inference mode, which hides the parts of an operation.

    >>> from adbench.engine.profiling.flop_counter import FlopCounter
    >>> import torch
    >>> with FlopCounter() as counter:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
    >>> counter.total
    48
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        output = func(*args, **options)
        formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **options, out_val=output)
        return output
