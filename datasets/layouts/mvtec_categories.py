"""Folders laid out like MVTec AD: images of a thing, good and defective, and masks of the defects.

A mask is found by its image's name, defect by defect: NAME_mask.png, or NAME.png as VisA and MTD
have it in this layout; never by its place in a listing.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from ..io.directories import find_files, list_directory
from ..io.images import SUFFIXES
from ..splits.assignment import Case


def find_categories(
    root: Path, category: str | None, matches: Callable[[Path], bool], depth: int = 2
) -> list[Path]:
    """The folders that fit, of that name if one is given: root itself, or those nearest below."""
    level = [Path(os.path.abspath(root))]  # "." has no name
    for _ in range(depth + 1):
        found = [p for p in level if category in (None, p.name) and matches(p)]
        if found:
            return found
        level = [p for folder in level for p in list_directory(folder) if p.is_dir()]
    return []


def category_cases(folder: Path) -> tuple[list[Case], list[str]]:
    """The images of a category with their masks, and all that does not pair."""
    cases, problems, used = [], [], set[Path]()
    masks = masks_by_location(folder / "ground_truth")
    for pool in ("train", "test"):
        home = folder / pool
        for image in find_files(home, SUFFIXES, 3) if home.is_dir() else ():
            name = image.relative_to(folder.parent).as_posix()
            place = image.relative_to(home).parent
            if not place.parts:
                problems.append(f"{name} lies in {pool}/ itself, not in {pool}/good/")
                continue
            kind = place.parts[0]
            label = kind != "good"
            if pool == "train" and label:
                problems.append(f"{name} lies beside train/good: only normal images are trained on")
                continue
            files = {"image": image}
            if label:
                fitting = masks.get((place.as_posix(), image.stem), [])
                used.update(fitting)
                if len(fitting) != 1:
                    problems.append(f"{name} {pairing_problem(fitting, folder, image, place)}")
                    continue
                files["mask"] = fitting[0]
            tags = {"category": folder.name} | ({"defect": kind} if label else {})
            cases.append(Case(name, name, files, pool, label, tags))
    orphans = {path for paths in masks.values() for path in paths} - used
    problems += [
        f"{path.relative_to(folder.parent).as_posix()} has no image in {folder.name}/test/"
        for path in sorted(orphans)
    ]
    return cases, problems


def masks_by_location(mask_folder: Path) -> dict[tuple[str, str], list[Path]]:
    """Masks by the folder they lie in and the name of their image, without "_mask"."""
    found: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for path in find_files(mask_folder, SUFFIXES, 3) if mask_folder.is_dir() else ():
        place = path.relative_to(mask_folder).parent.as_posix()
        found[place, path.stem.removesuffix("_mask")].append(path)
    return found


def pairing_problem(masks: Sequence[Path], folder: Path, image: Path, location: Path) -> str:
    """What is said of an image that has no mask, or several."""
    where = f"{folder.name}/ground_truth/{location.as_posix()}"
    if masks:
        return f"has {len(masks)} masks in {where}: {', '.join(path.name for path in masks)}"
    return f"has no mask in {where} (expected {image.stem}_mask.png)"
