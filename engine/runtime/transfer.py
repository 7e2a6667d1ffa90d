"""Moving tensors from the host to a device without waiting for what the device is doing.

A copy from ordinary memory, and `torch.tensor(numbers, device="cuda")`, make the host wait until
all work that the device has queued is done; a copy from pinned memory only joins the queue.
"""

from __future__ import annotations

from collections.abc import Mapping

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


class HostCopies:
    """Copies on the CPU of tensors, by name, which a GPU makes when it has computed them.

    The tensors may change as soon as this is built. The host waits for the GPU in `read` alone, and
    not for what was queued since.

    tensors: of the CPU or of one GPU, whose copies go into pinned memory

    >>> import torch
    >>> from adbench.engine.runtime.transfer import HostCopies
    >>> weight = torch.ones(2)
    >>> copies = HostCopies({"weight": weight})
    >>> _ = weight.zero_()
    >>> copies.read()
    {'weight': tensor([1., 1.])}
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._copies, self._event, device = dict[str, Tensor](), None, None
        for name, value in tensors.items():
            value = value.detach()
            if value.is_cuda:
                device = value.device
                self._copies[name] = value.to("cpu", non_blocking=True)
            else:
                self._copies[name] = value.cpu().clone(memory_format=torch.contiguous_format)
        if device is not None:
            self._event = torch.cuda.Event()
            self._event.record(torch.cuda.current_stream(device))

    def read(self) -> dict[str, Tensor]:
        """The copies, the same each time."""
        if self._event is not None:
            self._event.synchronize()
        return self._copies
