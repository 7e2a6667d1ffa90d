"""Several processes, one batch: who takes which rows, and how their gradients become one.

Launched as `accelerate launch` or `torchrun` launch, one process per GPU; Hugging Face accelerate
brings them together. Its wrapper around a module is not used: it hooks into the module's own
forward, and a loss here is a closure over as many networks as a method likes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import timedelta

import torch
from torch import Tensor


class TeamError(RuntimeError):
    """Another process of the team failed, or the team does not fit its work."""


class Team:
    """A team of one, which has nothing to agree on.

    rank: this process's number, 0 for the one that keeps, tells and writes; size: of how many
    device: where this process's tensors belong; empty alone, when that is nobody's matter
    """

    rank = 0
    size = 1
    device = ""

    def local_rows(self, count: int) -> Tensor:
        """The rows of a batch of `count` that are this process's: every size-th."""
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
        """Whether it is so in any process."""
        return flag

    def broadcast_flag(self, flag: bool) -> bool:
        """What rank 0 says."""
        return flag


class DistributedTeam(Team):
    """The processes that were launched together. Every call is made by all, in one order."""

    def __init__(self, *, cpu: bool) -> None:
        from accelerate import PartialState

        # Between two calls rank 0 may look at a whole test set while the others wait.
        kept = {"timeout": timedelta(days=1)} | ({"backend": "gloo"} if cpu else {})
        state = PartialState(cpu=cpu, **kept)
        self.rank, self.size = state.process_index, state.num_processes
        self.device = str(state.device)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        from accelerate.utils import reduce

        summed = reduce(tensor, "sum")
        assert isinstance(summed, Tensor)
        return summed

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        from accelerate.utils import broadcast

        with torch.no_grad():
            for tensor in tensors:
                there = tensor.detach().to(self.device).contiguous()
                tensor.copy_(broadcast(there))

    def any(self, flag: bool) -> bool:
        return bool(self.all_reduce_sum(torch.tensor(float(flag), device=self.device)) > 0)

    def broadcast_flag(self, flag: bool) -> bool:
        said = torch.tensor(float(flag), device=self.device)
        self.broadcast([said])
        return bool(said > 0)


SINGLE_PROCESS = Team()


def join_team(device: str = "cpu") -> Team:
    """The team that this process was launched into, as the launcher's environment variables say;
    a team of one if there was no launcher."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return SINGLE_PROCESS
    return DistributedTeam(cpu=torch.device(device).type == "cpu")


def all_reduce_gradients(
    team: Team, weights: Mapping[str, Tensor], value: Tensor, error: Exception | None
) -> Tensor:
    """Add up over the team the gradients, in place, and the value, which is returned.

    A weight that no process found a gradient for keeps none. error: why this process has nothing
    to add; then every process raises, this one its own error.
    """
    if team.size == 1:
        if error is not None:
            raise error
        return value
    flat = [value.detach().float().reshape(1), value.new_tensor([float(error is not None)])]
    for weight in weights.values():
        grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
        flat += [value.new_tensor([float(weight.grad is not None)]), grad.float().flatten()]
    mean, failed, *sums = team.all_reduce_sum(torch.cat(flat)).split([len(part) for part in flat])
    if error is not None:
        raise error
    if failed > 0:
        raise TeamError("another process of this training failed; its own message says why")
    for weight, found, grad in zip(weights.values(), sums[::2], sums[1::2], strict=True):
        if found > 0:
            weight.grad = grad.view_as(weight).to(weight.dtype)
    return mean[0]
