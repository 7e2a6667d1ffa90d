"""Out of memory: half the rows at a time, the same mathematics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from .run import BatchedModule, TrainingContext

Result = TypeVar("Result")


class OutOfMemory(RuntimeError):
    """Not even one row at a time fits into the device's memory."""


def halve_batch(rows: int, stage: str, context: TrainingContext) -> int:
    """Half as many rows at a time, after giving back what the failed attempt held.

    To be called behind the `except`, not in it: the error keeps the attempt's tensors alive.
    """
    if rows <= 1:
        raise OutOfMemory(
            f"{stage}: out of memory on {context.device} with one row at a time; a "
            "smaller network or "
            f"a smaller image size would fit, and so might a device that nobody else is using"
        )
    context.free()
    return rows // 2


def retry_out_of_memory(
    attempt: Callable[[], Result], module: nn.Module, context: TrainingContext, stage: str
) -> Result:
    """What `attempt` returns, with the networks of `module` shown half as many rows at a time, and
    half of that, until it fits; tells "oom" with the rows of a batch then.

    Another batch shape moves results in their last digits. So this is for the first piece of a
    stage only, and the whole stage then runs at the shape found here: keep it with the piece.
    """
    while True:
        try:
            return attempt()
        except torch.OutOfMemoryError:
            pass
        batch_limit(module, halve_batch(batch_limit(module), stage, context))
        context.on_event("oom", {"batch": batch_limit(module)})


def batch_limit(module: nn.Module, maximum: int | None = None) -> int:
    """The rows that the networks of `module` are shown at a time; from now on at most `maximum`."""
    networks = [part for part in module.modules() if isinstance(part, BatchedModule)]
    for part in networks:
        part.batch = part.batch if maximum is None else min(part.batch, maximum)
    return max((part.batch for part in networks), default=1)
