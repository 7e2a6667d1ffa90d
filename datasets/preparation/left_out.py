"""Naming the files below the root of a dataset that none of its samples comes from, and why."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..base import LeftOutFiles
from ..io.directories import IGNORED_NAMES

SYSTEM = "hidden, or of an operating system or NAS: no data"
MISPLACED = "readable, but where this dataset has no data: see its folders"
UNKNOWN = "of a kind that is not read"
UNREAD = "not looked at, because of the problems above"
TEXT_NAMES = frozenset(
    ["README", "LICENSE", "LICENCE", "COPYING", "CHANGES", "AUTHORS", "NOTICE", "MANIFEST"]
)
MAX_FILES = 1_000_000
"""Files below the root that are looked at; of more, the rest is one line."""
MAX_NAMES = 20
"""From how many names on of one reason, folders stand for their files."""

_KINDS = {
    "NRRD volume, not read: convert to .nii.gz": "nrrd nhdr nrrd.gz",
    "MetaImage volume, not read: convert to .nii.gz": "mha mhd",
    "FreeSurfer volume, not read: convert to .nii.gz (mri_convert)": "mgz mgh",
    "pair of header and image, not read: convert to .nii.gz": "hdr img hdr.gz img.gz",
    "MINC volume, not read: convert to .nii.gz (mnc2nii)": "mnc",
    "AFNI volume, not read: convert to .nii.gz (3dAFNItoNIFTI)": "head brik brik.gz",
    "DICOM, not read: convert volumes to .nii.gz (dcm2niix), images to .png": "dcm dicom ima",
    "image of a kind that is not read: convert to .png": (
        "heic heif avif jxl jp2 j2k jpx svg psd xcf exr ico pcx tga pdf eps pgm ppm pbm pnm"
    ),
    "raw image of a camera, not read: convert to .tif or .png": "dng cr2 cr3 nef arw orf raf rw2",
    "microscope or slide image, not read: convert to .tif": "svs ndpi czi lif vsi mrxs scn nd2 oib",
    "video, not read: store its frames as .png": "mp4 avi mov mkv webm wmv mpg mpeg m4v",
    "audio, not read: store it as .h5": "wav mp3 flac ogg m4a",
    "array file that this dataset does not read: store it as .h5": (
        "mat npz npy zarr parquet feather tfrecord safetensors h5 hdf5"
    ),
    "pickle, which can run any code and is never read: store the data as .h5": (
        "pkl pickle pt pth joblib"
    ),
    "archive: unpack it": "zip tar tgz tar.gz tar.bz2 tar.xz tbz2 txz 7z rar gz bz2 xz zst",
    "text or table that this dataset does not read": (
        "txt md rst csv tsv json jsonl yaml yml xml html htm doc docx xls xlsx ods odt log ini cfg "
        "toml tex bib ps py sh m ipynb r bval bvec sql db sqlite"
    ),
    "partial download or backup: fetch it again, or remove it": (
        "part partial crdownload download tmp temp bak orig old swp"
    ),
}
REASON_OF_SUFFIX = {
    f".{suffix}": reason for reason, suffixes in _KINDS.items() for suffix in suffixes.split()
}


def may_be_data(files: LeftOutFiles) -> bool:
    """Return whether files that were left out are perhaps data that the user expects to be read.

    files: of `find_left_out`

    >>> may_be_data(LeftOutFiles(SYSTEM, 3, [".a"])), may_be_data(LeftOutFiles(MISPLACED, 1, ["a"]))
    (False, True)
    """
    return files.reason in (MISPLACED, UNKNOWN) or " not read: " in files.reason


def find_left_out(
    root: Path,
    used: Collection[Path | str],
    *,
    reasons: Mapping[Path, str] | None = None,
    problems: Collection[str] = (),
    unknown: str = UNKNOWN,
) -> list[LeftOutFiles]:
    """Return all files below the root that were not used, and empty folders, by the reason.

    root: folder of the dataset; a file has nothing below it
    used: the files that were read
    reasons: why the dataset itself left files or whole folders out
    problems: of the dataset; a file that one of them names is left out for it
    unknown: the reason of files that there is no other reason for

    >>> Path("set").mkdir()
    >>> for name in ("a.png", "b.nrrd", ".DS_Store"):
    ...     (Path("set") / name).touch()
    >>> for files in find_left_out(Path("set"), {Path("set/a.png")}):
    ...     print(files.count, files.names, files.reason)
    1 ['b.nrrd'] NRRD volume, not read: convert to .nii.gz
    1 ['.DS_Store'] hidden, or of an operating system or NAS: no data
    """
    base = os.path.abspath(root)
    used_paths = {os.path.abspath(path) for path in used}
    own_reasons = {os.path.abspath(path): reason for path, reason in (reasons or {}).items()}
    readable = {_suffix(path) for path in used_paths}
    problem_text = "\n".join(problems)
    names: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for number, (path, reason, top) in enumerate(
        _walk(base, own_reasons, set()) if os.path.isdir(base) else ()
    ):
        if number >= MAX_FILES:
            names[f"more than {MAX_FILES} files: name the dataset's own folder"]["."] = [".../"]
            break
        if path in used_paths:
            continue
        name = _display_name(path, base)
        if not reason and "/".join(name.split("/")[-2:]) in problem_text:
            reason = "has a problem: see above"
        if not reason and _suffix(path) in readable:
            reason = MISPLACED
        if not reason and os.path.basename(path).upper() in TEXT_NAMES:
            reason = REASON_OF_SUFFIX[".txt"]
        reason = reason or REASON_OF_SUFFIX.get(_suffix(path), unknown)
        folder = _display_name(top or os.path.dirname(path), base)
        names[reason][folder].append(name)
    return [
        LeftOutFiles(reason, _count(group.values()), _shortened(group))
        for reason, group in sorted(names.items())
    ]


def _count(groups: Iterable[Sequence[str]]) -> int:
    return sum(not name.endswith("/") for group in groups for name in group)


def _shortened(groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names of all files if they are few, else folders with their number of files."""
    if sum(map(len, groups.values())) <= MAX_NAMES:
        return [name for group in groups.values() for name in group]
    return [
        name
        for folder, group in sorted(groups.items())
        for name in (group if len(group) == 1 else [f"{folder}/ ({_count([group])})"])
    ]


