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

from ..runtime.distributed import pooled
from ..runtime.out_of_memory import halved
from ..runtime.rng import Rng
from ..runtime.run import Interrupted, Run
from .data_loading import Examples, batches
from .optimizer_state import Learner

Loss = Callable[[Tensor, Tensor, Rng], Tensor]
"""(x, label, rng) -> (N,); x is (N, C, *S) as the dataset gives it, label (N,) bool. N is any
number of a batch's rows, each with its own stream: what a row's loss is depends on no other."""


class NotFinite(ArithmeticError):
    """NaN or infinity in training or in what a network says. Nothing was cached."""


@dataclass(frozen=True)
class Training:
    """Steps of AdamW (Adam, without weight decay) and what goes with them.

    batch: rows of a step, all processes together. clip: largest norm of the gradient, None for
    none. ema: decay of the running average of the weights that is used afterwards, None for none;
    ema_warm: start the average faster, with at most (1 + k) / (10 + k) after step k, for trainings
    too short for it. decay: of the learning rate, to 0. warmup: steps in which it first rises,
    in equal parts. momentum, beta2: how much of the mean of past gradients, and of their squares,
    stays at a step. sets: of these two, for losses that take turns at the same weights.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.0
    clip: float | None = 1.0
    ema: float | None = 0.9999
    ema_warm: bool = False
    decay: Literal["none", "cosine"] = "none"
    warmup: int = 0
    momentum: float = 0.9
    beta2: float = 0.999
    sets: int = 1

    def rate(self, k: int) -> float:
        """The learning rate of step k, 0 for the first."""
        rate = self.lr * (_cosine(k / self.steps) if self.decay == "cosine" else 1)
        return rate * (k + 1) / self.warmup if k < self.warmup else rate

    def share(self, k: int) -> float:
        """What of the average stays at step k."""
        ema = self.ema or 0.0
        return min(ema, (1 + k) / (10 + k)) if self.ema_warm else ema

    def which(self, k: int) -> int:
        """The set of moments of step k."""
        return 0

    def batch_at(self, k: int) -> int:
        """The number of the batch of step k, never less than the step's before: steps may share
        one."""
        return k


class Fitted(NamedTuple):
    """steps: taken in this call. micro: rows at a time in the end, halved when memory ran out"""

    steps: int
    micro: int


@torch.enable_grad()
def minimise(
    loss: Loss, module: nn.Module, data: Examples, run: Run, plan: Training, name: str = "fit"
) -> Fitted:
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
    run = run.led()
    run.place(module)
    module.train()
    team, rows = run.team, run.team.rows(plan.batch)
    learner = Learner(module, lr=plan.lr, weight_decay=plan.weight_decay, averaged=bool(plan.ema),
        momentum=plan.momentum, beta2=plan.beta2, sets=plan.sets)  # fmt: skip
    first, micro = _begun(learner, run, name, len(rows))
    keys = [f"{name}/{i}" for i in rows.tolist()]
    streams, picks = Rng(keys, run.seed, run.device), Rng(keys, run.seed).fork("pick")
    numbers = groupby(map(plan.batch_at, range(first, plan.steps)))
    picked = (picks.at(number).integers(len(data)).tolist() for number, _ in numbers)
    kept, progress = time.monotonic(), _Progress(run, plan, first)
    x = label = None
    with closing(batches(data, picked, run)) as reading:
        for k in range(first, plan.steps):
            now = time.monotonic()
            asked = team.any(run.stop())
            if asked or now - kept > run.every:
                if team.rank == 0:
                    run.keep.save(name, learner.state(k, micro))
                kept = now
                if asked:
                    raise Interrupted(
                        f"stopped at training step {k} of {plan.steps}; all of it is kept"
                    )
            if plan.batch_at(k) != plan.batch_at(k - 1):
                x = None
            value, error = torch.zeros((), device=run.device), None
            learner.clear()
            try:
                if x is None or label is None:
                    x, label = next(reading)
                parts = _Step(k, x, label, streams.at(k), len(rows) / plan.batch)
                value, micro = _descended(loss, learner, parts, run, micro)
            except Exception as caught:  # in a team, the others learn of it below
                error = caught
            value = pooled(team, learner.weights, value, error)
            norm = learner.clip(plan.clip)
            if not torch.isfinite(value + norm):
                where = learner.culprit(x) if x is not None else ""
                raise NotFinite(f"training step {k}: the loss is {value.item()}; {where}")
            learner.step(plan.rate(k), plan.which(k))
            learner.blend(plan.share(k))
            if team.size > 1:
                team.share(learner.buffers().values())
            progress.tell(k, value, norm)
    learner.settle()
    module.eval()
    return Fitted(plan.steps - first, micro)


class _Step(NamedTuple):
    """This process's rows of step k; share: what of the whole batch they are."""

    k: int
    x: Tensor
    label: Tensor
    rng: Rng
    share: float


def _descended(
    loss: Loss, learner: Learner, step: _Step, run: Run, micro: int
) -> tuple[Tensor, int]:
    """The rows' part of the batch's mean loss, whose gradient the weights then hold; and how many
    rows at a time that took: half as many, and half again, where memory ran out."""
    while True:
        try:
            return _accumulated(loss, step, run, micro), micro
        except torch.OutOfMemoryError:
            learner.clear()
        micro = halved(micro, f"training step {step.k}", run)
        run.tell("oom", {"at": step.k, "micro": micro})


def _accumulated(loss: Loss, step: _Step, run: Run, micro: int) -> Tensor:
    count, total = len(step.x), torch.zeros((), device=run.device)
    for start in range(0, count, micro):
        rows = torch.arange(start, min(start + micro, count))
        part = slice(start, start + len(rows))
        rng = step.rng if len(rows) == count else step.rng.rows(rows)
        with run.autocast():
            each = loss(step.x[part], step.label[part], rng)
            value = each.mean() * (step.share * len(rows) / count)
        value.backward()
        total += value.detach()
    return total


def _begun(learner: Learner, run: Run, name: str, rows: int) -> tuple[int, int]:
    """The step to begin with, and the rows at a time; goes on from what was kept, if anything."""
    team, micro = run.team, max(min(run.micro or rows, rows), 1)
    state = run.keep.load(name)
    first = torch.tensor(0 if state is None else int(state["step"]))
    if state is not None:
        learner.recall(state)
        fitted = int(state.get("micro", micro))
        if fitted < micro:  # memory ran out before the interruption, and would again
            micro = fitted
            run.tell("oom", {"at": int(first), "micro": micro})
    team.share([first])
    if team.size > 1:
        team.share(learner.tensors(begun=int(first) > 0))
    return int(first), micro


class _Progress:
    """Tells of the training every now and then, and at its end."""

    def __init__(self, run: Run, plan: Training, first: int) -> None:
        self._run, self._plan = run, plan
        self._step, self._time = first, time.monotonic()

    def tell(self, k: int, value: Tensor, norm: Tensor) -> None:
        now = time.monotonic()
        if now - self._time < self._run.tell_every and k + 1 < self._plan.steps:
            return
        rate = (k + 1 - self._step) * self._plan.batch / max(now - self._time, 1e-9)
        self._step, self._time = k + 1, now
        facts = {"loss": value.item(), "lr": self._plan.rate(k), "norm": norm.item(), "rate": rate}
        self._run.tell("train", {"step": k + 1, "of": self._plan.steps, **facts})


def _cosine(done: float) -> float:
    """From 1 to 0 along half a cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * done)
