"""Base class of datasets whose samples are stored in one prepared file, one part per split."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from ..base import Dataset, Progress, Split, no_progress
from .prepared_file import concatenate, read_part


class PreparedDataset(Dataset):
    """A dataset that reads its splits from a prepared file; a subclass defines `prepared_file`.

    >>> import torch
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.base import Sample, Spec
    >>> from adbench.datasets.preparation.writer import SampleWriter
    >>> class Ones(PreparedDataset):
    ...     spec = Spec(1, (4,))
    ...     def __init__(self, folder):
    ...         self.folder = Path(folder)
    ...     def prepared_file(self, progress=no_progress):
    ...         writer = SampleWriter(self.folder / "parts", "{}", self.spec)
    ...         writer.add("train", Sample(torch.ones(1, 4), "a", "a", False))
    ...         writer.finish(self.folder / "ones.h5")
    ...         return self.folder / "ones.h5"
    >>> with TemporaryDirectory() as folder:
    ...     data = Ones(folder)
    ...     len(data.train()), len(data.test())
    (1, 0)
    """

    @abstractmethod
    def prepared_file(self, progress: Progress = no_progress) -> Path:
        """Return the prepared file; write it first if it does not exist.

        progress: called with (task, done, total)
        """

    def prepare(self, progress: Progress = no_progress) -> None:
        self.prepared_file(progress)

    def train(self, *, labelled: bool = False) -> Split:
        normal = self._read_split("train", masks=False)
        return (
            concatenate(normal, self._read_split("train-abnormal", masks=False))
            if labelled
            else normal
        )

    def calibration(self) -> Split:
        return self._read_split("held_out", masks=False)

    def val(self) -> Split:
        return self._read_split("val")

    def test(self) -> Split:
        return self._read_split("test")

    def _read_split(self, part: str, *, masks: bool = True) -> Split:
        return read_part(self.prepared_file(), part, masks=masks)
