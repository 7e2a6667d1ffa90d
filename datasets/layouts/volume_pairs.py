"""Finding users' own volumes: folders say the split and the kind, names pair images and masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..io.directories import find_files, list_directory, name_conflicts

POOLS = ("train", "val", "test")
NORMAL_FOLDERS = frozenset({"normal", "healthy", "good", "negative"})
MASK_FOLDERS = frozenset({"mask", "masks", "seg", "segs", "label", "labels"})
MASK_ENDINGS = ("_mask", "_seg", "-mask", "-seg")
SUFFIXES = (".nii.gz", ".nii")


@dataclass
class SubjectFiles:
    """One subject. name: pool, kind and NAME; files: by modality, or "image"; and "mask"."""

    name: str
    pool: str
    kind: str
    stem: str
    files: dict[str, Path] = field(default_factory=dict)

    @property
    def label(self) -> bool:
        return self.kind.lower() not in NORMAL_FOLDERS


def find_subjects(
    root: Path, modalities: Sequence[str] | None
) -> tuple[list[SubjectFiles], list[str]]:
    """Every subject below root by name, and what does not pair."""
    folders = {path.name: path for path in list_directory(root) if path.is_dir()}
    pools = {pool: folders[pool] for pool in POOLS if pool in folders} or {"": root}
    found: list[SubjectFiles] = []
    problems: list[str] = []
    paths = []
    for pool, folder in pools.items():
        images: dict[tuple[str, str], SubjectFiles] = {}
        masks: dict[tuple[str, str], Path] = {}
        for path in find_files(folder, SUFFIXES):
            paths.append(path)
            name = path.relative_to(root).as_posix()
            parts = path.relative_to(folder).parts[:-1]
            kind = next((part for part in parts if part.lower() not in MASK_FOLDERS), "")
            stem, role = _parse_role(path, modalities)
            if role == "mask" or any(part.lower() in MASK_FOLDERS for part in parts):
                if masks.setdefault((kind, stem), path) != path:
                    other = masks[kind, stem].relative_to(root).as_posix()
                    problems.append(f"{name} and {other} are masks of the same image: remove one")
                continue
            if not kind and pool != "train":
                where = "normal/ or a folder named after what is abnormal"
                problems.append(f"{name} lies in no folder that tells its kind: {where}")
                continue
            if not role:
                problems.append(f"{name} ends in none of {', '.join(modalities or ())}")
                continue
            inner = "/".join(parts[1:])
            stem = f"{inner}/{stem}" if inner else stem
            kind = kind or "normal"
            one = images.setdefault(
                (kind, stem),
                SubjectFiles("/".join(filter(None, (pool, kind, stem))), pool, kind, stem),
            )
            if one.files.setdefault(role, path) != path:
                problems.append(f"{name} and {one.files[role].name} are the same image twice")
        problems += _pair_masks(images, masks, root)
        found += images.values()
    wanted = modalities or ("image",)
    for one in found:
        missing = [role for role in wanted if role not in one.files]
        if missing:
            there = ", ".join(path.name for path in one.files.values())
            problems.append(f"{one.name}: missing {', '.join(missing)}; found {there}")
    return sorted(found, key=lambda one: one.name), [*problems, *name_conflicts(paths, root)]


def _parse_role(path: Path, modalities: Sequence[str] | None) -> tuple[str, str]:
    """NAME, and whether it is the mask, the image or which modality; "" for none of those."""
    stem = path.name
    for suffix in SUFFIXES:
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    for ending in MASK_ENDINGS:
        if stem.lower().endswith(ending):
            return stem[: -len(ending)], "mask"
    if modalities is None:
        return stem, "image"
    for modality in sorted(modalities, key=len, reverse=True):
        if stem.endswith((f"_{modality}", f"-{modality}")):
            return stem[: -len(modality) - 1], modality
    return stem, ""


def _pair_masks(
    images: dict[tuple[str, str], SubjectFiles], masks: dict[tuple[str, str], Path], root: Path
) -> Iterator[str]:
    """Give every image its mask; tell of masks that no image or several images could own."""
    owners: dict[tuple[str, str], list[SubjectFiles]] = defaultdict(list)
    for (kind, stem), one in images.items():
        short = stem.rpartition("/")[2]
        for place in ((kind, short), ("", short)):
            if place in masks:
                owners[place].append(one)
                break
    for place, path in masks.items():
        name = path.relative_to(root).as_posix()
        mine = owners[place]
        if len(mine) > 1 and not place[0]:
            # in a folder masks/ for all kinds, those of normal images need not be there
            mine = [one for one in mine if one.label] or mine
        if len(mine) == 1:
            mine[0].files["mask"] = path
        elif mine:
            both = " and ".join(one.name for one in mine)
            yield f"{name} may be the mask of {both}: put it beside its image"
        else:
            yield f"{name} is a mask without an image of that name"
