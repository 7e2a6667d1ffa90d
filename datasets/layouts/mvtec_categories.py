"""Folders laid out like MVTec AD: normal and defective images of objects, and masks of the defects.

A mask is found by the name of its image, defect by defect: NAME_mask.png, or NAME.png as VisA and
MTD have it in this layout; never by its position in a listing. `CategoryLayout` says where other
sets of this family differ.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..io.directories import find_files, folder_levels, list_directory, name_conflicts
from ..io.folder_names import ambiguous_folders, folders_of, is_normal, meaning_of
from ..io.images import SUFFIXES
from ..splits.assignment import Case


@dataclass(frozen=True)
class CategoryLayout:
    """How the folder of a category is laid out; the defaults are MVTec AD's.

    images: folder of the images inside that of their kind (rgb in test/crack/rgb/000.png); ""
        where they lie in it. Where some do and the folder is missing for a kind, the kind's own
        files are read
    masks: folder of the masks inside that of their kind (gt in test/crack/gt/000.png); "" where
        they lie in ground_truth/
    mask_folders: each image has a folder of masks, ground_truth/crack/000/*.png
    validation: whether validation/ is read: all normal, or normal and abnormal
    test: name of the test folder, in lower case; "" for test/ and its other spellings
    masks_in_test: whether ground_truth/ lies in the test folder, not beside it
    needs_masks: whether every abnormal image has a mask; else all have one, or none
    group: pattern whose first capture group finds, in an image's name, what it shows; images of one
        are kept in one split. "" for each image on its own

    >>> CategoryLayout(images="rgb", masks="gt").mask_folders
    False
    """

    images: str = ""
    masks: str = ""
    mask_folders: bool = False
    validation: bool = False
    test: str = ""
    masks_in_test: bool = False
    needs_masks: bool = True
    group: str = ""


MVTEC_LAYOUT = CategoryLayout()


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


def read_categories(
    folders: Sequence[Path], layout: CategoryLayout = MVTEC_LAYOUT
) -> tuple[list[Case], list[str]]:
    """Return the cases of several categories, and every problem.

    folders: of the categories, in one folder
    layout: of each

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
        folder_cases, folder_problems = category_cases(folder, layout)
        cases += folder_cases
        problems += folder_problems
    problems += name_conflicts((case.files["image"] for case in cases), folders[0].parent)
    return cases, problems


def category_cases(
    folder: Path, layout: CategoryLayout = MVTEC_LAYOUT
) -> tuple[list[Case], list[str]]:
    """Return the cases of a category, images with their masks, and every problem.

    folder: of the category, with train/, test/ and ground_truth/
    layout: how it is laid out

    The files of a case are "image", and "mask", "mask 2" and so on; those of one image are united.

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
    beside: dict[tuple[str, str], list[Path]] = defaultdict(list)
    pools = [
        (pool, path) for pool in ("train", "val", "test") for path in _pool(folder, pool, layout)
    ]
    for mask_folder in _mask_folders(folder, pools, layout):
        for place, paths in masks_by_location(mask_folder, each=layout.mask_folders).items():
            beside[place] += paths
    problems += ambiguous_folders(list_directory(folder), folder)
    unmasked, all_masks = [], {path for paths in beside.values() for path in paths}
    for pool, pool_folder in pools:
        images: list[tuple[Path, Path]] = []
        masks = defaultdict[tuple[str, str], list[Path]](list) if layout.masks else beside
        for path in find_files(pool_folder, SUFFIXES, 3):
            role, location = _role_in_pool(path.relative_to(pool_folder).parent, layout)
            if role == "image":
                images.append((path, location))
            elif role == "mask":
                masks[location.as_posix().casefold(), _image_stem(path)].append(path)
                all_masks.add(path)
        for image, location in images:
            name = image.relative_to(folder.parent).as_posix()
            if not location.parts:
                problems.append(f"{name} lies in {pool}/ itself, not in {pool}/good/")
                continue
            kind = location.parts[0]
            label = not is_normal(kind)
            if pool == "train" and label:
                problems.append(f"{name} lies beside train/good: only normal images are trained on")
                continue
            files = {"image": image}
            candidates = masks.get((location.as_posix().casefold(), image.stem), [])
            if label or layout.masks:
                paired.update(candidates)
                several = len(candidates) > 1 and not layout.mask_folders
                missing = label and not candidates
                if several or (missing and layout.needs_masks):
                    mask_folder = folder / "ground_truth" / location
                    if layout.masks:
                        mask_folder = pool_folder / location / layout.masks
                    shown = mask_folder.relative_to(folder.parent).as_posix()
                    problems.append(f"{name} {pairing_problem(candidates, shown, image)}")
                    continue
                unmasked += [name] if missing else []
                for number, path in enumerate(candidates, start=1):
                    files["mask" if number == 1 else f"mask {number}"] = path
            group, problem = _group_of(image, name, layout)
            problems += problem
            tags = {"category": folder.name} | ({"defect": kind} if label else {})
            cases.append(Case(name, group, files, pool, label, tags))
    if unmasked and any("mask" in case.files for case in cases if case.label):
        problems += [f"{name} has no mask, and other abnormal images have one" for name in unmasked]
    orphans = all_masks - paired
    problems += [
        f"{path.relative_to(folder.parent).as_posix()} has no image in {folder.name}/"
        f"{layout.test or 'test'}/"
        for path in sorted(orphans)
    ]
    return cases, problems


def _pool(folder: Path, pool: str, layout: CategoryLayout) -> list[Path]:
    """Return the folders of a split: by the layout's own name, or by what their names mean."""
    if pool == "val" and not layout.validation:
        return []
    if pool == "test" and layout.test:
        paths = list_directory(folder) if folder.is_dir() else []
        return [path for path in paths if path.is_dir() and path.name.casefold() == layout.test]
    return folders_of(folder, pool)


def _mask_folders(
    folder: Path, pools: Sequence[tuple[str, Path]], layout: CategoryLayout
) -> list[Path]:
    """Return the folders of masks, beside the splits or inside of test."""
    if not layout.masks_in_test:
        return folders_of(folder, "masks")
    return [path for pool, base in pools if pool == "test" for path in folders_of(base, "masks")]


def _role_in_pool(location: Path, layout: CategoryLayout) -> tuple[str, Path]:
    """Return what a file in a split's folder is, "image", "mask" or "", and its kind's folder.

    location: the folder of the file below that of the split
    """
    if layout.masks_in_test and location.parts and meaning_of(location.parts[0]) == "masks":
        return "", location
    last = location.name.casefold() if len(location.parts) > 1 else ""
    if layout.masks and last == layout.masks:
        return "mask", location.parent
    if layout.images and last == layout.images:
        return "image", location.parent
    nested = len(location.parts) > 1 and (layout.images or layout.masks)
    return ("", location) if nested else ("image", location)


def _group_of(image: Path, name: str, layout: CategoryLayout) -> tuple[str, list[str]]:
    """Return what an image shows, by the layout's pattern, and a problem if its name hides it."""
    if not layout.group:
        return name, []
    match = re.search(layout.group, image.name)
    if match is None:
        return name, [f"{name}: {layout.group!r} does not find in its name what it shows"]
    return f"{Path(name).parent.as_posix()}/{match[1]}", []


def _image_stem(mask: Path) -> str:
    return mask.stem.removesuffix("_mask")


def masks_by_location(
    mask_folder: Path, *, each: bool = False
) -> dict[tuple[str, str], list[Path]]:
    """Return masks by (their subfolder in lower case, name of their image without "_mask").

    mask_folder: ground_truth/ of a category
    each: each image has a folder of its own, whose name is the image's

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     Path(folder, "Hole").mkdir()
    ...     Path(folder, "Hole", "0_mask.png").touch()
    ...     list(masks_by_location(Path(folder)))
    [('hole', '0')]
    """
    masks: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in find_files(mask_folder, SUFFIXES, 3) if mask_folder.is_dir() else ():
        location = path.relative_to(mask_folder).parent
        stem = location.name if each else _image_stem(path)
        location = location.parent if each else location
        masks[location.as_posix().casefold(), stem].append(path)
    return masks


def pairing_problem(masks: Sequence[Path], mask_folder: str, image: Path) -> str:
    """Return the problem of an image that has no mask, or several.

    masks: those of its name
    mask_folder: where they lie, below the folder of the categories
    image: the abnormal image

    >>> pairing_problem([], "wood/ground_truth/hole", Path("wood/test/hole/0.png"))
    'has no mask in wood/ground_truth/hole (expected 0_mask.png)'
    """
    if masks:
        return f"has {len(masks)} masks in {mask_folder}: {', '.join(path.name for path in masks)}"
    return f"has no mask in {mask_folder} (expected {image.stem}_mask.png)"
