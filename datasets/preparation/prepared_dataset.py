"""A dataset whose samples lie in one prepared file, part by part."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from ..base import Dataset, Progress, Split, no_progress
from .prepared_file import concatenate, read_part


class PreparedDataset(Dataset):
    @abstractmethod
    def prepared_file(self, progress: Progress = no_progress) -> Path:
        """The prepared file; it is made if it is not there."""

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
