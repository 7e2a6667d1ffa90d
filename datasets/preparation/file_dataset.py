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
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, Literal

from ..base import (
    DataError,
    LeftOutFiles,
    Progress,
    Sample,
    SampleStatistics,
    VerificationReport,
    first_names,
    merge_equal,
    no_progress,
)
from ..io.directories import is_utf8, undecodable_name_text
from ..io.file_hashes import FileDigests, hash_files, modification_stamp
from ..io.hdf5_arrays import Array
from ..io.value_range import measure_range, parse_range
from ..splits.assignment import Case, groups_in_several_splits
from .left_out import UNKNOWN, UNREAD, find_left_out, may_be_data
from .prepared_dataset import PreparedDataset
from .prepared_file import prepare_once, read_notes
from .writer import SampleWriter

NARROW_RANGE = 0.13
"""Width of all values of a dataset, of 0 to 1; a note warns up to it: 13 bits in 16 are 0.125."""

SPLITS = ("train", "held_out", "val", "test")

MAX_MASK_AREA_CHANGE = 0.3
"""Share of a mask's area; a note warns if resizing adds or removes more."""


@dataclass(frozen=True)
class DatasetIndex:
    """The cases found under a root.

    cases: every case
    problems: errors of the folder layout, one line each
    notes: other information for the user
    tables: files that were read and belong to no case, such as lists of splits
    left_out: files and folders that the dataset passes over on purpose, and why

    >>> DatasetIndex(cases=[]).problems
    ()
    """

    cases: Sequence[Case]
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    tables: Sequence[Path] = ()
    left_out: Mapping[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CaseSamples:
    """The samples of one case.

    samples: in a fixed order
    notes: information for the user
    trainable: false where no method may train on them (a constant image)
    counts: numbers that are summed over all cases, such as slices left out, by their description
    stored_shape: of the case's files, such as "256 x 256 RGB"
    mask_area_ratios: of each abnormal sample, the area of its mask relative to the stored one

    >>> CaseSamples(samples=[], counts={"slices left out": 2}).trainable
    True
    """

    samples: Sequence[Sample]
    notes: Sequence[str] = ()
    trainable: bool = True
    counts: Mapping[str, int] = field(default_factory=dict)
    stored_shape: str = ""
    mask_area_ratios: Sequence[float] = ()


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
                        *_resizing_notes(report.statistics),
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
        folders = _describe_folders([c for c in index.cases if c.name in split_of])
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
        undecodable = _undecodable_names(index.cases, root)
        if undecodable:
            problems = [*index.problems, *(p for p in undecodable if p not in index.problems)]
            raise DataError(
                f"{_file_count_text(len(problems))} unusable. {self._repair_advice()}", problems
            )
        if not index.cases and not index.problems:
            error = self.no_data_error(f"nothing of the kind lies under {root}")
            left_out = find_left_out(root, (), reasons=index.left_out)
            there = [f"there are {files.count} files: {files.reason}" for files in left_out]
            raise DataError(error.summary, [*error.problems, *there])
        paths = list(dict.fromkeys(p for case in index.cases for p in case.paths))
        unreadable = [f"{path} cannot be read" for path in paths if not os.access(path, os.R_OK)]
        if unreadable:
            problems = [*index.problems, *unreadable]
            raise DataError(
                f"{_file_count_text(len(problems))} unusable. {self._repair_advice()}", problems
            )
        stamps = [modification_stamp(Path(path)) for path in paths]
        digests = self._digests = FileDigests(paths, stamps, hash_files(paths, progress))
        del paths, stamps
        split_of = self.assign_splits(index.cases)
        return index, digests, split_of

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
        problems = [
            *index.problems,
            *copy_problems,
            *self._shared_group_problems(index.cases, split_of),
        ]
        notes = [*index.notes, *copy_notes]
        samples, counts, bad_cases = Counter[str](), Counter[str](), len(problems)
        statistics: SampleStatistics | None = None
        area_ratios: list[float] = []
        abnormal_shares: list[float] = []
        labels_of_test = set[bool]()
        remaining = [
            case for case in index.cases if writer is None or not writer.has_unit(case.name)
        ]
        done = len(index.cases) - len(remaining)
        for case, outcome in self._read_ahead(remaining):
            done += 1
            progress("checking and reading", done, len(index.cases))
            if isinstance(outcome, DataError):
                problems += outcome.problems or (outcome.summary,)
                bad_cases += 1
                continue
            notes += outcome.notes
            counts.update(outcome.counts)
            area_ratios += outcome.mask_area_ratios
            shapes = {outcome.stored_shape: 1} if outcome.stored_shape else {}
            of_case = SampleStatistics.of(outcome.samples)
            if of_case is not None:
                of_case = replace(of_case, stored_shapes=shapes)
                statistics = of_case if statistics is None else statistics.joined(of_case)
            abnormal_shares += _abnormal_shares(outcome.samples)
            for sample in outcome.samples:
                part = _part_of(split_of.get(case.name), sample.label, outcome.trainable)
                if part is not None:
                    samples[part] += 1
                    if part == "test":
                        labels_of_test.add(bool(sample.label))
                    if writer is not None and not bad_cases:
                        writer.add(part, sample)
            if writer is not None and not bad_cases:
                writer.finish_unit(case.name)
        if not bad_cases and len(remaining) == len(index.cases):
            empty_splits = [part for part in ("train", "held_out", "test") if not samples[part]]
            problems += [
                f"no sample is left for {part}{self._empty_split_hint(part)}"
                for part in empty_splits
            ]
            if len(labels_of_test) == 1:
                kind = "abnormal" if labels_of_test == {True} else "normal"
                notes.append(f"test holds {kind} samples alone: no detector can be judged on them")
        notes += [f"{count_name}: {count}" for count_name, count in counts.items() if count]
        notes += self._mask_area_notes(area_ratios)
        notes += _large_mask_notes(abnormal_shares)
        notes += self._narrow_range_notes(statistics)
        return VerificationReport(
            problems,
            _truncate_notes(notes),
            dict(samples),
            bad_cases,
            statistics=statistics,
        )

    def _mask_area_notes(self, ratios: Sequence[float]) -> list[str]:
        """Return a warning if resizing changes the area of masks much."""
        changed = [r for r in ratios if abs(r - 1) > MAX_MASK_AREA_CHANGE]
        if not changed:
            return []
        low, high = f"{min(changed):.2g}", f"{max(changed):.2g}"
        times = low if low == high else f"between {low} and {high}"
        return [
            f"masks change their area by more than {100 * MAX_MASK_AREA_CHANGE:.0f} % in "
            f"{len(changed)} of {len(ratios)} abnormal samples (to {times} times of it): a larger "
            f"size keeps more (--set {self.name}.size=...)"
        ]

    def _narrow_range_notes(self, statistics: SampleStatistics | None) -> list[str]:
        """Return a warning if all values lie close together, as 12 bits stored in 16 do."""
        if statistics is None or "range" not in inspect.signature(type(self)).parameters:
            return []
        if statistics.high - statistics.low > NARROW_RANGE:
            return []
        return [
            f"all values lie in {statistics.low:.3g} to {statistics.high:.3g} of 0 to 1, as 12 "
            f"bits in 16 do: --set {self.name}.range=train, or range=LOW,HIGH, uses all of it"
        ]

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

    def _read_ahead(self, cases: Sequence[Case]) -> Iterator[tuple[Case, CaseSamples | DataError]]:
        """Yield every case with its samples or its error, in order; threads read ahead."""
        workers = min(os.cpu_count() or 1, 8)
        pending: deque[tuple[Case, Future[CaseSamples | DataError]]] = deque()
        with ThreadPoolExecutor(workers) as pool:
            for case in cases:
                pending.append((case, pool.submit(self._read_checked, case)))
                if len(pending) > workers:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()

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
        seen, repeated = set[bytes](), set[bytes]()
        for _, _, digest in self._unique_files(cases, digests, split_of):
            (repeated if digest in seen else seen).add(digest)
        del seen
        owners: dict[bytes, list[tuple[Case, Path]]] = defaultdict(list)
        for case, path, digest in self._unique_files(cases, digests, split_of) if repeated else ():
            if digest in repeated:
                owners[digest].append((case, path))
        problems, notes = [], []
        for copies in owners.values():
            (first, path), *later_copies = copies
            for case, other_path in later_copies:
                if other_path == path:
                    continue
                finding = f"{case.name}: {other_path.name} is a copy of {first.name}: {path.name}"
                in_two_splits = split_of[case.name] != split_of[first.name]
                splits_text = (
                    f" ({split_of[first.name]} and {split_of[case.name]})" if in_two_splits else ""
                )
                (problems if in_two_splits and not self.leaky else notes).append(
                    finding + splits_text
                )
        return problems, notes

    def _unique_files(
        self, cases: Iterable[Case], digests: Mapping[Path, str], split_of: Mapping[str, str]
    ) -> Iterator[tuple[Case, Path, bytes]]:
        """Yield the files that no two cases may share, with what tells their contents apart."""
        for case in cases:
            for role, path in case.files.items():
                if role in self.unique_roles and case.name in split_of:
                    yield case, path, digests[path].encode()

    unique_roles: frozenset[str] = frozenset({"image"})
    """Roles whose files no two cases may share."""


def _describe_folders(cases: Sequence[Case]) -> dict[str, int]:
    """Return how many cases each folder holds, by its last two names and the label of its cases."""
    labels = {None: "labelled by its masks", False: "normal", True: "abnormal"}
    return dict(
        Counter(
            f"{'/'.join(next(iter(case.files.values())).parent.parts[-2:])} as {labels[case.label]}"
            for case in cases
            if case.files
        )
    )


def _resizing_notes(statistics: SampleStatistics | None) -> list[str]:
    """Return a note if images are resized or converted (slices of volumes always are)."""
    text = "" if statistics is None else statistics.stored_text()
    stored, _, prepared = text.partition(" -> ")
    is_image = stored.count(" x ") == prepared.count(" x ") == 1
    return [f"images are resized or converted: {text}"] if is_image and stored != prepared else []


def _part_of(split: str | None, label: bool, train: bool) -> str | None:
    """Return the part of the prepared file that a sample belongs to, or None."""
    if split is None or split in ("val", "test"):
        return split
    if not train or (label and split == "held_out"):
        return None
    return "train-abnormal" if label else split


def _undecodable_names(cases: Iterable[Case], root: Path) -> list[str]:
    """Return a problem for each file below root whose name no cache key or record can hold."""
    names = (os.path.relpath(path, root) for case in cases for path in case.paths)
    return [
        undecodable_name_text(name) for name in dict.fromkeys(n for n in names if not is_utf8(n))
    ]


def _file_count_text(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _abnormal_shares(samples: Sequence[Sample]) -> list[float]:
    """The share of pixels that the mask of each abnormal sample marks."""
    return [
        float(sample.mask.numpy().mean())  # torch would wake its threads for this
        for sample in samples
        if sample.label and sample.mask is not None
    ]


def _large_mask_notes(shares: Sequence[float]) -> list[str]:
    """Return a warning if most masks mark most of their image: they may be drawn the other way."""
    large = sum(share > 0.5 for share in shares)
    if 2 * large <= len(shares):
        return []
    return [
        f"masks mark more than half of the pixels in {large} of {len(shares)} abnormal samples "
        f"({100 * median(shares):.0f} % at the median): if 0 is the anomaly in them, invert them"
    ]


def _truncate_notes(notes: Sequence[str], max_notes: int = 20) -> list[str]:
    notes = merge_equal(notes) if len(notes) > max_notes else notes
    more = len(notes) - max_notes
    return [*notes[:max_notes], f"and {more} more such notes"] if more > 0 else list(notes)
