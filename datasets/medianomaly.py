"""MedIAnomaly: seven sets of medical images, split by their authors for anomaly detection.

Cai et al., "MedIAnomaly: A comparative study of anomaly detection in medical images",
arXiv:2404.04518; https://github.com/caiyu6666/MedIAnomaly (MIT). MedIAnomaly-Data/ holds

    {RSNA,VinCXR,BrainTumor,LAG}/{data.json,images/*}         {"train": {"0": [...]}, "test":
                                                              {"0": [...], "1": [...]}} of names
    ISIC2018_Task3/ISIC2018_Task3_{Training,Test}_{Input/*.jpg,GroundTruth/*_GroundTruth.csv}
    Camelyon16/{train/good,test/good,test/Ungood}/*
    BraTS2021/{train,test/normal,test/tumor,test/annotation}/*

Of ISIC2018 nevi (NV) are normal. The masks of BraTS2021 have "seg" in place of "flair" in their
names; the other sets have none. No set has a labelled validation set, and none is cut from the test
set; names that say whose images they are could not be verified: each image stands for itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .base import Count, DataError, Natural, Pair, TwoFractions
from .io.csv import read_rows
from .io.directories import find_files, folder_levels, list_directory, name_conflicts
from .io.folder_names import resolve_case
from .io.images import SUFFIXES
from .io.value_range import ValueRange
from .preparation.cases import DatasetIndex
from .preparation.image_dataset import ImageDataset
from .splits.assignment import Case, check_fractions, split_training_pool

FOLDERS = {
    "rsna": "RSNA",
    "vincxr": "VinCXR",
    "braintumor": "BrainTumor",
    "lag": "LAG",
    "isic2018": "ISIC2018_Task3",
    "camelyon16": "Camelyon16",
    "brats2021": "BraTS2021",
}
"""The folder of each set, by its category."""

Category = Literal["rsna", "vincxr", "braintumor", "lag", "isic2018", "camelyon16", "brats2021"]


@dataclass
class _Listing:
    """What a set holds: (split, label, image, mask) of each image, problems, tables, left out."""

    images: list[tuple[str, bool, Path, Path | None]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    left_out: dict[Path, str] = field(default_factory=dict)


class MedIAnomaly(ImageDataset):
    """Images of one of the seven sets.

    root: MedIAnomaly-Data/, the set's own folder, or one above; else $ADBENCH_DATA
    category: which set (medianomaly/rsna on the command line)
    size, channels, tile, overlap, range: see ImageDataset; the authors train on 64 x 64, in gray;
        ISIC2018 and Camelyon16 are coloured (channels=3)
    fractions: of the published training images in train and held_out
    seed: which images those are

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.medianomaly import MedIAnomaly
    >>> with TemporaryDirectory() as root:
    ...     for name in ("a.png", "b.png"):
    ...         Path(root, "RSNA/images").mkdir(parents=True, exist_ok=True)
    ...         Path(root, "RSNA/images", name).touch()
    ...     split = {"train": {"0": ["a.png"]}, "test": {"0": [], "1": ["b.png"]}}
    ...     _ = Path(root, "RSNA/data.json").write_text(json.dumps(split))
    ...     index = MedIAnomaly(category="rsna").build_index(Path(root))
    >>> [(case.name, case.pool, case.label) for case in index.cases]
    [('rsna/a.png', 'train', False), ('rsna/b.png', 'test', True)]
    """

    name = "medianomaly"
    expected = "<root>/RSNA/{data.json,images/*.png}; the other sets: adbench info medianomaly"
    multiclass_masks = True

    def __init__(
        self,
        *,
        root: str | None = None,
        category: Category = "rsna",
        size: Count | Pair[Count] | None = 64,
        channels: Literal[1, 3] | None = 1,
        tile: Count | None = None,
        overlap: Natural = 0,
        range: ValueRange | None = None,
        fractions: TwoFractions = (0.9, 0.1),
        seed: Natural = 0,
    ) -> None:
        if category not in FOLDERS:
            raise ValueError(f"category is one of {', '.join(FOLDERS)}, not {category!r}")
        self.root, self.category, self.seed = root, category, seed
        self.fractions = check_fractions(fractions, 2)
        self._has_masks = category == "brats2021"
        self._set_image_options(size, channels, tile, overlap, range)

    def build_index(self, root: Path) -> DatasetIndex:
        base = self._find_base(root)
        listing = _READERS.get(self.category, _read_json)(base)
        cases = []
        for pool, label, image, mask in listing.images:
            name = f"{self.category}/{image.relative_to(base).as_posix()}".replace("/images/", "/")
            files = {"image": image} | ({} if mask is None else {"mask": mask})
            cases.append(Case(name, name, files, pool, label, {"category": self.category}))
        problems = [
            *listing.problems,
            *name_conflicts((case.files["image"] for case in cases), base),
        ]
        self._infer_spec(cases)
        beside = [p for p in list_directory(base.parent) if p.is_dir() and p != base]
        others = [p for p in beside if p.name.casefold() in map(str.casefold, FOLDERS.values())]
        left_out = {**dict.fromkeys(others, "another set than the chosen one"), **listing.left_out}
        return DatasetIndex(cases, problems, tables=listing.tables, left_out=left_out)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        return split_training_pool(cases, self.fractions, self.seed)

    def _find_base(self, root: Path) -> Path:
        folder = FOLDERS[self.category].casefold()
        for level in folder_levels(root, 2):
            for path in level:
                if path.name.casefold() == folder:
                    return path
        raise self.no_data_error(f"no folder {FOLDERS[self.category]} lies under {root}")


def _read_json(base: Path) -> _Listing:
    """A set of data.json and images/."""
    table = base / "data.json"
    listing = _Listing(tables=[table])
    try:
        splits = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{base.name}/data.json cannot be read ({error})") from None
    seen = dict[str, str]()
    for pool in ("train", "test"):
        for label in ("0", "1"):
            for name in _names(splits, pool, label, base, listing.problems):
                path, place = base / "images" / name, f"data.json {pool} {label}"
                if pool == "train" and label == "1":  # unlabelled or ill: not trained on
                    listing.left_out[path] = "abnormal training image: only normal ones are read"
                elif seen.setdefault(name, place) != place:
                    listing.problems.append(f"{place} names {name} again, after {seen[name]}")
                elif not path.is_file():
                    listing.problems.append(f"{place}: there is no {base.name}/images/{name}")
                else:
                    listing.images.append((pool, label == "1", path, None))
    used = {path for _, _, path, _ in listing.images}
    others = (path for path in find_files(base / "images", SUFFIXES) if path not in used)
    return _with_left_out(listing, others, "not in data.json")


def _names(splits: Any, pool: str, label: str, base: Path, problems: list[str]) -> Iterator[str]:
    part = splits.get(pool) if isinstance(splits, dict) else None
    if not isinstance(part, dict):
        problems.append(f"{base.name}/data.json has no {pool!r}: {{'0': names, '1': names}}")
        return
    names = part.get(label, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        problems.append(f"{base.name}/data.json {pool} {label} is no list of names")
        return
    yield from names


def _read_isic(base: Path) -> _Listing:
    listing = _Listing()
    for pool, part in (("train", "Training"), ("test", "Test")):
        images = base / f"ISIC2018_Task3_{part}_Input"
        stem = f"ISIC2018_Task3_{part}_GroundTruth"
        table = base / stem / f"{stem}.csv"
        if not table.is_file():
            listing.problems.append(f"there is no {stem}/{table.name}")
            continue
        listing.tables.append(table)
        for line, row in read_rows(table, ["image", "NV"], table.name):
            path, normal = images / f"{row['image']}.jpg", row["NV"].strip() in ("1", "1.0")
            if not normal and pool == "train":
                listing.left_out[path] = "abnormal training image: only normal ones are read"
            elif not path.is_file():
                listing.problems.append(
                    f"{table.name} line {line}: there is no {images.name}/{path.name}"
                )
            else:
                listing.images.append((pool, not normal, path, None))
    return listing


def _read_camelyon(base: Path) -> _Listing:
    listing = _Listing()
    for place in ("train/good", "test/good", "test/Ungood"):
        for path in _files_in(base, place, listing.problems):
            pool, kind = place.split("/")
            listing.images.append((pool, kind == "Ungood", path, None))
    return listing


def _read_brats(base: Path) -> _Listing:
    listing = _Listing()
    masks = {path.stem: path for path in _files_in(base, "test/annotation", listing.problems)}
    for place in ("train", "test/normal", "test/tumor"):
        for path in _files_in(base, place, listing.problems):
            mask = None
            if place == "test/tumor":
                mask = masks.pop(path.stem.replace("flair", "seg"), None)
                if mask is None:
                    expected = path.name.replace("flair", "seg")
                    listing.problems.append(
                        f"{place}/{path.name} has no mask (expected test/annotation/{expected})"
                    )
                    continue
            listing.images.append((place.split("/")[0], place == "test/tumor", path, mask))
    normal = {
        path.stem.replace("flair", "seg") for _, label, path, _ in listing.images if not label
    }
    for stem, path in masks.items():
        if stem in normal:
            listing.left_out[path] = "mask of a normal image"
        else:
            listing.problems.append(f"test/annotation/{path.name} has no image in test/tumor/")
    return listing


def _files_in(base: Path, place: str, problems: list[str]) -> list[Path]:
    folder = resolve_case(base, place)
    if not folder.is_dir():
        problems.append(f"there is no {base.name}/{place}/")
        return []
    return list(find_files(folder, SUFFIXES, 0))


def _with_left_out(listing: _Listing, paths: Iterator[Path], why: str) -> _Listing:
    listing.left_out = {**dict.fromkeys(paths, why), **listing.left_out}
    return listing


_READERS = {"isic2018": _read_isic, "camelyon16": _read_camelyon, "brats2021": _read_brats}
"""By category; the others have data.json."""
