"""Published splits that share patients, and what is done about it.

By default the split is corrected: who stands in the test set is left out of the training set (and
of the validation set), and so are byte-for-byte copies of images; a note says who. "published"
keeps everybody, and a louder note says that scores on such a test set flatter every method.
"""

from __future__ import annotations

from abc import ABC
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..base import Progress, first_names
from ..splits.assignment import Case
from ..splits.shared_subjects import check_split_policy, remove_shared_subjects
from .file_dataset import DatasetIndex
from .image_dataset import ImageDataset

SPLIT_PREFERENCE = ("test", "val", "held_out", "train", "")
"""Of two sets that share an image, the first keeps it."""


class DeduplicatedDataset(ImageDataset, ABC):
    """A layout calls `_set_split_policy` in its constructor, and hands its cases, each with its
    pool, through
    `_remove_shared_subjects` in its survey."""

    split: str
    _dropped_copies: Sequence[str] = ()

    def _set_split_policy(self, split: str) -> None:
        self.split = check_split_policy(split)
        self.leaky = split == "published"

    def _remove_shared_subjects(self, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        """The cases that stay, and what to tell of those that share a patient with others."""
        disjoint, notes = remove_shared_subjects(
            cases, ("test", "val", "train"), published=self.leaky
        )
        return disjoint, notes

    def _index_and_assign(
        self, progress: Progress
    ) -> tuple[DatasetIndex, dict[Path, str], Mapping[str, str]]:
        index, digests, split_of = super()._index_and_assign(progress)
        if self.leaky:
            return index, digests, split_of
        self._dropped_copies = copies = _copies_to_drop(index.cases, digests, split_of)
        if copies:
            note = (
                f"{_image_count_text(copies)} copies of images in another split: left out of theirs"
            )
            index = replace(index, notes=[*index.notes, note])
        dropped = set(copies)
        return (
            index,
            digests,
            {name: split for name, split in split_of.items() if name not in dropped},
        )

    def _empty_split_hint(self, part: str) -> str:
        if not self._dropped_copies:
            return super()._empty_split_hint(part)
        copies = _image_count_text(self._dropped_copies)
        return f"{super()._empty_split_hint(part)}; {copies} copies of images in another split"


def _copies_to_drop(
    cases: Iterable[Case], digests: Mapping[Path, str], split_of: Mapping[str, str]
) -> list[str]:
    """The names of cases whose image stands in a split that is preferred, under another name."""
    splits: dict[str, set[str]] = defaultdict(set)
    assigned = [case for case in cases if case.name in split_of]
    for case in assigned:
        splits[digests[case.files["image"]]].add(split_of[case.name])
    preferred = {
        image: min(image_splits, key=SPLIT_PREFERENCE.index)
        for image, image_splits in splits.items()
    }
    return [c.name for c in assigned if preferred[digests[c.files["image"]]] != split_of[c.name]]


def _image_count_text(names: Sequence[str]) -> str:
    return f"{len(names)} images ({first_names(sorted(names), limit=3)}) are"
