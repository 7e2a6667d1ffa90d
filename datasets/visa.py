"""VisA: photographs of printed boards, food and candles, with and without defects.

Zou et al., "SPot-the-Difference self-supervised pre-training for anomaly detection and
segmentation", ECCV 2022, arXiv:2207.14315. As it is published

    <category>/Data/Images/{Normal,Anomaly}/0000.JPG
    <category>/Data/Masks/Anomaly/0000.png          small numbers, each the kind of a defect
    split_csv/1cls.csv                              object,split,label,image,mask

or prepared as DDAD and others want it, <category>/{train/good,test/{good,bad}}/0000.{JPG,png} with
ground_truth/bad/0000.png. The split is that of 1cls.csv: normal training images, both kinds in the
test set, no labelled validation set.

A mask is true where it is not 0: its numbers are classes, not 255.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from .base import Count, DataError, Natural, Pair, TwoFractions
from .io.csv import read_rows
from .io.directories import find_files, list_directory, name_conflicts
from .io.folder_names import resolve_case
from .io.images import SUFFIXES
from .io.value_range import ValueRange
from .layouts.mvtec_categories import (
    find_categories,
    has_training_folder,
    missing_category,
    other_categories,
    read_categories,
)
from .preparation.cases import DatasetIndex
from .preparation.image_dataset import ImageDataset
from .splits.assignment import Case, check_fractions, split_training_pool

SPLIT_TABLE = "split_csv/1cls.csv"


class VisA(ImageDataset):
    """Images of one category, or of all categories under root if none is named.

    root: the folder that holds the categories and split_csv/, or one above it; else $ADBENCH_DATA
    category: such as candle (on the command line: visa/candle)
    size, channels, tile, overlap, range: see ImageDataset; 256 x 256 without keeping the aspect is
        DDAD's
    fractions: of the published training images in train and held_out
    seed: which images those are

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.visa import VisA
    >>> with TemporaryDirectory() as root:
    ...     for name in ("candle/Data/Images/Normal/0.JPG", "candle/Data/Images/Anomaly/1.JPG",
    ...                  "candle/Data/Masks/Anomaly/1.png", "split_csv/1cls.csv"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     rows = ["object,split,label,image,mask",
    ...             "candle,train,normal,candle/Data/Images/Normal/0.JPG,",
    ...             "candle,test,anomaly,candle/Data/Images/Anomaly/1.JPG,"
    ...             "candle/Data/Masks/Anomaly/1.png"]
    ...     _ = Path(root, "split_csv/1cls.csv").write_text("\\n".join(rows))
    ...     index = VisA().build_index(Path(root))
    >>> [(case.pool, case.label) for case in index.cases]
    [('train', False), ('test', True)]
    """

    name = "visa"
    expected = "<root>/candle/Data/Images/{Normal,Anomaly}/0000.JPG and <root>/split_csv/1cls.csv"
    multiclass_masks = True

    def __init__(
        self,
        *,
        root: str | None = None,
        category: str | None = None,
        size: Count | Pair[Count] | None = 256,
        channels: Literal[1, 3] | None = 3,
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
        raw = find_categories(root, self.category, _is_raw)
        folders = raw or find_categories(root, self.category, has_training_folder)
        if not folders:
            raise self.no_data_error(missing_category(root, self.category))
        left_out = other_categories(folders, _is_raw if raw else has_training_folder)
        if raw:
            base = folders[0].parent
            index = _read_split_table(base, {path.name for path in folders})
            conflicts = name_conflicts((case.files["image"] for case in index.cases), base)
            problems = [*index.problems, *conflicts]
            index = replace(index, problems=problems, left_out={**left_out, **index.left_out})
        else:
            index = DatasetIndex(*read_categories(folders), left_out=left_out)
        self._infer_spec(index.cases)
        return index

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        return split_training_pool(cases, self.fractions, self.seed)


def _is_raw(folder: Path) -> bool:
    return resolve_case(folder, "Data/Images").is_dir()


def _read_split_table(base: Path, categories: set[str]) -> DatasetIndex:
    """Return the cases of these categories in 1cls.csv, and the images that it does not name."""
    table = resolve_case(base, SPLIT_TABLE)
    if not table.is_file():
        raise DataError(
            f"dataset 'visa': {base / SPLIT_TABLE} is missing; it says which images are "
            "trained on. "
            "Take it from the archive that the images came from."
        )
    cases: list[Case] = []
    problems: list[str] = []
    used_paths, line_of_image, index = set[Path](), dict[str, int](), _FileIndex(base)
    for number, row in read_rows(table, ["object", "split", "label", "image", "mask"], SPLIT_TABLE):
        if row["object"] not in categories:
            continue
        line = f"{SPLIT_TABLE} line {number}"
        pool, label = row["split"], row["label"] != "normal"
        if pool not in ("train", "test") or row["label"] not in ("normal", "anomaly"):
            values = f"split {pool!r}, label {row['label']!r}"
            problems.append(f"{line} says {values}; it takes train or test, normal or anomaly")
            continue
        if pool == "train" and label:
            problems.append(f"{line} trains on {row['image']}, an anomaly: 1cls.csv has none")
            continue
        first_line = line_of_image.setdefault(row["image"], number)
        if first_line != number:
            problems.append(f"{line} names {row['image']} again, after line {first_line}")
            continue
        needed = {"image": row["image"]} | ({"mask": row["mask"]} if label else {})
        files: dict[str, Path] = {}
        for role, place in needed.items():
            candidates = index.find(place) if place else []
            used_paths.update(candidates)
            if len(candidates) == 1:
                files[role] = candidates[0]
            else:
                count_text = f"{len(candidates)} files" if candidates else "no file"
                problems.append(
                    f"{line}: there is {count_text} for the {role} {place or '(blank)'!r}"
                )
        if len(files) == len(needed):
            name = PurePosixPath(row["image"]).with_suffix("").as_posix()
            cases.append(Case(name, name, files, pool, label, {"category": row["object"]}))
    unused = {
        path: path.relative_to(base).as_posix()
        for category in sorted(categories)
        for path in find_files(resolve_case(base, f"{category}/Data"), SUFFIXES, 3)
        if path not in used_paths
    }
    masks = [name for name in unused.values() if "/data/masks/" in name.casefold()]
    problems += [f"{name} is the mask of no image in {SPLIT_TABLE}" for name in masks]
    unlisted = [path for path, name in unused.items() if name not in masks]
    note = f"{len(unlisted)} images are not in {SPLIT_TABLE}, and are not used"
    return DatasetIndex(
        cases,
        problems,
        [note] if unlisted else [],
        tables=[table],
        left_out=dict.fromkeys(unlisted, f"not in {SPLIT_TABLE}"),
    )


class _FileIndex:
    """Find files by folder and stem, whatever their suffix (.JPG, .jpg, or .png once converted)."""

    def __init__(self, home: Path) -> None:
        self.base = home
        self._folders: dict[Path, dict[str, list[Path]]] = {}

    def find(self, table_path: str) -> list[Path]:
        """Return the files that a path in the table may name."""
        folder = resolve_case(self.base, PurePosixPath(table_path).parent)
        if folder not in self._folders:
            by_stem = self._folders[folder] = {}
            for path in list_directory(folder) if folder.is_dir() else ():
                if path.name.lower().endswith(SUFFIXES):
                    by_stem.setdefault(path.stem, []).append(path)
        return self._folders[folder].get(PurePosixPath(table_path).stem, [])
