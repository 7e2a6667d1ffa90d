"""Base class of datasets that lie in files: index the cases, read and check each once, store them.

All datasets share this code, so that a dataset's own file says only where its files lie and how a
case is read. A case is what is read together: a patient's volumes, an image and its mask, a frame
of a recording.
"""

from __future__ import annotations

import inspect
import os
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..base import (
    DataError,
    LeftOutFiles,
    Progress,
    VerificationReport,
    first_names,
    merge_equal,
    no_progress,
)
from ..io.file_hashes import FileDigests, hash_files, modification_stamp
from ..io.hdf5_arrays import Array
from ..io.value_range import measure_range, parse_range
from ..splits.assignment import Case, groups_in_several_splits
from .case_tally import CaseTally, describe_folders, part_of, resizing_notes
from .cases import CaseSamples, DatasetIndex, read_ahead
from .copied_files import find_copies
from .left_out import UNKNOWN, UNREAD, find_left_out, may_be_data
from .prepared_dataset import PreparedDataset
from .prepared_file import prepare_once, read_notes
from .writer import SampleWriter


class FileDataset(PreparedDataset):
    """Base class of file datasets; a subclass defines `build_index`, `read` and `assign_splits`.

    Its constructor keeps every argument as an attribute of the same name, and sets `spec` there or
    in `build_index`.

    >>> from tempfile import TemporaryDirectory
    >>> from adbench.datasets.folder import Folder
    >>> with TemporaryDirectory() as root:
    ...     Path(root, "folder").mkdir()
    ...     Folder(root=root).find_root().name  # below root, what is called like the dataset
    'folder'
    """

    name: ClassVar[str]
    """As in the registry: for errors and file names."""

    expected: ClassVar[str]
    """The files of one case, as an error shows them."""

    preparation_version: ClassVar[int] = 1
    """Count up when the same files and arguments give other samples."""

    mask_roles: ClassVar[frozenset[str]] = frozenset({"mask", "seg"})
    """Roles of files that say where a case is abnormal."""

    new_file_suffixes: ClassVar[tuple[str, ...]] = ()
    """Endings of the new files that `find_new_cases` searches a folder for; none where they are
    told by the dataset's layout."""

    volume_grid: ClassVar[Literal["display", "stored"] | None] = None
    """How samples of NIfTI volumes lie: "display" as `to_display_planes` and `to_display_axes` turn
    them, "stored" as in the file. Planes are cut and resized by `select_slices`, volumes by
    `crop_and_resize`, so that their maps can be put back; None where they cannot."""

    root: str | None
    seed: int = 0
    leaky: bool = False
    """Whether groups and copied images may be in two splits, as in some published ones."""

    range: list[float] | str | None = None
    """Stored numbers that become 0 and 1, or "train"; None takes them by the range of their type.
    A subclass with this constructor argument calls `_set_range`."""

    _limits: tuple[float, float] | None = None
    _prepared_path: Path | None = None

    @abstractmethod
    def build_index(self, root: Path) -> DatasetIndex:
        """Return every case under root. Reads names and headers, no voxels."""

    @abstractmethod
    def read(self, case: Case) -> CaseSamples:
        """Return the samples of a case. Several threads call it at once.

        Raises DataError with everything that is wrong with the case.
        """

    def find_new_cases(self, path: Path) -> DatasetIndex:
        """Return the cases of new files, of which nothing is known but their images.

        path: a file, or a folder that is searched for files. A dataset whose files cannot be told
            without its layout takes a folder that is laid out as its own.

        Raises DataError where nothing can be read as a case.
        """
        if not path.is_dir():
            raise DataError(
                f"{path.name} cannot be read alone: dataset '{self.name}' takes a folder with "
                f"{self.expected}"
            )
        index = self.build_index(path)
        return replace(index, cases=[self.without_masks(case) for case in index.cases])

    def without_masks(self, case: Case) -> Case:
        """Return a case as if nobody had looked at it: without mask, and not called abnormal.

        case: of this dataset
        """
        files = {role: path for role, path in case.files.items() if role not in self.mask_roles}
        return replace(case, files=files, label=False)

    def preprocessing_state(self) -> dict[str, Any]:
        state = super().preprocessing_state()
        if self.range == "train" and self._limits is None:
            cases = self.build_index(self.find_root()).cases
            values = self._training_values(cases, self.assign_splits(cases))
            self._limits = measure_range(values, self.name)
        return state if self._limits is None else {**state, "limits": list(self._limits)}

    def restore_preprocessing(self, state: Mapping[str, Any]) -> None:
        super().restore_preprocessing(state)
        if "limits" in state:
            low, high = state["limits"]
            self._limits = low, high

    @abstractmethod
    def assign_splits(self, cases: Sequence[Case]) -> Mapping[str, str]:
        """Return the split of every case by its name; cases left out have no entry."""

    def prepared_file(self, progress: Progress = no_progress) -> Path:
        if self._prepared_path is None:
            index, digests, split_of = self._index_and_assign(progress)

            def write(writer: SampleWriter) -> Sequence[str]:
                report = self._read_cases(index, digests, split_of, writer, progress)
                if report.problems:
                    summary = f"{report.bad_cases} of {len(index.cases)} cases are unusable"
                    summary = summary if report.bad_cases else "these data cannot be split"
                    raise DataError(f"{summary}. {self._repair_advice()}", report.problems)
                left_out = self._find_left_out(index, split_of)[1]
                return merge_equal(
                    [
                        *report.notes,
                        *resizing_notes(report.statistics),
                        *(self._left_out_note(files) for files in left_out if may_be_data(files)),
                    ]
                )

            self._prepared_path = prepare_once(
                self.name,
                lambda: self._cache_key_inputs(index.cases, digests),
                write,
                spec=self.spec,
                leaky=self.leaky,
            )
            for note in read_notes(self._prepared_path):
                warnings.warn(note, stacklevel=2)
        return self._prepared_path

    def verify(self, progress: Progress = no_progress) -> VerificationReport:
        """Read every file completely, whether prepared or not, and return all problems.

        progress: called with (task, done, total). Nothing is cached
        """
        index, split_of, unknown = DatasetIndex([]), dict[str, str](), UNKNOWN
        try:
            index, digests, assigned = self._index_and_assign(progress)
            split_of = dict(assigned)
            report = self._read_cases(index, digests, split_of, None, progress)
        except DataError as error:
            problems, notes = (error.summary,), ()
            if error.problems:  # the summary is what all of them mean
                problems, notes = error.problems, problems
            report = VerificationReport(problems, notes, {}, 1)
            unknown = UNREAD
        try:
            files_read, left_out = self._find_left_out(index, split_of, report.problems, unknown)
        except DataError:  # there is no root
            return report
        folders = describe_folders([c for c in index.cases if c.name in split_of])
        return replace(report, files_read=files_read, folders=folders, left_out=left_out)

    def _find_left_out(
        self,
        index: DatasetIndex,
        split_of: Mapping[str, str],
        problems: Sequence[str] = (),
        unknown: str = UNKNOWN,
    ) -> tuple[int, list[LeftOutFiles]]:
        """Return how many files were read, and all others below the root by reason."""
        used = {path for c in index.cases if c.name in split_of for path in c.paths}
        used |= {os.fspath(path) for path in index.tables}
        others = (path for c in index.cases for path in c.paths if path not in used)
        reasons = {**dict.fromkeys(others, "its case is in no split"), **index.left_out}
        left_out = find_left_out(
            self.find_root(), used, reasons=reasons, problems=problems, unknown=unknown
        )
        return len(used), left_out

    def _left_out_note(self, files: LeftOutFiles) -> str:
        names = first_names(files.names, 3)
        return f"left out: {names} ({files.reason}; adbench data verify {self.name} names all)"

    def find_root(self) -> Path:
        """Return the data folder (or file), or its subfolder of this dataset's name.

        Raises DataError that says what is expected, if there is none.
        """
        location = self.root or os.environ.get("ADBENCH_DATA")
        if not location:
            reason = "ADBENCH_DATA is not set and --data was not given"
            raise DataError(
                f"dataset '{self.name}' found no data: {reason}.", [self._expected_text()]
            )
        root = Path(location).expanduser()
        if not root.exists():
            raise self.no_data_error(f"{root} is not there")
        subfolder = root / self.name
        return subfolder if subfolder.is_dir() else root

    def no_data_error(self, why: str) -> DataError:
        """Return the error for a root that holds nothing of what is expected.

        reason: why, without a full stop
        """
        return DataError(f"dataset '{self.name}' found no data: {why}.", [self._expected_text()])

    def _expected_text(self) -> str:
        return f"Expected {self.expected}   (adbench info {self.name})"

    def _index_and_assign(
        self, progress: Progress
    ) -> tuple[DatasetIndex, FileDigests, Mapping[str, str]]:
        root = self.find_root()
        try:
            index = self.build_index(root)
        except OSError as error:
            raise DataError(f"{error.filename or root} cannot be read ({error.strerror})") from None
        undecodable = index.undecodable_names(root)
        if undecodable:
            raise self._unusable(
                [*index.problems, *(p for p in undecodable if p not in index.problems)]
            )
        if not index.cases and not index.problems:
            error = self.no_data_error(f"nothing of the kind lies under {root}")
            left_out = find_left_out(root, (), reasons=index.left_out)
            there = [f"there are {files.count} files: {files.reason}" for files in left_out]
            raise DataError(error.summary, [*error.problems, *there])
        paths = list(dict.fromkeys(p for case in index.cases for p in case.paths))
        unreadable = [f"{path} cannot be read" for path in paths if not os.access(path, os.R_OK)]
        if unreadable:
            raise self._unusable([*index.problems, *unreadable])
        stamps = [modification_stamp(Path(path)) for path in paths]
        digests = self._digests = FileDigests(paths, stamps, hash_files(paths, progress))
        del paths, stamps
        split_of = self.assign_splits(index.cases)
        return index, digests, split_of

    def _unusable(self, problems: Sequence[str]) -> DataError:
        count = "1 file is" if len(problems) == 1 else f"{len(problems)} files are"
        return DataError(f"{count} unusable. {self._repair_advice()}", problems)

    def _set_range(self, value: str | Sequence[float] | None) -> None:
        self.range = parse_range(value)
        if isinstance(self.range, list):
            self._limits = self.range[0], self.range[1]

    def _training_values(
        self, cases: Sequence[Case], split_of: Mapping[str, str]
    ) -> Iterator[Array]:
        """Yield the stored numbers of every readable normal training sample, for range="train".

        Only datasets whose constructor takes a `range` are asked, and they define it.
        """
        raise NotImplementedError

    def _cache_key_inputs(
        self, cases: Sequence[Case], digests: Mapping[Path, str]
    ) -> dict[str, object]:
        arguments = set(inspect.signature(type(self)).parameters) - self.cache_key_ignores
        return {
            "recipe": self.preparation_version,
            "arguments": {name: getattr(self, name) for name in sorted(arguments)},
            "cases": {
                case.name: [
                    case.group,
                    case.pool,
                    case.label,
                    dict(case.extra),
                    {role: digests[path] for role, path in case.files.items()},
                ]
                for case in cases
            },
        }

    def _read_cases(
        self,
        index: DatasetIndex,
        digests: Mapping[Path, str],
        split_of: Mapping[str, str],
        writer: SampleWriter | None,
        progress: Progress,
    ) -> VerificationReport:
        """Read and check every case, and add its samples to the writer, if there is one.

        The first bad case ends the adding but not the checking: the report lists all problems at
        once.
        """
        if self.range == "train":
            self._limits = measure_range(self._training_values(index.cases, split_of), self.name)
        copy_problems, copy_notes = self._find_copies(index.cases, digests, split_of)
        tally = CaseTally(
            [
                *index.problems,
                *copy_problems,
                *self._shared_group_problems(index.cases, split_of),
            ],
            [*index.notes, *copy_notes],
        )
        remaining = [
            case for case in index.cases if writer is None or not writer.has_unit(case.name)
        ]
        done = len(index.cases) - len(remaining)
        for case, outcome in read_ahead(remaining, self._read_checked):
            done += 1
            progress("checking and reading", done, len(index.cases))
            if isinstance(outcome, DataError):
                tally.add_error(outcome)
                continue
            tally.add(outcome)
            for sample in outcome.samples:
                part = part_of(split_of.get(case.name), sample.label, outcome.trainable)
                if part is not None:
                    tally.count(part, sample.label)
                    if writer is not None and not tally.bad_cases:
                        writer.add(part, sample)
            if writer is not None and not tally.bad_cases:
                writer.finish_unit(case.name)
        if not tally.bad_cases and len(remaining) == len(index.cases):
            tally.check_splits(self._empty_split_hint)
        takes_range = "range" in inspect.signature(type(self)).parameters
        return tally.report(self.name, takes_range=takes_range)

    def _empty_split_hint(self, part: str) -> str:
        kind = "test" if part == "test" else "normal training"
        return f": there are too few {kind} cases to split (a group stays whole)"

    def _shared_group_problems(
        self, cases: Sequence[Case], split_of: Mapping[str, str]
    ) -> list[str]:
        """Return a problem for each group in two splits, unless the dataset was published so."""
        shared = {} if self.leaky else groups_in_several_splits(cases, split_of)
        return [
            f"{group} is in {' and '.join(sorted(splits))}: a group belongs to one split"
            for group, splits in shared.items()
        ]

    def _repair_advice(self) -> str:
        return (
            "Nothing was cached. Repair, replace or remove them and run again. "
            f"(adbench info {self.name})"
        )

    def _read_checked(self, case: Case) -> CaseSamples | DataError:
        try:
            outcome = self.read(case)
            changed = [path for path in case.files.values() if self._digests.has_changed(path)]
        except DataError as error:
            return error
        except Exception as error:  # whatever a library makes of a damaged file
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            return DataError(f"{case.name} cannot be read ({reason})")
        if changed:
            return DataError(f"{case.name}: {changed[0].name} has changed since it was first read")
        return outcome

    def _find_copies(
        self, cases: Iterable[Case], digests: Mapping[Path, str], split_of: Mapping[str, str]
    ) -> tuple[list[str], list[str]]:
        """Return byte-identical files of two cases: problems across splits, notes within one."""
        allowed = self.leaky
        return find_copies(cases, digests, split_of, self.unique_roles, across_splits=allowed)

    unique_roles: frozenset[str] = frozenset({"image"})
    """Roles whose files no two cases may share."""
