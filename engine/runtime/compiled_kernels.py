"""Functions of many small tensor operations, compiled into few kernels where launches cost more
than arithmetic: on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

Output = TypeVar("Output", Tensor, tuple[Tensor, ...])

COMPILED_DEVICES = frozenset({"cuda"})
"""Kinds of device on which functions are compiled."""

BACKEND = "inductor"

EXACT_ROUNDING_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
}
"""What keeps the compiler from rounding a product and a sum once instead of twice."""


def call_compiled(function: Callable[..., Output], *arguments: Tensor) -> Output:
    """Return `function(*arguments)`, compiled on COMPILED_DEVICES; eagerly where that fails.

    Both give the same bits. Where no compiler is found, a warning says so once.

    function: of tensors alone, without branches that depend on their values
    arguments: on one device

    >>> import torch
    >>> from adbench.engine.runtime.compiled_kernels import call_compiled
    >>> call_compiled(torch.add, torch.ones(2), torch.ones(2))
    tensor([2., 2.])
    """
    kind = arguments[0].device.type
    if kind in COMPILED_DEVICES and (kind, BACKEND) not in _failed_backends:
        try:
            return _compile(function, BACKEND)(*arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of a compiler, which may fail in any way
            _failed_backends.add((kind, BACKEND))
            reason = str(error).strip().partition("\n")[0]
            name = function.__name__.strip("_")
            warnings.warn(
                f"{name} could not be compiled for {kind} and takes longer: {reason}",
                stacklevel=2,
            )
    return function(*arguments)


_failed_backends: set[tuple[str, str]] = set()


@cache
def _compile(function: Callable[..., Output], backend: str) -> Callable[..., Output]:
    return torch.compile(
        function,
        backend=backend,
        dynamic=True,
        fullgraph=True,
        options=dict(EXACT_ROUNDING_OPTIONS) if backend == "inductor" else None,
    )
