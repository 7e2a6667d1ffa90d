"""The training loop: resumable to the bit, stopped by the first number that is not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..runtime.compilation import rows_at_a_time
from ..runtime.context import Interrupted, TrainingContext
from ..runtime.distributed import all_reduce_gradients
from ..runtime.out_of_memory import halve_batch, is_out_of_memory
from ..runtime.rng import Rng
from ..runtime.setting_types import Count, Decay, Natural, NonNegative, Positive
from ..runtime.weight_names import describe_mismatch
from .data_loading import Examples, draw_balanced_indices, indices_by_label, iterate_batches
from .finite_check import FiniteCheck
from .loss import LossFunction
from .optimizer_state import OptimizerState
from .selection import WeightSelection
from .state_writer import StateWriter


@dataclass(frozen=True)
class Training:
    """The settings of a training: steps of AdamW (Adam, without weight decay), and its schedules.

    steps: number of steps
    batch: rows of a step, all processes together
    lr: the highest learning rate
    weight_decay: of AdamW
    clip: largest norm of the gradient, None for no limit
    ema: decay of the running average of the weights that is used afterwards, None for no average
    ema_warm: start the average faster, with at most (1 + k) / (10 + k) after step k, for
        trainings too short for it
    decay: of the learning rate, to 0
    warmup: steps in which the learning rate first rises, in equal parts
    momentum, beta2: how much of the mean of past gradients, and of their squares, remains at a step
    moment_sets: sets of these two, for losses that take turns at the same weights
    select: which weights the training ends with: the "last", or the "best", with the lowest loss
        on calibration samples
    select_every: steps between two measurements of that loss, and two points of the learning
        curve; None for a twentieth of all steps
    balanced: half of the rows drawn are normal and half abnormal samples, on average; otherwise
        every sample is as probable. The labels of all samples are read once before

    >>> from adbench.engine.training.loop import Training
    >>> Training(steps=100, batch=8, lr=1e-3, warmup=10).learning_rate(4)
    0.0005
    """

    steps: Count
    batch: Count
    lr: Positive
    weight_decay: NonNegative = 0.0
    clip: Positive | None = 1.0
    ema: Decay | None = 0.9999
    ema_warm: bool = False
    decay: Literal["none", "cosine"] = "none"
    warmup: Natural = 0
    momentum: Decay = 0.9
    beta2: Decay = 0.999
    select: Literal["last", "best"] = "last"
    select_every: Count | None = None
    moment_sets: int = field(default=1, metadata={"setting": False})
    balanced: bool = field(default=False, metadata={"setting": False})

    def learning_rate(self, k: int) -> float:
        """The learning rate of step k, 0 for the first."""
        rate = self.lr * (_cosine_decay(k / self.steps) if self.decay == "cosine" else 1)
        return rate * (k + 1) / self.warmup if k < self.warmup else rate

    def ema_decay(self, k: int) -> float:
        """The weight of the old average at step k."""
        ema = self.ema or 0.0
        return min(ema, (1 + k) / (10 + k)) if self.ema_warm else ema

    @property
    def curve_interval(self) -> int:
        """Steps between two points of the learning curve; there is one after the last step, too."""
        return self.select_every or max(1, self.steps // 20)

    def moment_set(self, k: int) -> int:
        """The set of moments of step k."""
        return 0

    def batch_number(self, k: int) -> int:
        """The number of the batch of step k, never less than the step's before: steps may share
        one."""
        return k


@dataclass(frozen=True)
class UnclippedTraining(Training):
    """Training whose gradients are not clipped, of methods in which `clip` is something else.

    >>> from adbench.engine.training.loop import Training, UnclippedTraining
    >>> [kind(steps=1, batch=1, lr=0.1).clip for kind in (Training, UnclippedTraining)]
    [1.0, None]
    """

    clip: Positive | None = field(default=None, metadata={"setting": False})


class TrainingOutcome(NamedTuple):
    """How a training went.

    steps: taken in this call
    micro: rows at a time in the end, halved when memory ran out

    >>> from types import SimpleNamespace
    >>> import torch
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.training.loop import Training, train_module
    >>> net, data = torch.nn.Linear(1, 1), [SimpleNamespace(x=torch.ones(1), label=False)]
    >>> context, plan = TrainingContext(micro=2), Training(steps=3, batch=4, lr=0.1)
    >>> outcome = train_module(lambda x, label, rng: net(x)[:, 0], net, data, context, plan)
    >>> outcome.steps, outcome.micro  # a step of 4 rows is two passes of 2
    (3, 2)
    """

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
    validation: Examples | None = None,
) -> TrainingOutcome:
    """Minimise the mean loss and leave the selected weights in `module`, averaged if so planned.

    Step k draws from (context.seed, k) alone and everything else is saved, so a training that was
    killed and resumed ends with the same weights. In a team every process makes this call with the
    same arguments; rank 0 saves and reports.

    context.on_curve receives the learning curve and the selected step in the end.

    Events: "train" with step, of, loss, lr, norm (of the gradient, before clipping) and rate
    (samples per second); "oom" with micro, and at which step.

    Raises Interrupted after a stop, NotFinite with the step and the tensor's name when a loss or a
    gradient is not finite, OutOfMemory when one row at a time is too many, ValueError where there
    is nothing to train on, or nothing to select the best weights by.

    loss: of each row
    module: whose parameters are trained; it ends in evaluation mode
    data: the training split
    context: device, store of unfinished work, team; imported weights, which end the training
    plan: number of steps and their settings
    name: of this training in the state store and in the random streams
    validation: calibration samples, by which the best weights are selected where the plan says so

    >>> import torch
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.training.loop import Training, train_module
    >>> from torch import nn
    >>> from types import SimpleNamespace
    >>> net, data = nn.Linear(1, 1), [SimpleNamespace(x=torch.ones(1), label=False)]
    >>> plan = Training(steps=2, batch=4, lr=0.1)
    >>> loss = lambda x, label, rng: (net(x) - x).square().mean(1)
    >>> train_module(loss, net, data, TrainingContext(), plan)
    TrainingOutcome(steps=2, micro=4)
    """
    context = context.for_rank()
    if weights := context.imported_weights(module):
        load_imported(module, weights)
        context.place(module).eval()
        return TrainingOutcome(0, context.micro or plan.batch)
    if not len(data):
        raise ValueError("there is nothing to train on: the training split is empty")
    context.place(module)
    module.train()
    team, rows = context.team, context.team.local_rows(plan.batch)
    state = OptimizerState(
        module, lr=plan.lr, weight_decay=plan.weight_decay, use_ema=bool(plan.ema),
        momentum=plan.momentum, beta2=plan.beta2, moment_sets=plan.moment_sets,
    )  # fmt: skip
    selection = WeightSelection(plan, state, loss, validation, context, name)
    first, micro = _resume_or_start(state, selection, context, name, len(rows))
    keys = [f"{name}/{i}" for i in rows.tolist()]
    streams = Rng(keys, context.seed, context.device)
    indices = _batch_indices(Rng(keys, context.seed), data, plan, first)
    progress = _ProgressReporter(context, plan, first)
    writer = StateWriter(context.state_store, name, context.checkpoint_interval)
    check, agreed_stop = FiniteCheck(), team.size > 1 and team.any(context.stop())
    x = label = None
    with writer, closing(iterate_batches(data, indices, context)) as batches:
        for k in range(first, plan.steps):
            stopping = agreed_stop or (team.size == 1 and context.stop())
            if stopping or writer.is_due():
                check.settle()
                writer.save(partial(_whole_state, state, selection, k, micro), wait=stopping)
                if stopping:
                    raise Interrupted(
                        f"stopped at training step {k} of {plan.steps}; everything is saved"
                    )
            if plan.batch_number(k) != plan.batch_number(k - 1):
                x = None
            value, error, step = torch.zeros((), device=context.device), None, None
            state.zero_grad()
            try:
                if x is None or label is None:
                    x, label = next(batches)
                step = _StepRows(k, x, label, streams.at(k), len(rows) / plan.batch)
                value, micro = _backward_with_retry(loss, state, step, context, micro)
            except Exception as step_error:  # in a team, the others learn of it below
                error = step_error
            stop = team.size > 1 and context.stop()  # the team agrees on it for the next step
            value, agreed_stop = all_reduce_gradients(team, state.weights, value, error, stop=stop)
            assert step is not None  # else there was an error
            norm = state.clip_gradients(plan.clip)
            describe = partial(_describe_nonfinite, loss, state, step, context, micro)
            check.add(k, value, norm, describe)
            state.step(plan.learning_rate(k), plan.moment_set(k), skip=check.skip)
            state.update_ema(plan.ema_decay(k))
            if team.size > 1:
                team.broadcast(state.buffers().values())
            progress.report(k, value, norm)
            selection.record(k + 1, value)
    check.settle()
    selection.finish()
    module.eval()
    return TrainingOutcome(plan.steps - first, micro)


def load_imported(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load weights that were trained elsewhere into a module.

    Of each child with any of them, every parameter. Other children are for training alone (a
    discriminator), and other buffers stay as the constructor set them.

    weights: by the names of the module's state dict
    Raises ValueError that names what is missing, unknown or of another shape.

    >>> import torch
    >>> from adbench.engine.training.loop import load_imported
    >>> from torch import nn
    >>> net = nn.Linear(1, 1, bias=False)
    >>> load_imported(net, {"weight": torch.tensor([[2.0]])})
    >>> net.weight.item()
    2.0
    """
    own = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    children = {key.partition(".")[0] for key in weights}
    required = [name for name, _ in module.named_parameters() if name.partition(".")[0] in children]
    if mismatch := describe_mismatch(own, weights, required=required):
        raise ValueError(f"the imported weights do not fit: {mismatch}")
    with torch.no_grad():
        for key, value in weights.items():
            own[key].copy_(value)


