"""Training curves for TensorBoard, written from the events of a run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

    from .fit_predict import LogEvent

POSITION_FIELDS = {"step", "of", "at"}
"""Facts of an event that say when it was, and are no curve."""


class TensorBoardError(RuntimeError):
    """TensorBoard files cannot be written: one line with the reason and the remedy.

    >>> logger = TensorBoardLogger(Path("/dev/null/curves"), lambda event, facts: None)
    >>> logger("train", {"step": 1, "loss": 0.5})
    Traceback (most recent call last):
    adbench...TensorBoardError: cannot write curves to /dev/null/curves: Not a directory (...)
    """


class TensorBoardLogger:
    """An event handler that passes events on, and draws their numbers as curves.

    Every number of an event with a step becomes a point of the curve event/fact, such as
    train/loss, train/lr, train/norm (of the gradient) and train/rate (samples per second).

    folder: of one experiment; made with the first point. A run that resumes at step k removes what
        was drawn after k
    log: receives every event too

    Raises TensorBoardError where tensorboard is not installed, or the folder cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with TensorBoardLogger(Path(folder), lambda event, facts: print(event)) as logger:
    ...         logger("train", {"step": 1, "loss": 0.5})
    ...     [path.name.split(".")[1] for path in Path(folder).iterdir()]
    train
    ['out']
    """

    def __init__(self, folder: Path, log: LogEvent) -> None:
        if find_spec("tensorboard") is None:
            raise TensorBoardError(
                f"cannot write curves to {folder}: tensorboard is not installed "
                f"(pip install tensorboard)"
            )
        self._folder, self._log = folder, log
        self._writer: SummaryWriter | None = None

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        self._log(event, facts)
        step = facts.get("step", facts.get("at"))
        points = {
            name: value
            for name, value in facts.items()
            if name not in POSITION_FIELDS and isinstance(value, int | float)
        }
        if step is None or not points:
            return
        curve = f"{event}/{facts['part']}" if "part" in facts else event
        for name, value in points.items():
            self._open_writer(int(step)).add_scalar(f"{curve}/{name}", value, int(step))

    def __enter__(self) -> TensorBoardLogger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write the points that are not yet written."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_writer(self, step: int) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            try:
                self._writer = SummaryWriter(str(self._folder), purge_step=step)
            except OSError as error:
                raise TensorBoardError(
                    f"cannot write curves to {self._folder}: {error.strerror or error} "
                    f"(choose another folder)"
                ) from error
        return self._writer
