"""New files: which there are, what they are called, and how they are read.

The noise that a method adds to a sample depends on the sample's key. So a file that lies in a
folder laid out as the dataset's gets the key that it has there: its map is that of `run` to the
bit. Every other file is named by its path below the folder that was given.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...datasets.base import DataError, Dataset, Sample
from ...datasets.io.directories import list_directory
from ...datasets.io.file_hashes import modification_stamp
from ...datasets.io.folder_names import POOLS, meaning_of, pool_of
from ...datasets.io.nifti_names import is_nifti, nifti_stem
from ...datasets.preparation.array_dataset import ArrayDataset
from ...datasets.preparation.file_dataset import FileDataset
from ...datasets.preparation.image_dataset import ImageDataset
from ...datasets.splits.assignment import Case
from ..leaderboard.text import plain_text

PLANE = re.compile(r"/z(\d+)$")
"""The end of the key of a plane of a volume: its index."""

MAX_PARENTS = 4
"""Folders above a file among which the root of a dataset's layout is sought."""


@dataclass(frozen=True)
class NewFile:
    """A file to predict; of several modalities, the first, and the others belong to it.

    name: as tables and messages have it
    output: its name without an ending, for the files that are made of it
    kind: "volume", "picture" or "arrays"
    path: of the file
    cases: what is read of it, one part after another

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.benchmark.prediction.inputs import NewFile
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.png")
    ...     case = Case("a.png", "a.png", {"image": path})
    ...     file = NewFile("a.png", "a", "picture", path, (case,))
    ...     _ = path.write_bytes(b"one")
    ...     before = file.stamp()
    ...     _ = path.write_bytes(b"three")
    ...     file.stamp() == before
    False
    """

    name: str
    output: str
    kind: str
    path: Path
    cases: tuple[Case, ...]

    def stamp(self) -> str:
        """Where its files lie, their sizes and times; another stamp means other files."""
        paths = dict.fromkeys(path for case in self.cases for path in case.files.values())
        return "; ".join(f"{path.absolute()} {modification_stamp(path)}" for path in paths)


@dataclass(frozen=True)
class Problem:
    """Why a file could not be predicted, in one line.

    >>> from adbench.benchmark.prediction.inputs import Problem
    >>> print(Problem("a.png", "is not there"), "|", Problem("b.png", "b.png is damaged"))
    a.png: is not there | b.png is damaged
    """

    name: str
    reason: str

    def __str__(self) -> str:
        named = self.name in self.reason
        return plain_text(self.reason if named else f"{self.name}: {self.reason}")


def file_of_key(key: str) -> str:
    """The file that a sample comes from, by the sample's key: planes of a volume share one.

    >>> from adbench.benchmark.prediction.inputs import file_of_key
    >>> file_of_key("p1/z003"), file_of_key("wood/test/good/001.png")
    ('p1', 'wood/test/good/001.png')
    """
    return PLANE.sub("", key)


def find_new_files(dataset: Dataset, paths: Sequence[Path]) -> tuple[list[NewFile], list[Problem]]:
    """The files below some paths that a dataset can read, and everything that is no such file.

    dataset: with its `spec` set
    paths: of files and of folders, which are searched
    Raises DataError where the dataset reads no files.

    >>> from PIL import Image
    >>> from adbench.benchmark.prediction.inputs import find_new_files
    >>> from adbench.datasets.folder import Folder
    >>> Path("new").mkdir()
    >>> Image.new("L", (8, 8), 90).save("new/a.png")
    >>> dataset = Folder(size=8, channels=1)
    >>> files, problems = find_new_files(dataset, [Path("new"), Path("none.png")])
    >>> [(file.name, file.kind) for file in files], [str(problem) for problem in problems]
    ([('new/a.png', 'picture')], ['none.png: is not there'])
    """
    if not isinstance(dataset, FileDataset):
        raise DataError(
            f"the detector was trained on {type(dataset).__name__}, which reads no files: hand "
            "arrays over in Python (adbench.load(RECORD).predict(images))"
        )
    state = dataset.preprocessing_state()
    files: list[NewFile] = []
    problems: list[Problem] = []
    for path in dict.fromkeys(paths):
        if not path.exists():
            problems.append(Problem(str(path), "is not there"))
            continue
        prefix = f"{path.name}/" if len(paths) > 1 and path.is_dir() else ""
        try:
            index = dataset.find_new_cases(path)
            cases = _with_layout_names(dataset, path, index.cases)
        except DataError as error:
            problems.append(Problem(str(path), _one_line(error)))
            continue
        finally:
            dataset.restore_preprocessing(state)
        problems += [Problem(name, text) for name, text in _named(index.problems)]
        if not cases and not index.problems:
            kinds = ", ".join(dataset.new_file_suffixes) or dataset.expected
            problems.append(Problem(str(path), f"holds no file that the detector takes ({kinds})"))
        base = path if path.is_dir() else path.parent
        files += _files(dataset, cases, base.absolute(), prefix)
    return _with_distinct_outputs(files, problems), problems


