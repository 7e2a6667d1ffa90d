"""A user's own volumes in BIDS, the Brain Imaging Data Structure: images and lesion masks.

    <root>/sub-001[/ses-01]/anat/sub-001[_ses-01]_T1w.nii.gz
    <root>/derivatives/**/sub-001[/ses-01]/**/*_label-lesion_mask.nii.gz    or *_mask, *_roi
    <root>/participants.tsv                  participant_id, and group or diagnosis; age, sex, site

Gorgolewski et al., "The brain imaging data structure", Scientific Data 2016. A subject is normal
where participants.tsv says so (control, healthy, ...), else where it has no lesion mask.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ..base import DataError, first_names
from ..io.directories import find_files, list_directory
from ..io.folder_names import is_normal
from ..io.nifti_names import SUFFIXES, nifti_stem
from .volume_pairs import SubjectFiles

SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
BIDS_NAME = re.compile(
    r"(?P<stem>(?P<subject>sub-[A-Za-z0-9]+)(_(?P<session>ses-[A-Za-z0-9]+))?(_[a-z]+-[^_]+)*)"
    r"_(?P<suffix>[A-Za-z0-9]+)\.nii(\.gz)?",
    re.IGNORECASE,
)
MASK_SUFFIXES = ("mask", "roi", "lesion", "seg", "dseg", "lesionmask")
NO_LESION = re.compile(
    r"brain|skull|head|tissue|parc|aparc|aseg|ribbon|eye|label-(GM|WM|CSF|BG)(_|$)", re.IGNORECASE
)
LESION = re.compile(r"lesion|tumou?r|stroke|label-L(_|$)|wmh|infarct|abnormal|anomaly", re.I)
METADATA_COLUMNS = ("age", "sex", "gender", "site", "center", "centre", "scanner", "manufacturer",
    "field_strength", "ethnicity", "race")  # fmt: skip
"""Columns of participants.tsv that become tags of the samples, in any case."""

GROUP_COLUMNS = ("group", "diagnosis", "dx", "condition", "patient_group", "pathology", "label")


@dataclass
class BidsVolumes:
    """What a BIDS folder holds for a detector.

    subjects: the images of every subject and session, with their masks
    problems: one line each
    tables: participants.tsv, if it was read
    metadata: what it says of every subject in METADATA_COLUMNS; "n/a" is left out
    left_out: other files, and why

    >>> BidsVolumes().subjects
    []
    """

    subjects: list[SubjectFiles] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    left_out: dict[Path, str] = field(default_factory=dict)


def find_bids_root(root: Path) -> Path | None:
    """Return the folder that holds the subjects of a BIDS dataset: root or its rawdata/, or None.

    root: an existing folder

    >>> (Path("study") / "sub-01" / "anat").mkdir(parents=True)
    >>> find_bids_root(Path("study"))
    PosixPath('study')
    """
    for base in (root, root / "rawdata"):
        if base.is_dir() and any(_subject_folders(base)):
            return base
    return None


def read_bids(root: Path, base: Path, modalities: Sequence[str] | None) -> BidsVolumes:
    """Return the anatomical images of every subject and session, with their lesion masks.

    root: of the dataset, which may hold derivatives/
    base: the folder that holds sub-*/
    modalities: suffixes of the images that become channels, such as T1w; None takes the only one
        that there is

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.layouts.bids import read_bids
    >>> with TemporaryDirectory() as folder:
    ...     for name in ("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz",
    ...                  "derivatives/sub-02/sub-02_label-lesion_mask.nii.gz"):
    ...         Path(folder, name).parent.mkdir(parents=True)
    ...         Path(folder, name).touch()
    ...     volumes = read_bids(Path(folder), Path(folder), None)
    >>> [(subject.name, subject.kind) for subject in volumes.subjects]
    [('sub-01', 'normal'), ('sub-02', 'lesion')]
    """
    volumes = BidsVolumes()
    images: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    masks: list[tuple[re.Match[str], Path]] = []
    for path in find_files(root, SUFFIXES, 12):
        match, parts = BIDS_NAME.fullmatch(path.name), path.relative_to(root).parts[:-1]
        reason = _why_left_out(match, path, parts)
        if reason:
            volumes.left_out[path] = reason
        elif match is not None and match["suffix"].lower() in MASK_SUFFIXES:
            masks.append((match, path))
        elif match is not None:
            place = match["subject"], match["session"] or ""
            images[place][match["suffix"]].append(path)
    suffixes = sorted({suffix for by_suffix in images.values() for suffix in by_suffix})
    if modalities is None and len(suffixes) > 1:
        listed = ", ".join(suffixes)
        volumes.problems.append(
            f"there are images of {len(suffixes)} kinds ({listed}): name those that become "
            f"channels, such as modalities=[{suffixes[0]}]"
        )
        return volumes
    roles = list(modalities or suffixes)
    for (subject, session), by_suffix in sorted(images.items()):
        unused = (p for suffix, paths in by_suffix.items() if suffix not in roles for p in paths)
        volumes.left_out |= dict.fromkeys(unused, "its suffix is not one of modalities")
        _add_session(volumes, subject, session, by_suffix, roles, single=modalities is None)
    _pair_masks(volumes, masks)
    _label_subjects(volumes, root, base)
    return volumes


def _subject_folders(base: Path) -> Iterator[Path]:
    return (p for p in list_directory(base) if SUBJECT.fullmatch(p.name) and p.is_dir())


def _why_left_out(match: re.Match[str] | None, path: Path, parts: Sequence[str]) -> str:
    """Return why a volume is no anatomical image and no lesion mask, or ""."""
    if match is None:
        return "its name is not of BIDS: sub-<label>[_ses-<label>]_<suffix>.nii.gz"
    name, is_mask = path.name, match["suffix"].lower() in MASK_SUFFIXES
    if is_mask and NO_LESION.search(name) and not LESION.search(name):
        return "mask or segmentation of anatomy, no lesion mask"
    if match["suffix"].lower() == "dseg" and not LESION.search(name):
        return "mask or segmentation of anatomy, no lesion mask"
    if not is_mask and "derivatives" in map(str.lower, parts):
        return "derived image: the original in anat/ is read"
    if not is_mask and "anat" not in map(str.lower, parts):
        return "not in anat/: only anatomical images are read"
    return ""


def _add_session(
    volumes: BidsVolumes,
    subject: str,
    session: str,
    by_suffix: Mapping[str, list[Path]],
    roles: Sequence[str],
    *,
    single: bool,
) -> None:
    """Add the cases of a session: one of all modalities, or one for each image of the only one."""
    place = "/".join(filter(None, (subject, session)))
    missing = [role for role in roles if role not in by_suffix]
    several = [role for role in roles if len(by_suffix.get(role, ())) > 1]
    if missing:
        there = ", ".join(p.name for paths in by_suffix.values() for p in paths)
        volumes.problems.append(f"{place}: missing {', '.join(missing)}; found {there}")
    elif len(roles) == 1:
        for path in by_suffix[roles[0]]:
            stem = nifti_stem(path.name) if several else place
            name = f"{place}/{stem}" if several else place
            files = {"image" if single else roles[0]: path}
            volumes.subjects.append(SubjectFiles(name, "", "", stem, files, subject))
    elif several:
        names = first_names([path.name for role in several for path in by_suffix[role]])
        volumes.problems.append(f"{place} has several images of one kind ({names}): keep one each")
    else:
        files = {role: by_suffix[role][0] for role in roles}
        volumes.subjects.append(SubjectFiles(place, "", "", place, files, subject))


def _pair_masks(volumes: BidsVolumes, masks: Sequence[tuple[re.Match[str], Path]]) -> None:
    """Give every case the lesion mask of its subject and session."""
    cases: dict[tuple[str, str], list[SubjectFiles]] = defaultdict(list)
    for case in volumes.subjects:
        match = BIDS_NAME.fullmatch(next(iter(case.files.values())).name)
        if match is not None:
            cases[match["subject"], match["session"] or ""].append(case)
    for match, path in masks:
        candidates = cases.get((match["subject"], match["session"] or ""), [])
        if not candidates and not match["session"]:  # a mask that names no session
            candidates = [
                c for (s, _), some in cases.items() if s == match["subject"] for c in some
            ]
        if len(candidates) > 1:
            candidates = [case for case in candidates if _names_image(path, case)] or candidates
        if len(candidates) != 1:
            count_text = f"{len(candidates)} images" if candidates else "no image"
            volumes.problems.append(f"{path.name} is the lesion mask of {count_text} in anat/")
        elif "mask" in candidates[0].files:
            other = candidates[0].files["mask"].name
            volumes.problems.append(
                f"{candidates[0].name} has two lesion masks ({other}, {path.name}): keep one"
            )
        else:
            candidates[0].files["mask"] = path


def _names_image(mask: Path, case: SubjectFiles) -> bool:
    """Return whether the name of a mask begins like that of an image of the case."""
    matches = [BIDS_NAME.fullmatch(path.name) for path in case.files.values()]
    return any(match is not None and mask.name.startswith(match["stem"]) for match in matches)


def _label_subjects(volumes: BidsVolumes, root: Path, base: Path) -> None:
    """Set the kind of every case: normal, or what it is according to participants.tsv."""
    table = next(
        (p for p in (base / "participants.tsv", root / "participants.tsv") if p.is_file()), None
    )
    groups, column = ({}, "") if table is None else _read_groups(table)
    if table is not None:
        volumes.tables.append(table)
        volumes.metadata = _read_metadata(table)
    unlisted = []
    for case in volumes.subjects:
        group = groups.get(case.subject, "")
        if groups and not group:
            unlisted.append(case.subject)
        has_mask = "mask" in case.files
        case.kind = group or ("lesion" if has_mask else "normal")
        if group and is_normal(group):
            case.kind = "normal"
    if unlisted:
        names = first_names(sorted(set(unlisted)))
        volumes.problems.append(f"participants.tsv has no {column} for {names}")
    if volumes.subjects and not any(case.label for case in volumes.subjects):
        volumes.problems.append(
            "no subject is abnormal: neither does participants.tsv have a column group or "
            "diagnosis with other values than control or healthy, nor is there a lesion mask, such "
            "as derivatives/lesions/sub-001/anat/sub-001_label-lesion_mask.nii.gz"
        )
    if volumes.subjects and all(case.label for case in volumes.subjects):
        kinds = first_names(sorted({case.kind for case in volumes.subjects}))
        volumes.problems.append(
            f"no subject is normal: all are {kinds} by {column or 'their lesion masks'}; normal "
            "ones are called control or healthy in participants.tsv, or have no lesion mask"
        )


def _read_participants(table: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return participants.tsv as text, and its columns by their names in lower case."""
    try:
        rows = pd.read_csv(table, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"participants.tsv cannot be read ({reason})") from None
    return rows, {str(name).strip().lower(): name for name in rows.columns}


