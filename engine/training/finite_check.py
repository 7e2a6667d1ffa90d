"""Whether the numbers of a training are finite, asked without making a GPU wait for the answer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..runtime.transfer import HostCopies
from .loss import NotFinite


class FiniteCheck:
    """Raises NotFinite for the first step whose loss or gradient is not finite.

    On a CPU at once. On a GPU the host reads a step's answer when it has queued the work of the
    next one, so that the device never runs dry; the weights are not stepped meanwhile, as the
    optimizer skips a step by `skip`. Call `settle` before anything is saved.

    >>> import torch
    >>> from adbench.engine.training.finite_check import FiniteCheck
    >>> check = FiniteCheck()
    >>> check.add(3, torch.tensor(0.5), torch.tensor(1.0), lambda: "all is well")
    >>> check.settle()
    """

    def __init__(self) -> None:
        self.skip: Tensor | None = None
        """1 on a GPU if the last step added is to be skipped, else 0, (); None on a CPU."""
        self._pending: tuple[int, HostCopies, Callable[[], str]] | None = None

    def add(self, k: int, loss: Tensor, norm: Tensor, describe: Callable[[], str]) -> None:
        """Check step k; first raise what is known of the step before.

        loss, norm: of the step and its gradient, ()
        describe: names the first tensor that is not finite; called only if there is one
        """
        self.settle()
        finite = torch.isfinite(loss + norm)
        self._pending = k, HostCopies({"finite": finite, "loss": loss}), describe
        if loss.is_cuda:
            self.skip = (~finite).float()
        else:
            self.settle()

    def settle(self) -> None:
        """Raise NotFinite if a step that was added and not yet read is not finite."""
        if self._pending is None:
            return
        (k, numbers, describe), self._pending = self._pending, None
        step = numbers.read()
        if not step["finite"]:
            raise NotFinite(f"training step {k}: the loss is {step['loss'].item()}; {describe()}")
