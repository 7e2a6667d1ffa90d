"""Folders laid out like MVTec AD: normal and defective images of objects, and masks of the defects.

A mask is found by the name of its image, defect by defect: NAME_mask.png, or NAME.png as VisA and
MTD have it in this layout; never by its position in a listing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from ..io.directories import find_files, folder_levels, list_directory, name_conflicts
from ..io.folder_names import ambiguous_folders, folders_of, is_normal
from ..io.images import SUFFIXES
from ..splits.assignment import Case


def find_categories(
    root: Path, category: str | None, matches: Callable[[Path], bool], depth: int = 2
) -> list[Path]:
    """Return the matching folders: root itself, or those at the first level below it.

    root: where the search begins
    category: name of the folder; None for any
    matches: whether a folder is a category
    depth: levels below root that are searched

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     for name in ("wood", "steel"):
    ...         Path(root, "things", name, "train").mkdir(parents=True)
    ...     [path.name for path in find_categories(Path(root), "wood", has_training_folder)]
    ['wood']
    """
    for level in folder_levels(Path(os.path.abspath(root)), depth):  # "." has no name
        matching = [p for p in level if _is_called(p, category) and matches(p)]
        if matching:
            return matching
    return []


def has_training_folder(folder: Path) -> bool:
    """Return whether a folder is laid out like a category of MVTec AD: it holds train/.

    folder: need not exist

    >>> (Path("wood") / "Train").mkdir(parents=True)
    >>> has_training_folder(Path("wood")), has_training_folder(Path("steel"))
    (True, False)
    """
    return bool(folders_of(folder, "train"))


def _is_called(folder: Path, name: str | None) -> bool:
    return name is None or folder.name.casefold() == name.casefold()


def other_categories(folders: Sequence[Path], matches: Callable[[Path], bool]) -> dict[Path, str]:
    """Return the categories beside the chosen ones, and that they were not chosen.

    folders: the chosen categories
    matches: whether a folder is a category

    >>> for name in ("wood", "steel"):
    ...     (Path("things") / name / "train").mkdir(parents=True)
    >>> other_categories([Path("things/wood")], has_training_folder)
    {PosixPath('things/steel'): 'another category than the chosen one'}
    """
    beside = list_directory(folders[0].parent)
    others = [path for path in beside if path.is_dir() and path not in folders and matches(path)]
    return dict.fromkeys(others, "another category than the chosen one")


def missing_category(root: Path, category: str | None) -> str:
    """Return why no category was found, and which folders there are.

    root: where it was searched
    category: its name; None for any

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     Path(root, "wood").mkdir()
    ...     print(missing_category(Path(root), "tile").replace(root, "<root>"))
    no category 'tile' lies under <root> (there is wood)
    """
    available = ", ".join(p.name for p in list_directory(root) if p.is_dir()) or "no folder"
    name = f"no category {category!r}" if category else "no category"
    return f"{name} lies under {root} (there is {available})"


def read_categories(folders: Sequence[Path]) -> tuple[list[Case], list[str]]:
    """Return the cases of several categories, and every problem.

    folders: of the categories, in one folder

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     for name in ("wood/train/good/0.png", "steel/test/good/0.png"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     cases, problems = read_categories([Path(root, "steel"), Path(root, "wood")])
    >>> [case.name for case in cases], problems
    (['steel/test/good/0.png', 'wood/train/good/0.png'], [])
    """
    cases: list[Case] = []
    problems: list[str] = []
    for folder in folders:
        folder_cases, folder_problems = category_cases(folder)
        cases += folder_cases
        problems += folder_problems
    problems += name_conflicts((case.files["image"] for case in cases), folders[0].parent)
    return cases, problems


def category_cases(folder: Path) -> tuple[list[Case], list[str]]:
    """Return the cases of a category, images with their masks, and every problem.

    folder: of the category, with train/, test/ and ground_truth/

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     for name in ("wood/test/hole/0.png", "wood/ground_truth/hole/0_mask.png",
    ...                  "wood/train/good/0.png"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     cases, problems = category_cases(Path(root, "wood"))
    >>> [(case.name, case.label, sorted(case.files)) for case in cases]
    [('wood/train/good/0.png', False, ['image']), ('wood/test/hole/0.png', True, ['image', 'mask'])]
    """
    cases, problems, paired = [], [], set[Path]()
    masks: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for mask_folder in folders_of(folder, "masks"):
        for place, paths in masks_by_location(mask_folder).items():
            masks[place] += paths
    problems += ambiguous_folders(list_directory(folder), folder)
    pools = [(pool, path) for pool in ("train", "test") for path in folders_of(folder, pool)]
    for pool, pool_folder in pools:
        for image in find_files(pool_folder, SUFFIXES, 3):
            name = image.relative_to(folder.parent).as_posix()
            location = image.relative_to(pool_folder).parent
            if not location.parts:
                problems.append(f"{name} lies in {pool}/ itself, not in {pool}/good/")
                continue
            kind = location.parts[0]
            label = not is_normal(kind)
            if pool == "train" and label:
                problems.append(f"{name} lies beside train/good: only normal images are trained on")
                continue
            files = {"image": image}
            if label:
                candidates = masks.get((location.as_posix().casefold(), image.stem), [])
                paired.update(candidates)
                if len(candidates) != 1:
                    problems.append(
                        f"{name} {pairing_problem(candidates, folder, image, location)}"
                    )
                    continue
                files["mask"] = candidates[0]
            tags = {"category": folder.name} | ({"defect": kind} if label else {})
            cases.append(Case(name, name, files, pool, label, tags))
    orphans = {path for paths in masks.values() for path in paths} - paired
    problems += [
        f"{path.relative_to(folder.parent).as_posix()} has no image in {folder.name}/test/"
        for path in sorted(orphans)
    ]
    return cases, problems


def masks_by_location(mask_folder: Path) -> dict[tuple[str, str], list[Path]]:
    """Return masks by (their subfolder in lower case, name of their image without "_mask").

    mask_folder: ground_truth/ of a category

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Path(folder, "Hole").mkdir()
    ...     Path(folder, "Hole", "0_mask.png").touch()
    ...     list(masks_by_location(Path(folder)))
    [('hole', '0')]
    """
    masks: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in find_files(mask_folder, SUFFIXES, 3) if mask_folder.is_dir() else ():
        location = path.relative_to(mask_folder).parent.as_posix().casefold()
        masks[location, path.stem.removesuffix("_mask")].append(path)
    return masks


def pairing_problem(masks: Sequence[Path], folder: Path, image: Path, location: Path) -> str:
    """Return the problem of an image that has no mask, or several.

    masks: those of its name
    folder: of the category
    image: the abnormal image
    location: its folder, relative to its pool

    >>> pairing_problem([], Path("wood"), Path("wood/test/hole/0.png"), Path("hole"))
    'has no mask in wood/ground_truth/hole (expected 0_mask.png)'
    """
    mask_folder = f"{folder.name}/ground_truth/{location.as_posix()}"
    if masks:
        return f"has {len(masks)} masks in {mask_folder}: {', '.join(path.name for path in masks)}"
    return f"has no mask in {mask_folder} (expected {image.stem}_mask.png)"
