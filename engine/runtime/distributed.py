"""Data-parallel training: which rows each process takes, and how their gradients become one.

Launched as `accelerate launch` or `torchrun` launch, one process per GPU; Hugging Face accelerate
connects them. Its wrapper around a module is not used: it hooks into the module's own forward, and
a loss here is a closure over as many networks as a method likes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

import torch
from torch import Tensor

from .transfer import to_device


class TeamError(RuntimeError):
    """Another process of the team failed, or the team does not fit its work.

    >>> from adbench.engine.runtime.distributed import Team, TeamError
    >>> team = Team()
    >>> team.size = 4
    >>> try:
    ...     team.local_rows(3)
    ... except TeamError as error:
    ...     print(error)
    a batch of 3 cannot be shared by 4 processes; start at most 3, or train with a larger batch
    """


class Team:
    """A team of one process, which has nothing to communicate.

    rank: this process's number; rank 0 saves, reports and writes
    size: the number of processes
    device: of this process's tensors; empty in a team of one, whose context names the device

    >>> from adbench.engine.runtime.distributed import Team
    >>> Team().local_rows(3)
    tensor([0, 1, 2])
    """

    rank = 0
    size = 1
    device = ""

    def local_rows(self, count: int) -> Tensor:
        """The rows of a batch of `count` that belong to this process: every size-th."""
        if count < self.size:
            raise TeamError(
                f"a batch of {count} cannot be shared by {self.size} processes; "
                f"start at most {count}, or train with a larger batch"
            )
        return torch.arange(self.rank, count, self.size)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same to the bit in each."""
        return tensor

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of rank 0."""

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process."""
        return flag

    def broadcast_flag(self, flag: bool) -> bool:
        """The flag of rank 0."""
        return flag


class DistributedTeam(Team):
    """The processes that were launched together. All of them make every call, in one order.

    >>> from accelerate import PartialState
    >>> from adbench.engine.runtime.distributed import DistributedTeam
    >>> store = torch.distributed.HashStore()  # for what a launcher does: here one process
    >>> torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    >>> team = DistributedTeam(cpu=True)
    >>> team.size, team.local_rows(2), team.any(True), team.broadcast_flag(False)
    (1, tensor([0, 1]), True, False)
    >>> torch.distributed.destroy_process_group()
    >>> PartialState._reset_state()
    """

    def __init__(self, *, cpu: bool) -> None:
        from accelerate import PartialState

        # Between two calls rank 0 may predict a whole test set while the others wait.
        options = {"timeout": timedelta(days=1)} | ({"backend": "gloo"} if cpu else {})
        state = PartialState(cpu=cpu, **options)
        self.rank, self.size = state.process_index, state.num_processes
        self.device = str(state.device)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        from accelerate.utils import reduce

        total = reduce(tensor, "sum")
        assert isinstance(total, Tensor)
        return total

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        from accelerate.utils import broadcast

        with torch.no_grad():
            for tensor in tensors:
                on_device = tensor.detach().to(self.device).contiguous()
                tensor.copy_(broadcast(on_device))

    def any(self, flag: bool) -> bool:
        return bool(self.all_reduce_sum(torch.tensor(float(flag), device=self.device)) > 0)

    def broadcast_flag(self, flag: bool) -> bool:
        value = torch.tensor(float(flag), device=self.device)
        self.broadcast([value])
        return bool(value > 0)


SINGLE_PROCESS = Team()


def join_team(device: str = "cpu") -> Team:
    """Join the team that this process was launched into, by the launcher's environment variables;
    a team of one if there was no launcher.

    device: of torch; processes on a CPU communicate by gloo

    >>> from adbench.engine.runtime.distributed import join_team
    >>> join_team().size
    1
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return SINGLE_PROCESS
    return DistributedTeam(cpu=torch.device(device).type == "cpu")


BUCKET_VALUES = 2**24
"""How many values of gradients are sent at a time: 64 MB, for which the memory is there twice."""


def all_reduce_gradients(
    team: Team,
    weights: Mapping[str, Tensor],
    value: Tensor,
    error: Exception | None,
    *,
    stop: bool = False,
) -> tuple[Tensor, bool]:
    """Add up over the team the gradients, in place, and the loss; returns the loss, and whether
    any process asks to stop.

    A weight that has a gradient in no process keeps none. The host waits for the device once.

    team: of the training
    weights: by name, the same in every process
    value: this process's part of the loss, ()
    error: why this process has nothing to add; then every process raises, this one its own error
    stop: whether this process asks the team to stop after the step

    >>> import torch
    >>> from adbench.engine.runtime.distributed import Team, all_reduce_gradients
    >>> weight = torch.ones(2, requires_grad=True)
    >>> all_reduce_gradients(Team(), {"weight": weight}, torch.tensor(0.5), None)
    (tensor(0.5000), False)
    """
    if team.size == 1:
        if error is not None:
            raise error
        return value, stop
    present = [weight.grad is not None for weight in weights.values()]
    flags = torch.tensor([float(flag) for flag in (error is not None, stop, *present)])
    numbers = torch.cat([value.detach().float().reshape(1), to_device(flags, value.device)])
    mean, *counts = team.all_reduce_sum(numbers).tolist()
    if error is not None:
        raise error
    failures, stops, *users = counts
    if failures:
        raise TeamError("another process of this training failed; its own message says why")
    used = [weight for weight, count in zip(weights.values(), users, strict=True) if count]
    for bucket in _buckets(used):
        grads = [torch.zeros_like(w) if w.grad is None else w.grad for w in bucket]
        total = team.all_reduce_sum(torch.cat([grad.float().flatten() for grad in grads]))
        parts = total.split([grad.numel() for grad in grads])
        for weight, grad in zip(bucket, parts, strict=True):
            weight.grad = grad.view_as(weight).to(weight.dtype)
    return torch.full_like(value, mean), stops > 0


def _buckets(weights: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Weights in their order, at most BUCKET_VALUES values at a time, or one weight."""
    bucket, size = list[Tensor](), 0
    for weight in weights:
        if bucket and size + weight.numel() > BUCKET_VALUES:
            yield bucket
            bucket, size = [], 0
        bucket.append(weight)
        size += weight.numel()
    if bucket:
        yield bucket