def _walk(
    folder: str,
    reasons: Mapping[str, str],
    parents: Collection[str],
    reason: str = "",
    top: str = "",
) -> Iterator[tuple[str, str, str]]:
    """Yield every file below a folder, why it is left out if that is known without its kind, and
    the highest folder of that reason. An empty folder is yielded with a / behind its name."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield f"{folder}/", f"cannot be listed ({error.strerror})", top
        return
    if not entries and parents:
        yield f"{folder}/", reason or "empty folder", top
    real_parents = {*parents, os.path.realpath(folder)}
    for entry in entries:
        own = SYSTEM if IGNORED_NAMES.fullmatch(entry.name) else reasons.get(entry.path, "")
        inner_reason, inner_top = reason or own, top or (entry.path if own else "")
        if entry.is_dir():
            if os.path.realpath(entry.path) in real_parents:
                yield f"{entry.path}/", "link to a folder above it", inner_top
            else:
                yield from _walk(entry.path, reasons, real_parents, inner_reason, inner_top)
        elif entry.is_file():
            yield entry.path, inner_reason, inner_top
        else:
            why = "link to nothing" if entry.is_symlink() else "neither a file nor a folder"
            yield entry.path, inner_reason or why, inner_top


def _suffix(path: str) -> str:
    """Return the suffix in lower case, such as ".png" or ".nii.gz"."""
    stem, suffix = os.path.splitext(os.path.basename(path).lower())
    inner = os.path.splitext(stem)[1] if suffix in (".gz", ".bz2", ".xz") else ""
    return inner + suffix if inner in (".nii", ".tar", *_INNER) else suffix


_INNER = tuple(
    f".{suffix.partition('.')[0]}"
    for suffixes in _KINDS.values()
    for suffix in suffixes.split()
    if "." in suffix
)


def _display_name(path: str, base: str) -> str:
    """Return the name relative to the base, with a / behind folders; odd letters are escaped."""
    name = os.path.relpath(path, base).replace(os.sep, "/") + "/" * path.endswith("/")
    return name if name.isprintable() else ascii(name)[1:-1]
