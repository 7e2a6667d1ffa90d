"""MVTec AD and what is laid out like it: photographs of things with and without defects.

Bergmann et al., "MVTec AD", CVPR 2019, doi:10.1109/CVPR.2019.00982. Per category

    <category>/train/good/000.png
    <category>/test/{good,<defect>}/000.png
    <category>/ground_truth/<defect>/000_mask.png

DDAD's form of VisA (test/bad, ground_truth/bad/000.png) and MTD's (a mask has its image's name)
are read too. The published split has no labelled validation set, and none is cut from the test
set: levels are the published ones, thresholds come from normal images.

Differs from DDAD's loader in masks: it resizes them bilinearly, to values between 0 and 1; here
a pixel is abnormal where more than half of its area is. Others pair masks by order; here by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from .base import Count, Natural, Pair, TwoFractions
from .io.value_range import ValueRange
from .layouts.mvtec_categories import (
    MVTEC_LAYOUT,
    CategoryLayout,
    find_categories,
    has_training_folder,
    missing_category,
    other_categories,
    read_categories,
)
from .preparation.file_dataset import DatasetIndex
from .preparation.image_dataset import ImageDataset
from .splits.assignment import Case, check_fractions, split_training_pool

CATEGORIES = (
    *("bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut"),
    *("pill", "screw", "tile", "toothbrush", "transistor", "wood", "zipper"),
)


class MVTec(ImageDataset):
    """Images of one category, or of all categories under root if none is named.

    root: the folder that holds the categories, one above it, or one category's own; else
        $ADBENCH_DATA
    category: such as hazelnut (on the command line: mvtec/hazelnut); any folder's name is accepted
    size, channels, tile, overlap, range: see ImageDataset; 256 x 256 without keeping the aspect is
        DDAD's.
        Images of several categories together have 3 channels, because grid, screw and zipper are
        gray and the others coloured
    fractions: of the published training images in train and held_out
    seed: which images those are

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.mvtec import MVTec
    >>> with TemporaryDirectory() as root:
    ...     for name in ("wood/train/good/0.png", "wood/test/hole/0.png",
    ...                  "wood/ground_truth/hole/0_mask.png"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = MVTec(category="wood", channels=3).build_index(Path(root))
    >>> [(case.pool, dict(case.extra)) for case in index.cases]
    [('train', {'category': 'wood'}), ('test', {'category': 'wood', 'defect': 'hole'})]
    """

    name = "mvtec"
    expected = "<root>/hazelnut/{train/good,test/good,test/crack,ground_truth/crack}/000.png"

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
