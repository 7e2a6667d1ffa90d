"""The one training loop: resumable to the bit, stopped by the first number that is not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..runtime.distributed import all_reduce_gradients
from ..runtime.out_of_memory import halve_batch
from ..runtime.rng import Rng
from ..runtime.run import Interrupted, TrainingContext
from .data_loading import Examples, iterate_batches
from .optimizer_state import OptimizerState

LossFunction = Callable[[Tensor, Tensor, Rng], Tensor]
"""(x, label, rng) -> (N,); x is (N, C, *S) as the dataset gives it, label (N,) bool. N is any
number of a batch's rows, each with its own stream: what a row's loss is depends on no other."""


class NotFinite(ArithmeticError):
    """NaN or infinity in training or in what a network says. Nothing was cached."""


@dataclass(frozen=True)
class Training:
    """Steps of AdamW (Adam, without weight decay) and what goes with them.

    batch: rows of a step, all processes together. clip: largest norm of the gradient, None for
    none. ema: decay of the running average of the weights that is used afterwards, None for none;
    ema_warmup: start the average faster, with at most (1 + k) / (10 + k) after step k, for
    trainings
    too short for it. decay: of the learning rate, to 0. warmup: steps in which it first rises,
    in equal parts. momentum, beta2: how much of the mean of past gradients, and of their squares,
    stays at a step. moment_sets: of these two, for losses that take turns at the same weights.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.0
    clip: float | None = 1.0
    ema: float | None = 0.9999
    ema_warmup: bool = False
    decay: Literal["none", "cosine"] = "none"
    warmup: int = 0
    momentum: float = 0.9
    beta2: float = 0.999
    moment_sets: int = 1

    def learning_rate(self, k: int) -> float:
        """The learning rate of step k, 0 for the first."""
        rate = self.lr * (_cosine_decay(k / self.steps) if self.decay == "cosine" else 1)
        return rate * (k + 1) / self.warmup if k < self.warmup else rate

    def ema_decay(self, k: int) -> float:
        """What of the average stays at step k."""
        ema = self.ema or 0.0
        return min(ema, (1 + k) / (10 + k)) if self.ema_warmup else ema

    def moment_set(self, k: int) -> int:
        """The set of moments of step k."""
        return 0

    def batch_number(self, k: int) -> int:
        """The number of the batch of step k, never less than the step's before: steps may share
        one."""
        return k


class TrainingOutcome(NamedTuple):
    """steps: taken in this call. micro: rows at a time in the end, halved when memory ran out"""

    steps: int
    micro: int


@torch.enable_grad()
def train_module(
    loss: LossFunction,
    module: nn.Module,
    data: Examples,
    context: TrainingContext,
    plan: Training,
    name: str = "fit",
) -> TrainingOutcome:
    """Step down the mean loss and leave the averaged weights in `module`.

    Step k draws from (run.seed, k) alone and everything else is kept, so a run that was killed and
    resumed ends with the same weights. Tells "train" with step, of, loss, lr, norm (of the
    gradient, before clipping) and rate (samples per second); "oom" with micro, and at which step.
    Raises Interrupted when asked to stop, NotFinite with the step and the tensor's name when a
    loss or a gradient is not finite, OutOfMemory when one row at a time is too many.

    In a team every process makes this call with the same arguments; the first keeps and tells.
    """
    if not len(data):
        raise ValueError("there is nothing to train on: the training split is empty")
    context = context.for_rank()
    context.place(module)
    module.train()
    team, rows = context.team, context.team.local_rows(plan.batch)
    learner = OptimizerState(
        module,
        lr=plan.lr,
        weight_decay=plan.weight_decay,
        use_ema=bool(plan.ema),
        momentum=plan.momentum,
        beta2=plan.beta2,
        moment_sets=plan.moment_sets,
    )
    first, micro = _resume_or_start(learner, context, name, len(rows))
    keys = [f"{name}/{i}" for i in rows.tolist()]
    streams, picks = Rng(keys, context.seed, context.device), Rng(keys, context.seed).fork("pick")
    numbers = groupby(map(plan.batch_number, range(first, plan.steps)))
    picked = (picks.at(number).integers(len(data)).tolist() for number, _ in numbers)
    kept, progress = time.monotonic(), _ProgressReporter(context, plan, first)
    x = label = None
    with closing(iterate_batches(data, picked, context)) as reading:
        for k in range(first, plan.steps):
            now = time.monotonic()
            asked = team.any(context.stop())
            if asked or now - kept > context.checkpoint_interval:
                if team.rank == 0:
                    context.state_store.save(name, learner.state_dict(k, micro))
                kept = now
                if asked:
                    raise Interrupted(
                        f"stopped at training step {k} of {plan.steps}; all of it is kept"
                    )
            if plan.batch_number(k) != plan.batch_number(k - 1):
                x = None
            value, error = torch.zeros((), device=context.device), None
            learner.zero_grad()
            try:
                if x is None or label is None:
                    x, label = next(reading)
                parts = _StepRows(k, x, label, streams.at(k), len(rows) / plan.batch)
                value, micro = _backward_with_retry(loss, learner, parts, context, micro)
            except Exception as caught:  # in a team, the others learn of it below
                error = caught
            value = all_reduce_gradients(team, learner.weights, value, error)
            norm = learner.clip_gradients(plan.clip)
            if not torch.isfinite(value + norm):
                where = learner.describe_nonfinite(x) if x is not None else ""
                raise NotFinite(f"training step {k}: the loss is {value.item()}; {where}")
            learner.step(plan.learning_rate(k), plan.moment_set(k))
            learner.update_ema(plan.ema_decay(k))
            if team.size > 1:
                team.broadcast(learner.buffers().values())
            progress.report(k, value, norm)
    learner.apply_ema()
    module.eval()
    return TrainingOutcome(plan.steps - first, micro)


