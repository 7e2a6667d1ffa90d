"""Loggers by their names, and the events of an experiment handed to them: one that fails is left
out with a line, and the experiment goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from ..experiments.fit_predict import LogEvent
from ..experiments.matrix import Experiment
from ..experiments.run_config import OptionError
from ..leaderboard.records import Record
from ..registry.imports import did_you_mean
from .logger import Logger, parameters_of

LOGGERS = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""The trackers, and the package of each."""

POSITION_FIELDS = {"step", "of", "at"}
"""Facts of an event that say when it was, and are no curve."""


class LoggerSpec(NamedTuple):
    """A tracker, and the folder that it writes to; None for the usual one in the results folder."""

    name: str
    folder: Path | None

    @classmethod
    def parse(cls, text: str) -> LoggerSpec:
        """Read `NAME` or `NAME=FOLDER`. Raises OptionError on another name.

        >>> from adbench.benchmark.tracking.tracker import LoggerSpec
        >>> LoggerSpec.parse("tensorboard=curves").folder.name
        'curves'
        >>> LoggerSpec.parse("mlfow")
        Traceback (most recent call last):
        adbench.benchmark.experiments.run_config.OptionError: no tracker 'mlfow'. Did you mean \
'mlflow'? --log takes tensorboard, mlflow, wandb
        """
        name, _, folder = text.strip().partition("=")
        if name not in LOGGERS:
            hint = did_you_mean(name, LOGGERS)
            raise OptionError(f"no tracker {name!r}{hint} --log takes {', '.join(LOGGERS)}")
        return cls(name, Path(folder) if folder else None)


def check_loggers(texts: Sequence[str]) -> None:
    """Raise OptionError on a tracker that does not exist or is not installed.

    >>> check_loggers(["tensorboard=curves"])
    >>> check_loggers(["tensorboards"])
    Traceback (most recent call last):
    adbench.benchmark.experiments.run_config.OptionError: no tracker 'tensorboards'. Did you mean \
    'tensorboard'? --log takes tensorboard, mlflow, wandb
    """
    for text in texts:
        name = LoggerSpec.parse(text).name
        if find_spec(LOGGERS[name]) is None:
            extra = "tensorboard" if name == "tensorboard" else f"'diffusion-adbench[{name}]'"
            raise OptionError(f"--log {name}: it is not installed (pip install {extra})")


def open_logger(text: str, name: str, out: Path) -> Logger:
    """The logger of an experiment.

    text: as LoggerSpec.parse takes it        name: of the experiment
    out: the results folder, in which are the folders of trackers that are given none

    >>> logger = open_logger("tensorboard", "brats.pca.tiny.s0", Path("results"))
    >>> type(logger).__name__, Path("results").exists()  # its folder is made with the first point
    ('TensorBoardLogger', False)
    """
    spec = LoggerSpec.parse(text)
    if spec.name == "mlflow":
        from .mlflow_logger import MLflowLogger

        return MLflowLogger(name, spec.folder or out / "mlruns")
    if spec.name == "wandb":
        from .wandb_logger import WandbLogger

        return WandbLogger(name, spec.folder or out)
    from .tensorboard import TensorBoardLogger

    return TensorBoardLogger((spec.folder or out / "tensorboard") / name)


class Tracker:
    """An event handler that passes events on, and hands their numbers to loggers.

    Every number of an event with a step becomes a point of the curve event/fact, such as
    train/loss, train/lr, train/norm (of the gradient) and train/rate (samples per second).

    make_loggers: by name, each called once when the tracker is entered
    parameters: of the experiment
    log: receives every event too, and a note where a logger fails

    >>> from adbench.benchmark.tracking.tracker import Tracker
    >>> def broken():
    ...     raise OSError("no route to host")
    >>> with Tracker({"mlflow": broken}, {}, lambda event, facts: print(event, facts)) as tracker:
    ...     tracker("train", {"step": 1, "of": 2, "loss": 0.5})
    note {'text': 'mlflow is left out: no route to host (OSError)'}
    train {'step': 1, 'of': 2, 'loss': 0.5}
    """

    def __init__(
        self,
        make_loggers: Mapping[str, Callable[[], Logger]],
        parameters: Mapping[str, Any],
        log: LogEvent,
    ) -> None:
        self._make_loggers, self._parameters, self._log = make_loggers, parameters, log
        self._loggers: dict[str, Logger] = {}

    @classmethod
    def of(cls, texts: Sequence[str], experiment: Experiment, out: Path, log: LogEvent) -> Tracker:
        """The tracker of an experiment. texts, out: as of `open_logger`"""

        def make(text: str) -> Callable[[], Logger]:
            return lambda: open_logger(text, experiment.name, out)

        makers = {LoggerSpec.parse(text).name: make(text) for text in texts}
        return cls(makers, parameters_of(experiment), log)

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        self._log(event, facts)
        step = facts.get("step", facts.get("at"))
        values = {
            name: float(value)
            for name, value in facts.items()
            if name not in POSITION_FIELDS and isinstance(value, int | float)
        }
        if step is None or not values:
            return
        curve = f"{event}/{facts['part']}" if "part" in facts else event
        self._each(lambda logger: logger.log_points(curve, values, int(step)))

    def log_result(self, record: Record, out: Path) -> None:
        """Hand the record to the loggers, with its pictures. out: the results folder"""
        pictures = [out / name for name in record.get("files", {}) if name.endswith(".png")]
        self._each(lambda logger: logger.log_result(record, pictures))

    def __enter__(self) -> Tracker:
        for name, make in self._make_loggers.items():
            try:
                self._loggers[name] = make()
            except Exception as error:  # of any tracker: no run ends for it
                self._leave_out(name, error)
        self._each(lambda logger: logger.log_parameters(self._parameters))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._each(lambda logger: logger.close())

    def _each(self, call: Callable[[Logger], None]) -> None:
        for name, logger in list(self._loggers.items()):
            try:
                call(logger)
            except Exception as error:
                del self._loggers[name]
                self._leave_out(name, error)

    def _leave_out(self, name: str, error: Exception) -> None:
        reason = next(iter(str(error).splitlines()), "")
        text = f"{name} is left out: {reason} ({type(error).__name__})"
        self._log("note", {"text": text})
