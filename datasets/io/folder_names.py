"""What the names of folders mean, in any case and spelling: splits, normal images, masks.

One table for all datasets, so that no layout knows an alias that another one does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from .directories import list_directory

ALIASES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training", "train_set", "trainset"),
    "val": ("val", "valid", "validation", "val_set", "valset", "dev"),
    "test": ("test", "testing", "test_set", "testset"),
    "normal": (
        *("good", "normal", "ok", "healthy", "negative", "normals", "okay", "negatives"),
        *("control", "controls", "hc", "nominal", "no_anomaly", "no_defect", "defect_free"),
    ),
    "masks": (
        *("ground_truth", "groundtruth", "gt", "mask", "masks", "seg", "segs", "segmentation"),
        *("segmentations", "label", "labels", "annotation", "annotations"),
    ),
}
"""Meaning to names; in a name, case does not matter, and space and - are as good as _."""

POOLS = ("train", "val", "test")
MEANINGS = {alias: meaning for meaning, aliases in ALIASES.items() for alias in aliases}


def meaning_of(name: str) -> str:
    """Return what a folder's name means: "train", "val", "test", "normal", "masks", or "".

    name: of one folder, without the folders above it

    >>> [meaning_of(name) for name in ("Validation", "Ground Truth", "OK", "scratch")]
    ['val', 'masks', 'normal', '']
    """
    return MEANINGS.get(name.strip().casefold().replace(" ", "_").replace("-", "_"), "")


def pool_of(name: str) -> str:
    """Return the split that a folder's name means, or "".

    name: of one folder

    >>> pool_of("Testing"), pool_of("good")
    ('test', '')
    """
    meaning = meaning_of(name)
    return meaning if meaning in POOLS else ""


def is_normal(name: str) -> bool:
    """Return whether a folder of this name holds normal samples.

    name: of one folder

    >>> is_normal("Healthy")
    True
    """
    return meaning_of(name) == "normal"


def is_mask_folder(name: str) -> bool:
    """Return whether a folder of this name holds masks.

    name: of one folder

    >>> is_mask_folder("GroundTruth")
    True
    """
    return meaning_of(name) == "masks"


def folders_of(base: Path, meaning: str) -> list[Path]:
    """Return the folders in `base` whose names have a meaning, sorted.

    base: an existing folder, or none: then there are no folders in it
    meaning: a key of ALIASES

    >>> (Path("set") / "Testing").mkdir(parents=True)
    >>> [path.name for path in folders_of(Path("set"), "test")]
    ['Testing']
    """
    paths = list_directory(base) if base.is_dir() else []
    return [path for path in paths if meaning_of(path.name) == meaning and path.is_dir()]


def ambiguous_folders(folders: Iterable[Path], base: Path) -> Iterator[str]:
    """Yield a problem for each split that two folders stand for.

    folders: in one folder
    base: that folder, for its name

    >>> list(ambiguous_folders([Path("set/val"), Path("set/valid")], Path("set")))
    ['set/ holds two folders that mean val: join them (val, valid)']
    """
    names: dict[str, list[str]] = {}
    for folder in folders:
        names.setdefault(pool_of(folder.name), []).append(folder.name)
    for pool in sorted(names):
        if pool and len(names[pool]) > 1:
            listed = ", ".join(names[pool])
            yield f"{base.name}/ holds two folders that mean {pool}: join them ({listed})"


def resolve_case(base: Path, relative: str | PurePosixPath) -> Path:
    """Return the existing path below `base` that a relative one names but for upper and lower case.

    base: an existing folder
    relative: with / between its parts; what does not exist in any case is returned as it is

    >>> (Path("set") / "images" / "A").mkdir(parents=True)
    >>> resolve_case(Path("set"), "Images/a").as_posix()
    'set/images/A'
    """
    path = base
    for part in PurePosixPath(relative).parts:
        exact = path / part
        if not exact.exists() and path.is_dir():
            same = [p for p in list_directory(path) if p.name.casefold() == part.casefold()]
            exact = same[0] if len(same) == 1 else exact
        path = exact
    return path


def unmatched_folders(base: Path, matched: Iterable[Path]) -> Mapping[Path, str]:
    """Return the folders in `base` that a layout with splits passes over, and why.

    base: the folder that holds the splits
    matched: the folders of splits and masks

    >>> (Path("mine") / "trian").mkdir(parents=True)
    >>> unmatched_folders(Path("mine"), [])
    {PosixPath('mine/trian'): 'its name means no split (train, val, test) and no masks'}
    """
    used = {*matched}
    others = [path for path in list_directory(base) if path.is_dir() and path not in used]
    return dict.fromkeys(others, "its name means no split (train, val, test) and no masks")
