"""Base class of image datasets whose published splits share patients or copies of images.

By default the split is corrected: patients of the test set are removed from the training set (and
from the validation set), and so are byte-for-byte copies of images; a note says which.
split="published" keeps all, and a note warns that scores on such a test set are too good.
"""

from __future__ import annotations

from abc import ABC
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from ..base import Progress, first_names
from ..io.file_hashes import FileDigests
from ..splits.assignment import Case
from ..splits.shared_subjects import check_split_policy, remove_shared_subjects
from .cases import DatasetIndex
from .image_dataset import ImageDataset

SPLIT_PREFERENCE = ("test", "val", "held_out", "train", "")
"""Of two sets that share an image, the first keeps it."""


class DeduplicatedDataset(ImageDataset, ABC):
    """Base class for published image splits that leak.

    A subclass calls `_set_split_policy` in its constructor, and passes its cases, each with its
    pool, through `_remove_shared_subjects` in `build_index`.

    >>> from adbench.datasets.oct2017 import OCT2017
    >>> from adbench.datasets.splits.assignment import Case
    >>> cases = [Case(f"{pool}/7", "patient-7", {}, pool, False) for pool in ("train", "test")]
    >>> [case.pool for case in OCT2017()._remove_shared_subjects(cases)[0]]
    ['test']
    >>> [case.pool for case in OCT2017(split="published")._remove_shared_subjects(cases)[0]]
    ['train', 'test']
    """

    split: str
    _dropped_copies: Sequence[str] = ()
    _removed_files: Mapping[Path, str] = MappingProxyType({})

    def _set_split_policy(self, split: str) -> None:
        self.split = check_split_policy(split)
        self.leaky = split == "published"

    def _remove_shared_subjects(self, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        """Return the cases without subjects of a preferred pool, and notes on those removed."""
        disjoint = remove_shared_subjects(cases, ("test", "val", "train"), published=self.leaky)
        self._removed_files = disjoint.left_out
        return disjoint.cases, disjoint.notes

    def _index_and_assign(
        self, progress: Progress
    ) -> tuple[DatasetIndex, FileDigests, Mapping[str, str]]:
        index, digests, split_of = super()._index_and_assign(progress)
        index = replace(index, left_out={**self._removed_files, **index.left_out})
        if self.leaky:
            return index, digests, split_of
        self._dropped_copies = copies = _copies_to_drop(index.cases, digests, split_of)
        if copies:
            note = (
                f"{_image_count_text(copies)} copies of images in another split: left out of theirs"
            )
            index = replace(index, notes=[*index.notes, note])
        dropped = set(copies)
        copied_files = {
            c.files["image"]: "copy of an image in another split"
            for c in index.cases
            if c.name in dropped
        }
        index = replace(index, left_out={**index.left_out, **copied_files})
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
    """Return names of cases whose image is in a preferred split too, under another name."""
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
