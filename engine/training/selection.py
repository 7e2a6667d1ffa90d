"""Which of the weights that a training passes through it ends with: the last, or those with the
lowest loss on calibration samples, which are never validation or test samples.

Every measurement is of the same samples with the same random numbers, so that two of them differ
by the weights alone. It runs on rank 0 of a team, without gradients, in evaluation mode.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from ..runtime.context import TrainingContext
from ..runtime.distributed import TeamError
from ..runtime.learning_curve import CurvePoint, LearningCurve
from ..runtime.out_of_memory import halve_batch, is_out_of_memory
from ..runtime.rng import Rng
from ..runtime.transfer import HostCopies
from .data_loading import Examples, iterate_batches
from .loss import LossFunction, NotFinite
from .optimizer_state import OptimizerState

CALIBRATION_ROWS = 64
"""Rows of a measurement; of fewer samples, some count several times, with other random numbers."""

ROWS_AT_A_TIME = 8
"""Not the batch of the training: the measurement depends on no setting of it."""


class SelectionPlan(Protocol):
    """What a selection reads of the settings of a training.

    >>> from adbench.engine.training.loop import Training
    >>> from adbench.engine.training.selection import SelectionPlan
    >>> plan: SelectionPlan = Training(steps=100, batch=8, lr=1e-3, select="best")
    >>> plan.select, plan.curve_interval  # measured every 5 steps
    ('best', 5)
    """

    @property
    def steps(self) -> int: ...
    @property
    def select(self) -> str: ...
    @property
    def curve_interval(self) -> int: ...


class WeightSelection:
    """The learning curve of a training so far, and its best weights.

    plan: of the training; with select "best" the loss is measured on `validation`
    state: of the training
    loss: of each row
    validation: calibration samples; None for a training whose loss says nothing of quality
    context: of the training
    name: of the training in the random streams

    Raises ValueError where the best weights are asked for without `validation`, and warns, to end
    with the last weights, where it has no sample.

    >>> import torch
    >>> from adbench.engine.runtime.context import TrainingContext
    >>> from adbench.engine.training.loop import Training
    >>> from adbench.engine.training.optimizer_state import OptimizerState
    >>> from adbench.engine.training.selection import WeightSelection
    >>> plan, net = Training(steps=1, batch=1, lr=0.1), torch.nn.Linear(1, 1)
    >>> state = OptimizerState(net, lr=0.1, weight_decay=0.0, use_ema=False)
    >>> context = TrainingContext(on_curve=lambda curve: print(curve.points))
    >>> selection = WeightSelection(plan, state, lambda x, label, rng: x, None, context, "fit")
    >>> selection.record(1, torch.tensor(0.5))
    >>> selection.finish()
    [CurvePoint(step=1, loss=0.5, calibration_loss=None)]
    """

    def __init__(
        self,
        plan: SelectionPlan,
        state: OptimizerState,
        loss: LossFunction,
        validation: Examples | None,
        context: TrainingContext,
        name: str,
    ) -> None:
        self._plan, self._state, self._loss = plan, state, loss
        self._validation, self._context, self._name = validation, context, name
        if plan.select == "best" and validation is None:
            raise ValueError(
                f"the training '{name}' of this method measures no calibration loss, so there is "
                f"no best step to select; set select to 'last'"
            )
        self._selects = plan.select == "best" and bool(validation)
        if plan.select == "best" and not self._selects:
            warnings.warn(
                f"there are no calibration samples to select the best weights of the training "
                f"'{name}' by: it ends with its last",
                stacklevel=3,
            )
        self._steps, self._calibration_losses = list[int](), list[float]()  # NaN: not measured
        self._losses = list[Tensor]()  # () each; read at the end, so that no step waits
        self._total, self._count = torch.zeros((), device=context.device), 0
        self._lowest, self._best_step, self._best = math.inf, 0, HostCopies({})
        self._rows_at_a_time = ROWS_AT_A_TIME

    def record(self, step: int, loss: Tensor) -> None:
        """Count the loss of a step, (); at the steps that the plan says, add a point to the curve
        and keep the weights if they are the best so far.

        step: steps completed

        Raises NotFinite where the calibration loss is not finite.
        """
        self._total += loss
        self._count += 1
        if step % self._plan.curve_interval and step != self._plan.steps:
            return
        calibration = self._measure(step) if self._selects else math.nan
        self._steps.append(step)
        self._losses.append(self._total / self._count)
        self._calibration_losses.append(calibration)
        self._total, self._count = torch.zeros_like(self._total), 0
        if calibration < self._lowest:
            self._lowest, self._best_step = calibration, step
            self._best = self._state.weights_in_use()

    def finish(self) -> None:
        """Leave the selected weights in the module, and report the curve."""
        if not self._selects:
            self._state.apply_ema()
        else:
            if best := self._best.read():
                self._state.load_weights(best)
            team = self._context.team
            if team.size > 1:
                team.broadcast([*self._state.weights.values(), *self._state.buffers().values()])
        losses = torch.stack(self._losses).tolist() if self._losses else []
        points = [
            CurvePoint(step, loss, None if math.isnan(calibration) else calibration)
            for step, loss, calibration in zip(
                self._steps, losses, self._calibration_losses, strict=True
            )
        ]
        selected = self._best_step if self._selects else self._plan.steps
        self._context.on_curve(LearningCurve(self._name, self._plan, points, selected))

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, by name, as it is: not copied."""
        numbers = {
            "steps": torch.tensor(self._steps, dtype=torch.int64),
            "losses": torch.stack(self._losses) if self._losses else self._total.new_zeros(0),
            "calibration_losses": torch.tensor(self._calibration_losses, dtype=torch.float64),
            "total": self._total,
            "count": torch.tensor(self._count),
            "lowest": torch.tensor(self._lowest, dtype=torch.float64),
            "best_step": torch.tensor(self._best_step),
        }
        state = {f"curve/{key}": value.detach() for key, value in numbers.items()}
        return state | {f"best/{key}": value for key, value in self._best.read().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore everything that `state_dict` returned."""
        if "curve/steps" not in state:
            return
        device = self._context.device
        self._steps = state["curve/steps"].tolist()
        self._losses = list(state["curve/losses"].to(device).clone().unbind())
        self._calibration_losses = state["curve/calibration_losses"].tolist()
        self._total = state["curve/total"].to(device).clone()
        self._count = int(state["curve/count"])
        self._lowest = float(state["curve/lowest"])
        self._best_step = int(state["curve/best_step"])
        best = {key: value for key, value in state.items() if key.startswith("best/")}
        self._best = HostCopies({key.removeprefix("best/"): best[key] for key in best})

    def _measure(self, step: int) -> float:
        """The mean loss on the calibration samples with the weights in use; in a team, where other
        processes wait for it, NaN in those."""
        team, value, error = self._context.team, math.nan, None
        if team.rank == 0:
            try:
                with self._state.evaluating():
                    value = self._mean_loss(step)
            except Exception as measuring_error:  # the others learn of it below
                error = measuring_error
        if team.any(error is not None):
            raise error or TeamError(
                "another process of this training failed; its own message says why"
            )
        return value

    @torch.no_grad()
    def _mean_loss(self, step: int) -> float:
        while True:
            try:
                losses = self._row_losses()
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            stage = f"calibration loss after training step {step}"
            self._rows_at_a_time = halve_batch(self._rows_at_a_time, stage, self._context)
        value = math.fsum(losses) / len(losses)
        if not math.isfinite(value):
            raise NotFinite(f"after training step {step} the calibration loss is {value}")
        return value

    def _row_losses(self) -> list[float]:
        assert self._validation is not None
        context, rows = self._context, CALIBRATION_ROWS
        indices = [row * len(self._validation) // rows for row in range(rows)]
        keys = [f"{self._name}/calibration/{row}" for row in range(rows)]
        streams = Rng(keys, context.seed, context.device)
        parts = torch.arange(rows).split(self._rows_at_a_time)
        batches = [[indices[row] for row in part.tolist()] for part in parts]
        losses: list[Tensor] = []
        with closing(
            iterate_batches(self._validation, batches, replace(context, workers=0))
        ) as examples:
            for part, (x, label) in zip(parts, examples, strict=True):
                losses.append(self._loss(x, label, streams.rows(part)).float())
        return torch.cat(losses).tolist()