def _with_layout_names(dataset: FileDataset, path: Path, cases: Sequence[Case]) -> list[Case]:
    """The cases, with name and group that they have in a folder laid out as the dataset's."""
    if isinstance(dataset, ArrayDataset):
        return list(cases)
    case_of: dict[Path, Case] = {}
    for root in _layout_roots(path.absolute()):
        try:
            indexed = dataset.build_index(root).cases
        except (DataError, OSError):
            continue
        case_of = {file.absolute(): c for c in indexed for file in c.files.values()}
        if any(file.absolute() in case_of for case in cases for file in case.files.values()):
            break
    return [
        case if twin is None else replace(case, name=twin.name, group=twin.group)
        for case in cases
        for twin in [case_of.get(next(iter(case.files.values())).absolute())]
    ]


def _layout_roots(path: Path) -> Iterator[Path]:
    """Folders that may be laid out as a dataset: those that hold the split that a path lies in,
    then those that hold a split or a folder of normal data; the nearest first."""
    folders = [path, *list(path.parents)[:MAX_PARENTS]]
    yield from (folder.parent for folder in folders if pool_of(folder.name))
    for folder in folders:
        if folder.is_dir() and any(
            meaning_of(child.name) in (*POOLS, "normal") for child in list_directory(folder)
        ):
            yield folder


def _files(
    dataset: FileDataset, cases: Sequence[Case], base: Path, prefix: str
) -> Iterator[NewFile]:
    """The files that cases are read from, in their order; base: what names are relative to."""
    by_path: dict[Path, list[Case]] = {}
    for case in cases:
        by_path.setdefault(next(iter(case.files.values())), []).append(case)
    for path, parts in by_path.items():
        absolute = path.absolute()
        inside = absolute.is_relative_to(base)
        name = prefix + (absolute.relative_to(base).as_posix() if inside else path.name)
        kind = "volume" if is_nifti(path.name) else "arrays"
        if isinstance(dataset, ImageDataset):
            kind = "picture"
        folder, slash, last = name.rpartition("/")
        stem = nifti_stem(last) if is_nifti(last) else last.rpartition(".")[0] or last
        yield NewFile(name, folder + slash + stem, kind, path, tuple(parts))


def _with_distinct_outputs(files: Sequence[NewFile], problems: list[Problem]) -> list[NewFile]:
    """The files, each with an output of its own: those that share one keep their ending in it."""
    counts = Counter(file.output for file in files)
    distinct: dict[str, NewFile] = {}
    for file in files:
        output = file.output if counts[file.output] == 1 else file.name
        if output in distinct:
            reason = f"{file.path} and {distinct[output].path} have one name: predict one elsewhere"
            problems.append(Problem(file.name, reason))
        else:
            distinct[output] = replace(file, output=output)
    return list(distinct.values())


def read_samples(dataset: FileDataset, case: Case) -> tuple[list[Sample], list[str]]:
    """The samples of a case as the dataset reads its own, and notes on them.

    Raises DataError, in one line, where it cannot be read or does not fit the detector.

    >>> from PIL import Image
    >>> from adbench.benchmark.prediction.inputs import read_samples
    >>> from adbench.datasets.folder import Folder
    >>> Image.new("L", (16, 16), 90).save("flat.png")
    >>> case = Case("flat.png", "flat.png", {"image": Path("flat.png")}, label=False)
    >>> samples, notes = read_samples(Folder(size=8, channels=1), case)
    >>> tuple(samples[0].x.shape), notes
    ((1, 8, 8), ['flat.png holds one value only: it becomes zeros'])
    """
    try:
        outcome = dataset.read(case)
    except DataError as error:
        raise DataError(_one_line(error)) from error
    except Exception as error:  # whatever a library makes of a damaged file
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise DataError(f"{case.name} cannot be read ({reason})") from error
    expected = (dataset.spec.channels, *dataset.spec.shape)
    for sample in outcome.samples:
        if tuple(sample.x.shape) != expected:
            size = tuple(sample.x.shape)
            raise DataError(f"{case.name} has samples of {size}, the detector takes {expected}")
    if not outcome.samples:
        raise DataError(f"{case.name} holds nothing to predict: too little of it is not zero")
    counts = [f"{text}: {count}" for text, count in outcome.counts.items() if count]
    notes = [note.partition(", and no method")[0] for note in outcome.notes]
    return list(outcome.samples), [*notes, *counts]


def _one_line(error: DataError) -> str:
    return "; ".join(dict.fromkeys(error.problems)) or error.summary


def _named(problems: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Problems of a dataset's index, which begin with the name of a file."""
    for problem in problems:
        name = problem.partition(" ")[0].rstrip(":")
        yield name, problem
