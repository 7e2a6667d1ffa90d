"""A dataset whose samples lie in one prepared file, part by part."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from ..base import Dataset, Progress, Split, silent
from .prepared_file import joined, read_part


class Kept(Dataset):
    @abstractmethod
    def kept(self, progress: Progress = silent) -> Path:
        """The prepared file; it is made if it is not there."""

    def prepare(self, progress: Progress = silent) -> None:
        self.kept(progress)

    def train(self, *, labelled: bool = False) -> Split:
        normal = self._part("train", masks=False)
        return joined(normal, self._part("train-abnormal", masks=False)) if labelled else normal

    def held_out(self) -> Split:
        return self._part("held_out", masks=False)

    def val(self) -> Split:
        return self._part("val")

    def test(self) -> Split:
        return self._part("test")

    def _part(self, name: str, *, masks: bool = True) -> Split:
        return read_part(self.kept(), name, masks=masks)
