"""The one training loop: resumable to the bit, stopped by the first number that is not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from .rng import Rng
from .run import Interrupted, Run

Loss = Callable[[Tensor, Tensor, Rng], Tensor]
"""(x, label, rng) -> (N,); x is (N, C, *S) as the dataset gives it, label (N,) bool."""


class NotFinite(ArithmeticError):
    """NaN or infinity in training or in what a network says. Nothing was cached."""


class Example(Protocol):
    """What training reads of a sample; the dataset room's Sample has more."""

    @property
    def x(self) -> Tensor: ...
    @property
    def label(self) -> bool: ...


class Examples(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...


@dataclass(frozen=True)
class Training:
    """Steps of AdamW (Adam, without weight decay) and what goes with them.

    clip: largest norm of the gradient, None for none. ema: decay of the running average of the
    weights that is used afterwards, None for none; ema_warm: start the average faster, with at
    most (1 + k) / (10 + k) after step k, for trainings too short for it. decay: of the learning
    rate, to 0.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.0
    clip: float | None = 1.0
    ema: float | None = 0.9999
    ema_warm: bool = False
    decay: Literal["none", "cosine"] = "none"


@torch.enable_grad()
def minimise(
    loss: Loss, module: nn.Module, data: Examples, run: Run, plan: Training, name: str = "fit"
) -> None:
    """Step down the mean loss and leave the averaged weights in `module`.

    Step k draws from (run.seed, k) alone and everything else is kept, so a run that was killed and
    resumed ends with the same weights. Raises Interrupted when asked to stop, NotFinite with the
    step and the tensor's name when a loss or a gradient is not finite.
    """
    steps, ema = plan.steps, plan.ema
    if not len(data):
        raise ValueError("there is nothing to train on: the training split is empty")
    run.place(module)
    module.train()
    weights = {key: p for key, p in module.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(weights.values(), plan.lr, weight_decay=plan.weight_decay)
    average = {key: p.detach().clone() for key, p in weights.items()} if ema else {}
    streams = Rng([f"{name}/{i}" for i in range(plan.batch)], run.seed, run.device)
    start = _recall(run.keep.load(name), weights, average, optimiser)
    kept = told = time.monotonic()
    for k in range(start, steps):
        now = time.monotonic()
        asked = run.stop()
        if asked or now - kept > run.every:
            run.keep.save(name, _state(k, weights, average, optimiser))
            kept = now
            if asked:
                raise Interrupted(f"stopped at training step {k} of {steps}; all of it is kept")
        for group in optimiser.param_groups:
            group["lr"] = plan.lr * (_cosine(k / steps) if plan.decay == "cosine" else 1)
        rng = streams.at(k)
        examples = [data[int(i)] for i in rng.fork("pick").integers(len(data)).tolist()]
        x = torch.stack([e.x for e in examples]).to(run.device, non_blocking=True)
        label = torch.tensor([e.label for e in examples], device=run.device)
        with run.autocast():
            value = loss(x, label, rng).mean()
        optimiser.zero_grad()
        value.backward()
        norm = nn.utils.clip_grad_norm_(weights.values(), plan.clip or math.inf)
        if not torch.isfinite(value + norm):
            raise NotFinite(
                f"training step {k}: the loss is {value.item()}; {_culprit(x, weights)}"
            )
        optimiser.step()
        if ema:
            share = min(ema, (1 + k) / (10 + k)) if plan.ema_warm else ema
            with torch.no_grad():
                for key, mean_weight in average.items():
                    mean_weight.lerp_(weights[key], 1 - share)
        if now - told > 0.5 or k + 1 == steps:
            told = now
            run.tell("train", {"step": k + 1, "of": steps, "loss": value.item()})
    with torch.no_grad():
        for key, mean_weight in average.items():
            weights[key].copy_(mean_weight)
    module.eval()


def _cosine(done: float) -> float:
    """From 1 to 0 along half a cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * done)


def _state(
    step: int,
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> dict[str, Tensor]:
    state = {"step": torch.tensor(step)}
    state |= {f"weight/{key}": value.detach() for key, value in weights.items()}
    state |= {f"average/{key}": value for key, value in average.items()}
    for key, value in weights.items():
        for what, moment in optimiser.state[value].items():
            state[f"optimiser/{what}/{key}"] = torch.as_tensor(moment)
    return {key: value.cpu().contiguous() for key, value in state.items()}


def _recall(
    state: Mapping[str, Tensor] | None,
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
) -> int:
    """Put everything back as it was kept; the step to go on from."""
    if state is None:
        return 0
    with torch.no_grad():
        for key, value in weights.items():
            value.copy_(state[f"weight/{key}"])
        for key, value in average.items():
            value.copy_(state[f"average/{key}"])
    for key, value in weights.items():
        mine = {
            name.split("/")[1]: moment
            for name, moment in state.items()
            if name.startswith("optimiser/") and name.split("/", 2)[2] == key
        }
        optimiser.state[value] = {
            what: moment.clone() if what == "step" else moment.to(value.device).clone()
            for what, moment in mine.items()
        }
    return int(state["step"])


def _culprit(x: Tensor, weights: Mapping[str, Tensor]) -> str:
    if not x.isfinite().all():
        return "the first tensor that is not finite is the input x"
    for key, value in weights.items():
        if not value.isfinite().all():
            return f"the first tensor that is not finite is the weight {key}"
    for key, value in weights.items():
        if value.grad is not None and not value.grad.isfinite().all():
            return f"the first tensor that is not finite is the gradient of {key}"
    return "inputs, weights and gradients are finite"
