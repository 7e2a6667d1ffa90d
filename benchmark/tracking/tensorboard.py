"""TensorBoard: curves, metrics and pictures as event files in a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..leaderboard.records import Record
from .logger import metrics_of, picture_name

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoardLogger:
    """A Logger that writes event files.

    folder: of one experiment; made with the first point. A run that resumes at step k removes what
        was drawn after k

    >>> from tempfile import TemporaryDirectory
    >>> from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    >>> with TemporaryDirectory() as folder:
    ...     logger = TensorBoardLogger(Path(folder, "curves"))
    ...     for step, loss in enumerate([1.0, 0.5]):
    ...         logger.log_points("train", {"loss": loss}, step)
    ...     logger.close()
    ...     curves = EventAccumulator(f"{folder}/curves").Reload()
    >>> [(point.step, point.value) for point in curves.Scalars("train/loss")]
    [(0, 1.0), (1, 0.5)]
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parameters: Mapping[str, Any] = {}
        self._writer: SummaryWriter | None = None

    def log_parameters(self, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters

    def log_points(self, curve: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._open_writer(step).add_scalar(f"{curve}/{name}", value, step)

    def log_result(self, record: Record, pictures: Sequence[Path]) -> None:
        import numpy as np
        from PIL import Image

        writer = self._open_writer(None)
        for name, value in metrics_of(record).items():
            writer.add_scalar(f"result/{name}", value)
        for path in pictures:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            writer.add_image(f"pictures/{picture_name(path)}", pixels, dataformats="HWC")
        writer.add_text("record", _code(record))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_writer(self, step: int | None) -> SummaryWriter:
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self._folder), purge_step=step)
            if self._parameters:
                self._writer.add_text("parameters", _code(self._parameters), step)
        return self._writer


def _code(value: Mapping[str, Any]) -> str:
    """JSON as Markdown shows it unchanged."""
    return "    " + json.dumps(value, indent=1, default=str).replace("\n", "\n    ")
