"""Moving tensors from the host to a device without waiting for what the device is doing.

A copy from ordinary memory, and `torch.tensor(numbers, device="cuda")`, make the host wait until
all work that the device has queued is done; a copy from pinned memory only joins the queue.
"""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor of the host on a device, without waiting for what the device has to do.

    tensor: on the CPU; one that is on the device already, or for a CPU, is returned as it is
    device: of torch

    >>> import torch
    >>> from adbench.engine.runtime.transfer import to_device
    >>> to_device(torch.tensor([3, 1]), "cpu")
    tensor([3, 1])
    """
    target = torch.device(device)
    if tensor.device.type != "cpu" or target.type == "cpu":
        return tensor.to(target)
    if target.type == "cuda":
        tensor = tensor.pin_memory()  # torch frees it when the copy has been made
    return tensor.to(target, non_blocking=True)


class LateRead:
    """Numbers of a device that the host reads later, when the device has computed them, without
    waiting for what was queued since.

    values: of any shape; on a CPU they are there at once

    >>> import torch
    >>> from adbench.engine.runtime.transfer import LateRead
    >>> LateRead(torch.tensor([3, 1])).read()
    tensor([3, 1])
    """

    def __init__(self, values: Tensor) -> None:
        self._values = values.detach().to("cpu", non_blocking=True)  # into pinned memory
        self._event = None
        if values.is_cuda:
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(values.device))

    def read(self) -> Tensor:
        """The numbers, on the CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self._values