class _StepRows(NamedTuple):
    """This process's rows of step k; share: what of the whole batch they are."""

    k: int
    x: Tensor
    label: Tensor
    rng: Rng
    share: float


def _backward_with_retry(
    loss: LossFunction,
    optimizer_state: OptimizerState,
    step: _StepRows,
    context: TrainingContext,
    micro: int,
) -> tuple[Tensor, int]:
    """The rows' part of the batch's mean loss, whose gradient the weights then hold; and how many
    rows at a time that took: half as many, and half again, where memory ran out."""
    while True:
        try:
            return _accumulate_gradients(loss, step, context, micro), micro
        except torch.OutOfMemoryError:
            optimizer_state.zero_grad()
        micro = halve_batch(micro, f"training step {step.k}", context)
        context.on_event("oom", {"at": step.k, "micro": micro})


def _accumulate_gradients(
    loss: LossFunction, step: _StepRows, context: TrainingContext, micro: int
) -> Tensor:
    count, total = len(step.x), torch.zeros((), device=context.device)
    for start in range(0, count, micro):
        rows = torch.arange(start, min(start + micro, count))
        part = slice(start, start + len(rows))
        rng = step.rng if len(rows) == count else step.rng.rows(rows)
        with context.autocast():
            each = loss(step.x[part], step.label[part], rng)
            value = each.mean() * (step.share * len(rows) / count)
        value.backward()
        total += value.detach()
    return total


def _resume_or_start(
    optimizer_state: OptimizerState, context: TrainingContext, name: str, row_count: int
) -> tuple[int, int]:
    """The step to begin with, and the rows at a time; goes on from what was kept, if anything."""
    team, micro = context.team, max(min(context.micro or row_count, row_count), 1)
    state = context.state_store.load(name)
    first = torch.tensor(0 if state is None else int(state["step"]))
    if state is not None:
        optimizer_state.load_state_dict(state)
        fitted = int(state.get("micro", micro))
        if fitted < micro:  # memory ran out before the interruption, and would again
            micro = fitted
            context.on_event("oom", {"at": int(first), "micro": micro})
    team.broadcast([first])
    if team.size > 1:
        team.broadcast(optimizer_state.all_tensors(with_moments=int(first) > 0))
    return int(first), micro


class _ProgressReporter:
    """Tells of the training every now and then, and at its end."""

    def __init__(self, context: TrainingContext, plan: Training, first: int) -> None:
        self._run, self._plan = context, plan
        self._step, self._time = first, time.monotonic()

    def report(self, k: int, value: Tensor, norm: Tensor) -> None:
        now = time.monotonic()
        if now - self._time < self._run.event_interval and k + 1 < self._plan.steps:
            return
        rate = (k + 1 - self._step) * self._plan.batch / max(now - self._time, 1e-9)
        self._step, self._time = k + 1, now
        facts = {
            "loss": value.item(),
            "lr": self._plan.learning_rate(k),
            "norm": norm.item(),
            "rate": rate,
        }
        self._run.on_event("train", {"step": k + 1, "of": self._plan.steps, **facts})


def _cosine_decay(fraction: float) -> float:
    """From 1 to 0 along half a cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * fraction)