def _batch_indices(rng: Rng, data: Examples, plan: Training, first: int) -> Iterator[list[int]]:
    """The samples of every batch from step `first` on, each batch once."""
    by_label = indices_by_label(data) if plan.balanced else None
    streams = rng.fork("pick balanced" if by_label else "pick")
    for number, _ in groupby(map(plan.batch_number, range(first, plan.steps))):
        if by_label:
            yield draw_balanced_indices(streams.at(number), by_label)
        else:
            yield streams.at(number).integers(len(data)).tolist()


class _StepRows(NamedTuple):
    """This process's rows of step k; share: their part of the whole batch."""

    k: int
    x: Tensor
    label: Tensor
    rng: Rng
    share: float


def _backward_with_retry(
    loss: LossFunction,
    state: OptimizerState,
    step: _StepRows,
    context: TrainingContext,
    micro: int,
) -> tuple[Tensor, int]:
    """The rows' part of the batch's mean loss, whose gradient the weights then hold; and how many
    rows at a time that took: half as many, and half again, where memory ran out."""
    while True:
        try:
            return _accumulate_gradients(loss, step, context, micro), micro
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            state.zero_grad()
        micro = halve_batch(micro, f"training step {step.k}", context)
        context.on_event("oom", {"at": step.k, "micro": micro})