def _read_metadata(table: Path) -> dict[str, dict[str, str]]:
    """Return what participants.tsv says of every subject in METADATA_COLUMNS."""
    rows, columns = _read_participants(table)
    if "participant_id" not in columns:
        return {}
    metadata: dict[str, dict[str, str]] = defaultdict(dict)
    subjects = [_subject_name(subject) for subject in rows[columns["participant_id"]]]
    for name in METADATA_COLUMNS:
        values = rows[columns[name]] if name in columns else ()
        for subject, value in zip(subjects, values, strict=False):
            if str(value).strip().lower() not in ("", "n/a"):
                metadata[subject][name] = str(value).strip()
    return dict(metadata)


def _subject_name(participant: object) -> str:
    return f"sub-{str(participant).strip().removeprefix('sub-')}"


def _read_groups(table: Path) -> tuple[dict[str, str], str]:
    """Return the group of every subject in participants.tsv and its column; {} without one."""
    rows, columns = _read_participants(table)
    column = next((columns[name] for name in GROUP_COLUMNS if name in columns), None)
    if column is None or "participant_id" not in columns:
        return {}, ""
    pairs = zip(rows[columns["participant_id"]], rows[column], strict=True)
    groups = {
        _subject_name(who): str(group).strip()
        for who, group in pairs
        if str(group).strip().lower() not in ("", "n/a", "nan")
    }
    return groups, str(column)
