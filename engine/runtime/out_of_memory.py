"""Recovery from out of memory: half as many rows at a time, the same mathematics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from .context import BatchedModule, DeviceContext, EventHandler, ignore_event

Result = TypeVar("Result")


LIBRARY_ERRORS = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",  # near a full card
)
"""What CUDA's libraries say when an allocation of their own failed."""


class OutOfMemory(RuntimeError):
    """Not even one row at a time fits into the device's memory.

    >>> from adbench.engine.runtime.context import DeviceContext
    >>> from adbench.engine.runtime.out_of_memory import OutOfMemory, halve_batch
    >>> try:
    ...     halve_batch(1, "training step 3", DeviceContext())
    ... except OutOfMemory as error:
    ...     print(error)
    training step 3: out of memory on cpu with one row at a time; a smaller network ...
    """


def halve_batch(rows: int, stage: str, context: DeviceContext) -> int:
    """Return half as many rows at a time, after freeing the memory of the failed attempt.

    To be called behind the `except`, not in it: the error keeps the attempt's tensors alive.

    rows: of the attempt that failed; with 1, OutOfMemory is raised
    stage: what was being done, for the message
    context: of the attempt

    >>> from adbench.engine.runtime.out_of_memory import halve_batch
    >>> from adbench.engine.runtime.context import DeviceContext
    >>> halve_batch(8, "training step 3", DeviceContext())
    4
    """
    if rows <= 1:
        raise OutOfMemory(
            f"{stage}: out of memory on {context.device} with one row at a time; a smaller "
            f"network or a smaller image size would fit, and so might a device that nobody else "
            f"is using"
        )
    context.free()
    return rows // 2


def retry_out_of_memory(
    attempt: Callable[[], Result],
    module: nn.Module,
    context: DeviceContext,
    stage: str,
    on_event: EventHandler = ignore_event,
) -> Result:
    """Call `attempt` until it fits, with half as many rows per network call each time, and return
    its result.

    Another batch shape moves results in their last digits. So this is for the first piece of a
    stage only, and the whole stage then runs at the batch found here: save it with the piece.

    attempt: uses the networks of `module`
    module: its batched networks are changed in place
    context: of the computation
    stage: what is being done, for the message of OutOfMemory
    on_event: receives "oom" with the rows of a batch after each halving

    >>> from adbench.engine.runtime.out_of_memory import retry_out_of_memory
    >>> from adbench.engine.runtime.context import BatchedModule, DeviceContext
    >>> retry_out_of_memory(lambda: 7, BatchedModule(), DeviceContext(), "predicting")
    7
    """
    while True:
        try:
            return attempt()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        batch_limit(module, halve_batch(batch_limit(module), stage, context))
        on_event("oom", {"batch": batch_limit(module)})


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a device has no memory left.

    torch has an error of its own for its allocator; cuBLAS and cuDNN, which allocate by themselves,
    raise a RuntimeError.

    >>> from adbench.engine.runtime.out_of_memory import is_out_of_memory
    >>> is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling ..."))
    True
    >>> is_out_of_memory(RuntimeError("shapes do not match"))
    False
    """
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in str(error) for text in LIBRARY_ERRORS
    )


def batch_limit(module: nn.Module, maximum: int | None = None) -> int:
    """Return the most rows that a network of `module` computes at a time, limited to `maximum` from
    now on.

    module: with any number of BatchedModules in it; 1 where there is none
    maximum: None changes nothing

    >>> from adbench.engine.runtime.out_of_memory import batch_limit
    >>> from adbench.engine.runtime.context import BatchedModule
    >>> batch_limit(BatchedModule(), 3)
    3
    """
    networks = [part for part in module.modules() if isinstance(part, BatchedModule)]
    for part in networks:
        part.batch = part.batch if maximum is None else min(part.batch, maximum)
    return max((part.batch for part in networks), default=1)