def _describe_nonfinite(
    loss: LossFunction, state: OptimizerState, step: _StepRows, context: TrainingContext, micro: int
) -> str:
    """The first tensor of a step that is not finite. On a GPU, where the next step has replaced
    the gradients and no weight has changed, they are computed again."""
    if context.kind == "cuda":
        state.zero_grad()
        value = _accumulate_gradients(loss, step, context, micro)
        all_reduce_gradients(context.team, state.weights, value, None)
    return state.describe_nonfinite(step.x)


def _accumulate_gradients(
    loss: LossFunction, step: _StepRows, context: TrainingContext, micro: int
) -> Tensor:
    count, total = len(step.x), torch.zeros((), device=context.device)
    if context.compiles:
        micro = rows_at_a_time(count, micro)
    for start in range(0, count, micro):
        rows = torch.arange(start, min(start + micro, count))
        part = slice(start, start + len(rows))
        rng = step.rng if len(rows) == count else step.rng.rows(rows)
        losses = loss(step.x[part], step.label[part], rng)
        value = losses.mean() * (step.share * len(rows) / count)
        value.backward()
        total += value.detach()
    return total


def _resume_or_start(
    state: OptimizerState,
    selection: WeightSelection,
    context: TrainingContext,
    name: str,
    row_count: int,
) -> tuple[int, int]:
    """The step to begin with, and the rows at a time; resumes from the saved state, if any."""
    team, micro = context.team, max(min(context.micro or row_count, row_count), 1)
    saved = context.state_store.load(name)
    first = torch.tensor(0 if saved is None else int(saved["step"]))
    if saved is not None:
        state.load_state_dict(saved)
        selection.load_state_dict(saved)
        last_micro = int(saved.get("micro", micro))
        if last_micro < micro:  # memory ran out before the interruption, and would again
            micro = last_micro
            context.on_event("oom", {"at": int(first), "micro": micro})
    team.broadcast([first])
    if team.size > 1:
        team.broadcast(state.all_tensors(with_moments=int(first) > 0))
    return int(first), micro


def _whole_state(
    state: OptimizerState, selection: WeightSelection, k: int, micro: int
) -> dict[str, Tensor]:
    return state.state_dict(k, micro) | selection.state_dict()


class _ProgressReporter:
    """Sends "train" events at the context's interval, and at the end."""

    def __init__(self, context: TrainingContext, plan: Training, first: int) -> None:
        self._context, self._plan = context, plan
        self._step, self._time = first, time.monotonic()

    def report(self, k: int, value: Tensor, norm: Tensor) -> None:
        now, plan = time.monotonic(), self._plan
        if now - self._time < self._context.event_interval and k + 1 < plan.steps:
            return
        rate = (k + 1 - self._step) * plan.batch / max(now - self._time, 1e-9)
        self._step, self._time = k + 1, now
        facts = {"step": k + 1, "of": plan.steps, "loss": value.item()}
        facts |= {"lr": plan.learning_rate(k), "norm": norm.item(), "rate": rate}
        self._context.on_event("train", facts)


def _cosine_decay(fraction: float) -> float:
    """From 1 to 0 along half a cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * fraction)
