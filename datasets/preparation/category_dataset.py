"""Base class of datasets of photographs by category, laid out like MVTec AD or a relative of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from ..base import Count, Natural, Pair, TwoFractions
from ..io.value_range import ValueRange
from ..layouts.mvtec_categories import (
    MVTEC_LAYOUT,
    CategoryLayout,
    find_categories,
    has_training_folder,
    missing_category,
    other_categories,
    read_categories,
)
from ..splits.assignment import Case, check_fractions, split_training_pool
from .cases import DatasetIndex
from .image_dataset import ImageDataset


class CategoryDataset(ImageDataset):
    """Images of one category, or of all categories under root if none is named.

    A subclass sets `layout`; its validation/, if read, is the calibration split where it is all
    normal, and the validation set where it has both kinds.

    root: the folder that holds the categories, one above it, or one category's own; else
        $ADBENCH_DATA
    category: name of its folder
    size, channels, tile, overlap, range: see ImageDataset
    fractions: of the published training images in train and held_out; without effect where
        validation/ is the calibration split
    seed: which images those are

    >>> from adbench.datasets.mvtec import MVTec
    >>> from adbench.datasets.preparation.category_dataset import CategoryDataset
    >>> issubclass(MVTec, CategoryDataset), MVTec.layout.validation
    (True, False)
    """

    layout: ClassVar[CategoryLayout] = MVTEC_LAYOUT
    """How a category's folder is laid out."""

    def __init__(
        self,
        *,
        root: str | None = None,
        category: str | None = None,
        size: Count | Pair[Count] | None = 256,
        channels: Literal[1, 3] | None = None,
        tile: Count | None = None,
        overlap: Natural = 0,
        range: ValueRange | None = None,
        fractions: TwoFractions = (0.9, 0.1),
        seed: Natural = 0,
    ) -> None:
        self.root, self.category, self.seed = root, category, seed
        self.fractions = check_fractions(fractions, 2)
        self._set_image_options(size, channels, tile, overlap, range)

    def build_index(self, root: Path) -> DatasetIndex:
        folders = self.find_category_folders(root)
        if not folders:
            raise self.no_data_error(missing_category(root, self.category))
        cases, problems = read_categories(folders, self.layout)
        abnormal = [case for case in cases if case.label]
        self._has_masks = not abnormal or any("mask" in case.files for case in abnormal)
        self._shown = self.channels or (3 if len(folders) > 1 else None)
        self._infer_spec(cases)
        left_out = other_categories(folders, has_training_folder)
        for folder in folders:
            left_out |= self.unread_folders(folder)
        return DatasetIndex(cases, problems, left_out=left_out)

    def find_category_folders(self, root: Path) -> list[Path]:
        """Return the folder of the chosen category, or those of all.

        root: the folder of the data
        """
        return find_categories(root, self.category, has_training_folder)

    def unread_folders(self, category: Path) -> Mapping[Path, str]:
        """Return the folders of a category that are passed over on purpose, and why.

        category: its folder
        """
        return {}

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        validation = [case for case in cases if case.pool == "val"]
        if validation and not any(case.label for case in validation):
            return {c.name: "held_out" if c.pool == "val" else c.pool for c in cases}
        return split_training_pool(cases, self.fractions, self.seed)
