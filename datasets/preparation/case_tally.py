"""What reading the cases of a dataset found: problems, notes, statistics and numbers of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from ..base import DataError, Sample, SampleStatistics, VerificationReport, merge_equal
from ..splits.assignment import Case
from .cases import CaseSamples

PARTS = ("train", "train-abnormal", "held_out", "val", "test")
"""All that `part_of` returns, in the order in which a report names them."""

MAX_MASK_AREA_CHANGE = 0.3
"""Share of a mask's area; a note warns if resizing adds or removes more."""

NARROW_RANGE = 0.13
"""Width of all values of a dataset, of 0 to 1; a note warns up to it: 13 bits in 16 are 0.125."""


class CaseTally:
    """The result of checking all of a dataset, counted up case by case.

    problems: known before a case was read, each of a case of its own
    notes: known before

    >>> from adbench.datasets.preparation.case_tally import CaseTally
    >>> tally = CaseTally([], [])
    >>> tally.count("test", True)
    >>> report = tally.report("folder")
    >>> report.samples, report.problems
    ({'test': 1}, [])
    """

    def __init__(self, problems: Sequence[str], notes: Sequence[str]) -> None:
        self.bad_cases = len(problems)
        """How many cases cannot be read."""
        self._problems, self._notes = list(problems), list(notes)
        self._samples, self._counts = Counter[str](), Counter[str]()
        self._statistics: SampleStatistics | None = None
        self._area_ratios = list[float]()
        self._abnormal_shares = list[float]()
        self._labels_of_test = set[bool]()

    def add_error(self, error: DataError) -> None:
        """Count a case that cannot be read."""
        self._problems += error.problems or (error.summary,)
        self.bad_cases += 1

    def add(self, case: CaseSamples) -> None:
        """Count what was read of a case, but not its samples."""
        self._notes += case.notes
        self._counts.update(case.counts)
        self._area_ratios += case.mask_area_ratios
        self._abnormal_shares += _abnormal_shares(case.samples)
        shapes = {case.stored_shape: 1} if case.stored_shape else {}
        of_case = SampleStatistics.of(case.samples)
        if of_case is not None:
            of_case = replace(of_case, stored_shapes=shapes)
            statistics = self._statistics
            self._statistics = of_case if statistics is None else statistics.joined(of_case)

    def count(self, part: str, label: bool) -> None:
        """Count a sample of a part of the prepared file."""
        self._samples[part] += 1
        if part == "test":
            self._labels_of_test.add(bool(label))

    def check_splits(self, hint: Callable[[str], str]) -> None:
        """Look for splits without samples, and for a test split of one kind, when all is counted.

        hint: what to do about an empty split, by its name
        """
        empty_splits = [part for part in ("train", "held_out", "test") if not self._samples[part]]
        self._problems += [f"no sample is left for {part}{hint(part)}" for part in empty_splits]
        if len(self._labels_of_test) == 1:
            kind = "abnormal" if self._labels_of_test == {True} else "normal"
            self._notes.append(
                f"test holds {kind} samples alone: no detector can be judged on them"
            )

    def report(self, name: str, *, takes_range: bool = False) -> VerificationReport:
        """Return all of it.

        name: of the dataset, for a setting that a note advises
        takes_range: whether `range` is one of its settings
        """
        counts = self._counts.items()
        notes = [*self._notes, *(f"{text}: {count}" for text, count in counts if count)]
        notes += _mask_area_notes(self._area_ratios, name)
        notes += _large_mask_notes(self._abnormal_shares)
        if takes_range:
            notes += _narrow_range_notes(self._statistics, name)
        return VerificationReport(
            self._problems,
            _truncate_notes(notes),
            {part: self._samples[part] for part in PARTS if part in self._samples},
            self.bad_cases,
            statistics=self._statistics,
        )


def part_of(split: str | None, label: bool, train: bool) -> str | None:
    """Return the part of the prepared file that a sample belongs to, or None.

    split: of its case; None of a case that is left out
    label: whether it is abnormal
    train: whether a method may train on it

    >>> from adbench.datasets.preparation.case_tally import part_of
    >>> part_of("train", True, True)
    'train-abnormal'
    """
    if split is None or split in ("val", "test"):
        return split
    if not train or (label and split == "held_out"):
        return None
    return "train-abnormal" if label else split


def describe_folders(cases: Sequence[Case]) -> dict[str, int]:
    """Return how many cases each folder holds, by its last two names and the label of its cases.

    >>> from pathlib import Path
    >>> from adbench.datasets.preparation.case_tally import describe_folders
    >>> from adbench.datasets.splits.assignment import Case
    >>> describe_folders([Case("a", "a", {"image": Path("data/test/bad/a.png")}, label=True)])
    {'test/bad as abnormal': 1}
    """
    labels = {None: "labelled by its masks", False: "normal", True: "abnormal"}
    return dict(
        Counter(
            f"{'/'.join(next(iter(case.files.values())).parent.parts[-2:])} as {labels[case.label]}"
            for case in cases
            if case.files
        )
    )


def resizing_notes(statistics: SampleStatistics | None) -> list[str]:
    """Return a note if images are resized or converted (slices of volumes always are).

    statistics: of the dataset; None if none could be read

    >>> from adbench.datasets.base import SampleStatistics
    >>> from adbench.datasets.preparation.case_tally import resizing_notes
    >>> stored = {"96 x 96 RGB": 8}
    >>> resizing_notes(SampleStatistics((1, 32, 32), "float32", 0.0, 1.0, None, stored))
    ['images are resized or converted: 96 x 96 RGB -> 32 x 32 gray']
    """
    text = "" if statistics is None else statistics.stored_text()
    stored, _, prepared = text.partition(" -> ")
    is_image = stored.count(" x ") == prepared.count(" x ") == 1
    return [f"images are resized or converted: {text}"] if is_image and stored != prepared else []


def _mask_area_notes(ratios: Sequence[float], name: str) -> list[str]:
    """Return a warning if resizing changes the area of masks much."""
    changed = [r for r in ratios if abs(r - 1) > MAX_MASK_AREA_CHANGE]
    if not changed:
        return []
    low, high = f"{min(changed):.2g}", f"{max(changed):.2g}"
    times = low if low == high else f"between {low} and {high}"
    return [
        f"masks change their area by more than {100 * MAX_MASK_AREA_CHANGE:.0f} % in "
        f"{len(changed)} of {len(ratios)} abnormal samples (to {times} times of it): a larger "
        f"size keeps more (--set {name}.size=...)"
    ]


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


def _narrow_range_notes(statistics: SampleStatistics | None, name: str) -> list[str]:
    """Return a warning if all values lie close together, as 12 bits stored in 16 do."""
    if statistics is None or statistics.high - statistics.low > NARROW_RANGE:
        return []
    return [
        f"all values lie in {statistics.low:.3g} to {statistics.high:.3g} of 0 to 1, as 12 bits in "
        f"16 do: --set {name}.range=train, or range=LOW,HIGH, uses all of it"
    ]


def _truncate_notes(notes: Sequence[str], max_notes: int = 20) -> list[str]:
    notes = merge_equal(notes) if len(notes) > max_notes else notes
    more = len(notes) - max_notes
    return [*notes[:max_notes], f"and {more} more such notes"] if more > 0 else list(notes)
