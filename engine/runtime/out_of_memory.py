"""Out of memory: half the rows at a time, the same mathematics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from .run import Batched, Run

Made = TypeVar("Made")


class OutOfMemory(RuntimeError):
    """Not even one row at a time fits into the device's memory."""


def halved(rows: int, what: str, run: Run) -> int:
    """Half as many rows at a time, after giving back what the failed attempt held.

    To be called behind the `except`, not in it: the error keeps the attempt's tensors alive.
    """
    if rows <= 1:
        raise OutOfMemory(
            f"{what}: out of memory on {run.device} with one row at a time; a smaller network or "
            f"a smaller image size would fit, and so might a device that nobody else is using"
        )
    run.free()
    return rows // 2


def fitting(attempt: Callable[[], Made], module: nn.Module, run: Run, what: str) -> Made:
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
        shown(module, halved(shown(module), what, run))
        run.tell("oom", {"batch": shown(module)})


def shown(module: nn.Module, most: int | None = None) -> int:
    """The rows that the networks of `module` are shown at a time; from now on at most `most`."""
    networks = [part for part in module.modules() if isinstance(part, Batched)]
    for part in networks:
        part.batch = part.batch if most is None else min(part.batch, most)
    return max((part.batch for part in networks), default=1)
