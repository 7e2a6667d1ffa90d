"""What a training changes as it goes: weights, their running average, moments. Kept, it is all
that is needed to go on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class OptimizerState:
    """The weights of a module that are to be trained, AdamW on them, and their average.

    averaged: whether there is an average. momentum, beta2: what of past gradients and of their
    squares stays at a step. sets: of these moments, from which a step uses one. What else is in
    the module's state dict (a codebook that updates itself) is kept too, but neither stepped nor
    averaged.
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
        self.optimizers = [
            torch.optim.AdamW(
                self.weights.values(), lr, (momentum, beta2), weight_decay=weight_decay
            )
            for _ in range(moment_sets)
        ]
        self.average = (
            {key: p.detach().clone() for key, p in self.weights.items()} if use_ema else {}
        )

    def zero_grad(self) -> None:
        """The weights hold no gradient."""
        self.optimizers[0].zero_grad()

    def step(self, learning_rate: float, moment_set: int = 0) -> None:
        """One step of AdamW along the gradients that the weights hold, with this set of moments;
        a weight without a gradient stays, and its moments with it."""
        for group in self.optimizers[moment_set].param_groups:
            group["lr"] = learning_rate
        self.optimizers[moment_set].step()

    def clip_gradients(self, norm: float | None) -> Tensor:
        """Shorten the gradient to at most `norm`; its length before."""
        return nn.utils.clip_grad_norm_(self.weights.values(), norm or math.inf)

    def update_ema(self, decay: float) -> None:
        """average = share * average + (1 - share) * weights."""
        if self.average:
            blend = get_ema_multi_avg_fn(decay)  # all tensors in few kernels
            blend(list(self.average.values()), list(self.weights.values()), 0)

    @torch.no_grad()
    def apply_ema(self) -> None:
        """The average takes the place of the weights."""
        for key, mean in self.average.items():
            self.weights[key].copy_(mean)

    def buffers(self) -> dict[str, Tensor]:
        """What the state dict holds beside parameters."""
        kept = self.module.state_dict(keep_vars=True)
        return {key: value for key, value in self.module.named_buffers() if key in kept}

    def state_dict(self, step: int, micro: int) -> dict[str, Tensor]:
        """Everything, on the CPU, by name. step: how many are done; micro: rows at a time."""
        state = {"step": torch.tensor(step), "micro": torch.tensor(micro)}
        state |= {f"weight/{key}": value.detach() for key, value in self.weights.items()}
        state |= {f"average/{key}": value for key, value in self.average.items()}
        state |= {f"rest/{key}": value.detach() for key, value in self._untrained_tensors()}
        for optimiser, name in zip(self.optimizers, self._optimizer_names(), strict=True):
            for key, value in self.weights.items():
                for what, moment in optimiser.state[value].items():
                    state[f"{name}/{what}/{key}"] = torch.as_tensor(moment)
        return {key: value.cpu().contiguous() for key, value in state.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put everything back as it was kept."""
        for key, value in self.weights.items():
            value.copy_(state[f"weight/{key}"])
        for key, value in self.average.items():
            value.copy_(state[f"average/{key}"])
        for key, value in self._untrained_tensors():
            value.copy_(state[f"rest/{key}"])
        known = dict(zip(self._optimizer_names(), self.optimizers, strict=True))
        for name, moment in state.items():
            if name.startswith("optimiser"):
                which, what, key = name.split("/", 2)
                where = "cpu" if what == "step" else self.weights[key].device
                known[which].state[self.weights[key]][what] = moment.to(where).clone()

    def all_tensors(self, *, with_moments: bool) -> Iterator[Tensor]:
        """All of it in one order, as a team shares it. with_moments: moments too, made if need
        be."""
        yield from self.weights.values()
        yield from self.average.values()
        yield from (value for _, value in self._untrained_tensors())
        for optimiser in self.optimizers if with_moments else ():
            for weight in self.weights.values():
                moments = optimiser.state[weight]
                yield moments.setdefault("step", torch.tensor(0.0))
                for what in ("exp_avg", "exp_avg_sq"):
                    yield moments.setdefault(what, torch.zeros_like(weight))

    def describe_nonfinite(self, x: Tensor) -> str:
        """Where the first number stands that is not finite; x is the step's input."""
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
        """What each set of moments is kept under."""
        return ["optimiser", *(f"optimiser {i}" for i in range(1, len(self.optimizers)))]

    def _untrained_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Frozen parameters and buffers of the state dict."""
        for key, value in self.module.named_parameters():
            if not value.requires_grad:
                yield key, value
        yield from self.buffers().items()
