"""Your own images, in folders. The simplest thing that works is

    <root>/train/*.png                       normal images, perhaps in train/good/
    <root>/test/good/*.png                   normal images
    <root>/test/<anything else>/*.png        abnormal images, by kind

and nothing needs to be split beforehand:

    <root>/normal/*.png
    <root>/abnormal/*.png                    or any other names than normal, perhaps by kind

Normal folders are called good, normal, ok, healthy or the like, splits train or training, val,
valid or validation, test or testing, in any case (io/folder_names.py). There may be a val/ like
test/; train/ may hold abnormal images too, train/<anything else>/, for methods that take labels.

Masks are optional: PNG or TIFF, 0 where normal and one other number where not, of their image's
size, in ground_truth/ or masks/, under their image's name (or NAME_mask.png): at
masks/<kind>/NAME.png, or masks/NAME.png where no two images share a name. Once there is one, every
abnormal image of val and test needs one; without any, images are judged whole.

In place of masks there may be boxes, <root>/boxes.csv with the columns file, x, y, width, height:
a row per box, in pixels of the stored image from its top left corner. And <root>/metadata.csv, with
the column file and others such as age, sex, scanner or site: metrics are then reported for each of
these groups (layouts/image_tables.py).

PNG, JPEG, TIFF and BMP are read, of 8 or 16 bits, gray or coloured (images.py).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .base import Count, FourFractions, Natural, Pair, first_names
from .io.directories import find_files, list_directory, name_conflicts
from .io.folder_names import (
    ALIASES,
    POOLS,
    ambiguous_folders,
    folders_of,
    is_normal,
    meaning_of,
    pool_of,
    unmatched_folders,
)
from .io.images import SUFFIXES
from .io.value_range import ValueRange
from .layouts.image_tables import BOXES, read_image_tables
from .preparation.cases import DatasetIndex
from .preparation.image_dataset import ImageDataset
from .splits.assignment import Case, check_fractions
from .splits.published import assign_unpublished


class Folder(ImageDataset):
    """Images in folders that name their split and their class.

    root: the folder that holds train/ and test/, or normal/ and others; else $ADBENCH_DATA
    group: what a file's name says of whom it shows, as a regular expression: its first capture
        group, such as "(patient[0-9]+)". Images of one group stay in one split. Without it, every
        image stands for itself, which flatters every method if some show the same thing
    size, channels, tile, overlap, range: see ImageDataset
    labels: where nothing is split, assign abnormal images to training too, for methods that take
        image labels
    fractions: of groups in train, held_out, val and test; splits with a folder of their own stay as
        they are
    seed: which groups go where

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.folder import Folder
    >>> with TemporaryDirectory() as root:
    ...     for name in ("train/good/0.png", "test/good/1.png", "test/crack/2.png"):
    ...         Path(root, name).parent.mkdir(parents=True)
    ...         Path(root, name).touch()
    ...     index = Folder(size=32, channels=1).build_index(Path(root))
    >>> [(case.pool, case.label) for case in index.cases]
    [('test', True), ('test', False), ('train', False)]
    """

    name = "folder"
    expected = "<root>/{train,test/good,test/broken}/*.png or <root>/{normal,abnormal}/*.png"

    def __init__(
        self,
        *,
        root: str | None = None,
        group: str | None = None,
        size: Count | Pair[Count] | None = 256,
        channels: Literal[1, 3] | None = None,
        tile: Count | None = None,
        overlap: Natural = 0,
        range: ValueRange | None = None,
        labels: bool = False,
        fractions: FourFractions = (0.6, 0.1, 0.1, 0.2),
        seed: Natural = 0,
    ) -> None:
        self.root, self.group, self.labels, self.seed = root, group, labels, seed
        self.fractions = check_fractions(fractions, 4)
        self._pattern = _compile_group_pattern(group)
        self._set_image_options(size, channels, tile, overlap, range)

    def build_index(self, root: Path) -> DatasetIndex:
        base = _find_base(root)
        images, problems, left_out = _find_images(base)
        paired, unpaired = _pair_masks(images, base)
        problems += unpaired
        tables = read_image_tables(base, list(images))
        problems += tables.problems
        has_masks, has_boxes = bool(paired), bool(tables.boxes)
        if has_boxes and (has_masks or self.tile is not None):
            other = "masks" if has_masks else "tile="
            problems.append(f"{BOXES} does not go with {other}: leave out one of them")
        cases = []
        for image, (pool, kind) in images.items():
            name, masks = _relative_name(image, base), paired.get(image, [])
            group = self.group_of_file(image)
            if group is None:
                problems.append(f"{name}: group={self.group!r} does not find whom it shows")
            if len(masks) > 1:
                mask_names = " and ".join(_relative_name(path, base) for path in masks)
                problems.append(f"{name} has {len(masks)} masks: {mask_names}")
            elif kind and has_masks and not masks and pool != "train":
                problems.append(f"{name} has no mask, and others have one ({image.stem}.png)")
            files = {"image": image} | ({"mask": masks[0]} if masks else {})
            extra: dict[str, Any] = {**tables.metadata.get(image, {})}
            extra |= {"kind": kind} if kind else {}
            if has_boxes:
                extra["boxes"] = tables.boxes.get(image, [])
                problems += _box_problems(name, bool(kind), pool, extra["boxes"])
            cases.append(Case(name, group or name, files, pool, bool(kind), extra))
        problems += name_conflicts((case.files["image"] for case in cases), base)
        self._has_masks = has_masks
        self._has_labels = any(c.label and (c.pool == "train" or self.labels) for c in cases)
        self._infer_spec(cases)
        notes = [
            f"the folder {_relative_name(path, base)}/ is left out: {reason}"
            for path, reason in left_out.items()
            if any(find_files(path, SUFFIXES, 5))
        ]
        return DatasetIndex(cases, problems, notes, tables.files, left_out=left_out)

    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        unpublished = {case.pool for case in cases} == {""}
        abnormal_splits = (
            ("val", "test") if unpublished and not self.labels else ("train", "val", "test")
        )
        return assign_unpublished(cases, self.fractions, self.seed, abnormal_splits=abnormal_splits)

    def group_of_file(self, image: Path) -> str | None:
        if self._pattern is None:
            return ""
        match = self._pattern.search(image.name)
        return match[1] if match else None


def _box_problems(name: str, abnormal: bool, pool: str, boxes: Sequence[Any]) -> list[str]:
    if abnormal and not boxes and pool != "train":
        return [f"{name} has no box in {BOXES}, and others have one"]
    return [f"{name} has a box in {BOXES}, and is called normal"] if boxes and not abnormal else []


def _compile_group_pattern(group: str | None) -> re.Pattern[str] | None:
    if group is None:
        return None
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise ValueError(f"group={group!r} is no regular expression ({error})") from None
    if pattern.groups < 1:
        raise ValueError(f"group={group!r} has no capture group: try '({group})'")
    return pattern


def _find_base(root: Path) -> Path:
    """Return root, or the only folder in it with this layout if root has not."""
    if _has_known_folders(root):
        return root
    folders = [path for path in list_directory(root) if path.is_dir() and _has_known_folders(path)]
    return folders[0] if len(folders) == 1 else root


def _has_known_folders(folder: Path) -> bool:
    return any(
        path.is_dir() and meaning_of(path.name) in (*POOLS, "normal")
        for path in list_directory(folder)
    )


def _find_images(
    base: Path,
) -> tuple[dict[Path, tuple[str, str]], list[str], Mapping[Path, str]]:
    """Return every image with its pool and kind ("" for normal), those of which this is not clear,
    and the folders that mean nothing."""
    mask_folders = folders_of(base, "masks")
    folders = [p for p in list_directory(base) if p.is_dir() and p not in mask_folders]
    pools = {path: pool_of(path.name) for path in folders if pool_of(path.name)}
    images: dict[Path, tuple[str, str]] = {}
    problems = []
    for folder in pools or folders:
        pool, top = pools.get(folder, ""), base if not pools else folder
        for image in find_files(folder, SUFFIXES, 5):
            kind = "" if image.parent == top else image.relative_to(top).parts[0]
            if not kind and pool != "train":
                location = f"{folder.name}/ itself: put it in {folder.name}/good/ or another folder"
                problems.append(f"{_relative_name(image, base)} lies in {location}")
            else:
                images[image] = (pool, "" if is_normal(kind) else kind)
    problems += ambiguous_folders(pools, base)
    if images and all(kind for _, kind in images.values()):
        kinds = first_names(sorted({kind for _, kind in images.values()}))
        normal_names = ", ".join(ALIASES["normal"][:5])
        problems.append(
            f"no folder of {base.name}/ is called {normal_names}: which is normal? ({kinds} were "
            "read as kinds of anomalies)"
        )
    left_out = unmatched_folders(base, [*pools, *mask_folders]) if pools else {}
    return images, problems, left_out


def _pair_masks(
    images: Mapping[Path, tuple[str, str]], base: Path
) -> tuple[dict[Path, list[Path]], list[str]]:
    """Return the masks of each image that has any, and a problem for each mask of no image or of
    several."""
    images_of_place: dict[str, list[Path]] = defaultdict(list)
    for image, (pool, kind) in images.items():
        path = image.relative_to(base).with_suffix("")
        images_of_place[path.as_posix()].append(image)
        if pool:
            images_of_place["/".join(path.parts[1:])].append(image)
        if kind:
            images_of_place[f"*/{image.stem}"].append(image)
    paired: dict[Path, list[Path]] = defaultdict(list)
    problems = []
    for mask_folder in folders_of(base, "masks"):
        for mask in find_files(mask_folder, SUFFIXES, 5):
            relative_path = mask.relative_to(mask_folder)
            stem = relative_path.stem.removesuffix("_mask")
            candidates = images_of_place.get(relative_path.with_name(stem).as_posix(), [])
            if relative_path.parent == Path():
                candidates = images_of_place.get(f"*/{stem}", []) or candidates
            candidates = [i for i in candidates if images[i][0] != "train"] or candidates
            if len(candidates) == 1:
                paired[candidates[0]].append(mask)
            else:
                count_text = f"{len(candidates)} images" if candidates else "no image"
                problems.append(
                    f"{_relative_name(mask, base)} is the mask of {count_text}: "
                    "name it as its image"
                )
    return paired, problems


def _relative_name(path: Path, base: Path) -> str:
    return path.relative_to(base).as_posix()
