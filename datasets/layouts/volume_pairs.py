"""A user's own volumes: folders give split and kind, names pair images with masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..io.directories import find_files, list_directory, name_conflicts
from ..io.folder_names import (
    POOLS,
    ambiguous_folders,
    folders_of,
    is_mask_folder,
    is_normal,
    unmatched_folders,
)
from ..io.nifti_names import SUFFIXES, is_nifti, nifti_stem

MASK_ENDINGS = ("_mask", "_seg", "-mask", "-seg")


@dataclass
class SubjectFiles:
    """The files of one subject.

    name: pool, kind and stem, joined by /
    pool: "train", "val", "test" or ""
    kind: folder name that says whether and how the subject is abnormal
    stem: file name without modality and suffix
    files: by modality or "image", and "mask"
    subject: whom the files show, where the layout says so; "" to tell from the name

    >>> SubjectFiles("train/tumour/p1", "train", "tumour", "p1").label
    True
    """

    name: str
    pool: str
    kind: str
    stem: str
    files: dict[str, Path] = field(default_factory=dict)
    subject: str = ""

    @property
    def label(self) -> bool:
        """Whether the subject is abnormal."""
        return not is_normal(self.kind)


def find_subjects(
    root: Path, modalities: Sequence[str] | None
) -> tuple[list[SubjectFiles], list[str]]:
    """Return every subject below root by name, and everything that does not pair.

    root: folder with train/, val/ and test/, or with the folders of kinds
    modalities: endings of the images of a subject; None for one image each

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as root:
    ...     for name in ("normal/p1.nii.gz", "tumour/p2.nii.gz", "tumour/p2_mask.nii.gz"):
    ...         Path(root, name).parent.mkdir(exist_ok=True)
    ...         Path(root, name).touch()
    ...     subjects, problems = find_subjects(Path(root), None)
    >>> [(subject.name, sorted(subject.files)) for subject in subjects], problems
    ([('normal/p1', ['image']), ('tumour/p2', ['image', 'mask'])], [])
    """
    pools = {pool: folder for pool in POOLS for folder in folders_of(root, pool)} or {"": root}
    subjects: list[SubjectFiles] = []
    problems = [*ambiguous_folders(list_directory(root), root)]
    paths = []
    for pool, folder in pools.items():
        images: dict[tuple[str, str], SubjectFiles] = {}
        masks: dict[tuple[str, str], Path] = {}
        for path in find_files(folder, SUFFIXES):
            paths.append(path)
            name = path.relative_to(root).as_posix()
            parts = path.relative_to(folder).parts[:-1]
            kind = next((part for part in parts if not is_mask_folder(part)), "")
            stem, role = _parse_role(path, modalities)
            if role == "mask" or any(map(is_mask_folder, parts)):
                if masks.setdefault((kind, stem), path) != path:
                    other = masks[kind, stem].relative_to(root).as_posix()
                    problems.append(f"{name} and {other} are masks of the same image: remove one")
                continue
            if not kind and pool != "train":
                advice = "normal/ or a folder named after what is abnormal"
                problems.append(f"{name} lies in no folder that tells its kind: {advice}")
                continue
            if not role:
                problems.append(f"{name} ends in none of {', '.join(modalities or ())}")
                continue
            inner = "/".join(parts[1:])
            stem = f"{inner}/{stem}" if inner else stem
            kind = kind or "normal"
            subject = images.setdefault(
                (kind, stem),
                SubjectFiles("/".join(filter(None, (pool, kind, stem))), pool, kind, stem),
            )
            if subject.files.setdefault(role, path) != path:
                problems.append(f"{name} and {subject.files[role].name} are the same image twice")
        problems += _pair_masks(images, masks, root)
        subjects += images.values()
    needed = modalities or ("image",)
    for subject in subjects:
        missing = [role for role in needed if role not in subject.files]
        if missing:
            file_names = ", ".join(path.name for path in subject.files.values())
            problems.append(f"{subject.name}: missing {', '.join(missing)}; found {file_names}")
    return sorted(subjects, key=lambda subject: subject.name), [
        *problems,
        *name_conflicts(paths, root),
    ]


def find_new_subjects(
    path: Path, modalities: Sequence[str] | None
) -> tuple[list[SubjectFiles], list[str]]:
    """Return the subjects of new volumes, and everything that does not pair.

    Folders mean nothing here; masks are passed over.

    path: a folder that is searched, or one file: then the other modalities lie beside it
    modalities: endings of the images of a subject; None for one image each

    >>> Path("new").mkdir()
    >>> for name in ("p1_t1.nii", "p1_t2.nii", "p2_t1.nii"):
    ...     Path("new", name).touch()
    >>> subjects, problems = find_new_subjects(Path("new"), ["t1", "t2"])
    >>> [subject.name for subject in subjects], problems
    (['p1'], ['p2: missing t2; found p2_t1.nii'])
    """
    base = path if path.is_dir() else path.parent
    files = find_files(path, SUFFIXES) if path.is_dir() else [path]
    if not path.is_dir() and modalities is not None and base.is_dir():
        files = [file for file in list_directory(base) if is_nifti(file.name)]
    subjects: dict[str, SubjectFiles] = {}
    problems: list[str] = []
    for file in files:
        parts = file.relative_to(base).parts
        stem, role = _parse_role(file, modalities)
        if (role == "mask" and path.is_dir()) or any(map(is_mask_folder, parts[:-1])):
            continue
        if not role or role == "mask":
            if path.is_dir() or file == path:
                endings = ", ".join(modalities or ())
                why = "is called a mask" if role else f"ends in none of {endings}"
                problems.append(f"{'/'.join(parts)} {why}")
            continue
        name = "/".join((*parts[:-1], stem))
        subject = subjects.setdefault(name, SubjectFiles(name, "", "normal", stem))
        if subject.files.setdefault(role, file) != file:
            problems.append(f"{'/'.join(parts)} and {subject.files[role].name} are the same image")
    named = [s for s in subjects.values() if path.is_dir() or path in s.files.values()]
    complete = []
    for subject in named:
        missing = [role for role in modalities or ("image",) if role not in subject.files]
        if missing:
            names = ", ".join(file.name for file in subject.files.values())
            problems.append(f"{subject.name}: missing {', '.join(missing)}; found {names}")
        else:
            complete.append(subject)
    return complete, problems


def unmatched_volume_folders(root: Path) -> Mapping[Path, str]:
    """Return the folders beside train/, val/ and test/ that mean nothing; none without splits.

    root: as of `find_subjects`

    >>> for name in ("train", "extra"):
    ...     (Path("scans") / name).mkdir(parents=True)
    >>> [path.name for path in unmatched_volume_folders(Path("scans"))]
    ['extra']
    """
    pools = [folder for pool in POOLS for folder in folders_of(root, pool)]
    unmatched = unmatched_folders(root, pools) if pools else {}
    advice = "masks are read within the folders of splits, such as test/masks/: move it there"
    return {p: advice if is_mask_folder(p.name) else why for p, why in unmatched.items()}


def _parse_role(path: Path, modalities: Sequence[str] | None) -> tuple[str, str]:
    """Return the stem and whether the file is "mask", "image", a modality, or "" for none."""
    stem = nifti_stem(path.name)
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
    """Give every image its mask; yield masks that no image or several images could own."""
    owners: dict[tuple[str, str], list[SubjectFiles]] = defaultdict(list)
    for (kind, stem), subject in images.items():
        file_stem = stem.rpartition("/")[2]
        for place in ((kind, file_stem), ("", file_stem)):
            if place in masks:
                owners[place].append(subject)
                break
    for place, path in masks.items():
        name = path.relative_to(root).as_posix()
        candidates = owners[place]
        if len(candidates) > 1 and not place[0]:
            # in a folder masks/ for all kinds, those of normal images need not be there
            candidates = [subject for subject in candidates if subject.label] or candidates
        if len(candidates) == 1:
            candidates[0].files["mask"] = path
        elif candidates:
            owner_names = " and ".join(subject.name for subject in candidates)
            yield f"{name} may be the mask of {owner_names}: put it beside its image"
        else:
            yield f"{name} is a mask without an image of that name"
