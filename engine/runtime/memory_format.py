"""The memory layout that convolutions like: channels last."""

from __future__ import annotations

import torch

CHANNELS_LAST_3D_DEVICES = frozenset({"cuda"})
"""Kinds of device on which volumes have their channels last; a CPU has no faster kernels for it."""


def memory_format(ndim: int, kind: str) -> torch.memory_format | None:
    """Return the layout of samples, and of the weights of their convolutions; None for torch's own.

    ndim: axes of a batch of samples, (N, C, *S)
    kind: of the device, such as "cuda"

    >>> from adbench.engine.runtime.memory_format import memory_format
    >>> memory_format(4, "cpu"), memory_format(5, "cpu"), memory_format(5, "cuda")
    (torch.channels_last, None, torch.channels_last_3d)
    """
    if ndim == 4:
        return torch.channels_last  # 1.1-1.3x on a CPU, more on a GPU
    if ndim == 5 and kind in CHANNELS_LAST_3D_DEVICES:
        return torch.channels_last_3d
    return None
