"""All that a training changes as it goes: weights, their running average, moments. Saved, it is
all that is needed to resume."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..runtime.transfer import HostCopies


class OptimizerState:
    """The trainable weights of a module, AdamW on them, and their running average.

    Everything else in the module's state dict (a codebook that updates itself) is saved too, but
    neither stepped nor averaged.

    module: whose parameters that require a gradient are trained
    lr, weight_decay: of AdamW
    use_ema: whether there is an average
    momentum, beta2: how much of the past gradients and of their squares remains at a step
    moment_sets: number of sets of these moments; a step uses one

    >>> from adbench.engine.training.optimizer_state import OptimizerState
    >>> from torch import nn
    >>> state = OptimizerState(nn.Linear(2, 1), lr=0.1, weight_decay=0.0, use_ema=True)
    >>> sorted(state.state_dict(step=0, micro=4))
    ['average/bias', 'average/weight', 'micro', 'step', 'weight/bias', 'weight/weight']
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        lr: float,
        weight_decay: float,
        use_ema: bool,
        momentum: float = 0.9,
        beta2: float = 0.999,
        moment_sets: int = 1,
    ) -> None:
        self.module = module
        self.weights = {key: p for key, p in module.named_parameters() if p.requires_grad}
        self.on_gpu = any(p.is_cuda for p in self.weights.values())
        self.optimizers = [
            torch.optim.AdamW(
                self.weights.values(),
                lr,
                (momentum, beta2),
                weight_decay=weight_decay,
                fused=self.on_gpu or None,
            )
            for _ in range(moment_sets)
        ]
        self.average = (
            {key: p.detach().clone() for key, p in self.weights.items()} if use_ema else {}
        )

    def zero_grad(self) -> None:
        """Remove the gradients of the weights."""
        self.optimizers[0].zero_grad()

    def step(
        self, learning_rate: float, moment_set: int = 0, *, skip: Tensor | None = None
    ) -> None:
        """Take one step of AdamW along the gradients of the weights, with this set of moments; a
        weight without a gradient stays, and its moments with it.

        skip: on a GPU: 1 if no weight is to change, which the device decides, else 0, ()
        """
        optimizer = self.optimizers[moment_set]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate
        if skip is not None:
            optimizer.found_inf = skip  # pyright: ignore[reportAttributeAccessIssue]  # of a GradScaler
        optimizer.step()

    def clip_gradients(self, norm: float | None) -> Tensor:
        """Shorten the gradient to at most `norm`, None for any length; returns its norm before,
        ()."""
        if norm is not None:
            return nn.utils.clip_grad_norm_(self.weights.values(), norm)
        return nn.utils.get_total_norm(
            [p.grad for p in self.weights.values() if p.grad is not None]
        )

    def update_ema(self, decay: float) -> None:
        """average = decay * average + (1 - decay) * weights."""
        if self.average:
            update = get_ema_multi_avg_fn(decay)  # all tensors in few kernels
            update(list(self.average.values()), list(self.weights.values()), 0)

    @torch.no_grad()
    def apply_ema(self) -> None:
        """Replace the weights by their average."""
        for key, mean in self.average.items():
            self.weights[key].copy_(mean)

    def weights_in_use(self) -> HostCopies:
        """A copy on the CPU of what would be used if the training ended here: the average of the
        weights, or the weights, and everything else of the module's state dict."""
        state = {f"weight/{key}": self.average.get(key, p) for key, p in self.weights.items()}
        state |= {f"rest/{key}": value for key, value in self._untrained_tensors()}
        return HostCopies(state)

    @torch.no_grad()
    def load_weights(self, state: Mapping[str, Tensor]) -> None:
        """Restore the weights of `weights_in_use` or `state_dict` into the module, without waiting
        for a GPU where they are in pinned memory."""
        for key, value in self.weights.items():
            value.copy_(state[f"weight/{key}"], non_blocking=True)
        for key, value in self._untrained_tensors():
            value.copy_(state[f"rest/{key}"], non_blocking=True)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A context in which the module has the weights in use and is in evaluation mode; nothing
        that happens in it changes the module."""
        before = {key: value.detach().clone() for key, value in self.module.state_dict().items()
                  if isinstance(value, Tensor)}  # fmt: skip
        self.apply_ema()
        self.module.eval()
        try:
            yield
        finally:
            with torch.no_grad():
                for key, value in self.module.state_dict().items():
                    if key in before:
                        value.copy_(before[key])
            self.module.train()

    def buffers(self) -> dict[str, Tensor]:
        """The tensors of the state dict that are no parameters, by name."""
        state = self.module.state_dict(keep_vars=True)
        return {key: value for key, value in self.module.named_buffers() if key in state}

    def state_dict(self, step: int, micro: int) -> dict[str, Tensor]:
        """Everything, by name, as it is: not copied. step: steps completed; micro: rows at a
        time."""
        state = {"step": torch.tensor(step), "micro": torch.tensor(micro)}
        state |= {f"weight/{key}": value.detach() for key, value in self.weights.items()}
        state |= {f"average/{key}": value for key, value in self.average.items()}
        state |= {f"rest/{key}": value.detach() for key, value in self._untrained_tensors()}
        for optimizer, name in zip(self.optimizers, self._optimizer_names(), strict=True):
            for key, value in self.weights.items():
                for moment_name, moment in optimizer.state[value].items():
                    state[f"{name}/{moment_name}/{key}"] = torch.as_tensor(moment)
        return state

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore everything that `state_dict` returned."""
        self.load_weights(state)
        for key, value in self.average.items():
            value.copy_(state[f"average/{key}"])
        optimizers = dict(zip(self._optimizer_names(), self.optimizers, strict=True))
        for name, moment in state.items():
            if name.startswith("optimiser"):
                optimizer, moment_name, key = name.split("/", 2)
                on_host = moment_name == "step" and not self.on_gpu
                device = "cpu" if on_host else self.weights[key].device
                moments = optimizers[optimizer].state[self.weights[key]]
                moments[moment_name] = moment.to(device).clone()

    def all_tensors(self, *, with_moments: bool) -> Iterator[Tensor]:
        """All tensors in one order, as a team broadcasts them. with_moments: moments too, which
        are created if need be."""
        yield from self.weights.values()
        yield from self.average.values()
        yield from (value for _, value in self._untrained_tensors())
        for optimizer in self.optimizers if with_moments else ():
            for weight in self.weights.values():
                moments = optimizer.state[weight]
                device = weight.device if self.on_gpu else "cpu"
                yield moments.setdefault("step", torch.zeros((), device=device))
                for moment_name in ("exp_avg", "exp_avg_sq"):
                    yield moments.setdefault(moment_name, torch.zeros_like(weight))

    def describe_nonfinite(self, x: Tensor) -> str:
        """Say which tensor holds the first number that is not finite; x is the step's input."""
        if not x.isfinite().all():
            return "the first tensor that is not finite is the input x"
        for key, value in self.weights.items():
            if not value.isfinite().all():
                return f"the first tensor that is not finite is the weight {key}"
        for key, value in self.weights.items():
            if value.grad is not None and not value.grad.isfinite().all():
                return f"the first tensor that is not finite is the gradient of {key}"
        return "inputs, weights and gradients are finite"

    def _optimizer_names(self) -> list[str]:
        """The prefix of each set of moments in the state dict."""
        return ["optimiser", *(f"optimiser {i}" for i in range(1, len(self.optimizers)))]

    def _untrained_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Frozen parameters and buffers of the module's state dict, by name."""
        for key, value in self.module.named_parameters():
            if not value.requires_grad:
                yield key, value
        yield from self.buffers().items()
