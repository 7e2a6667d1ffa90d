"""Audit the splits of a dataset: leaks between them, and simple statistics that reveal the label.

Every sample is read once and reduced to a SampleSummary; only pairs that may be copies are read
again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from ...datasets.base import Dataset, Progress, Sample, Split, manifest, no_progress
from ..evaluation.metrics.ranking import image_metrics
from ..evaluation.statistics.bootstrap import (
    Resamples,
    bootstrap_image_metrics,
    percentile_interval,
)
from .near_duplicates import (
    NearestNeighbours,
    find_near_duplicates,
    nearest_neighbours,
    normalize_thumbnails,
)
from .sample_summary import Array, SampleSummary, summarize

Severity = Literal["leak", "confound", "note"]

SPLITS = ("train", "train-abnormal", "calibration", "val", "test")
"""In the order of reading; the second is what train(labelled=True) adds, and counts as train."""

MAX_NAMED = 5
MIN_EFFECT, MIN_AUROC = 0.2, 0.9
"""A cue is a confound if the whole interval of its AUROC is farther from 0.5 than MIN_EFFECT, or if
its AUROC is at least MIN_AUROC (or at most 1 - MIN_AUROC) and its interval does not hold 0.5."""

MAX_NEIGHBOUR_STEP, MIN_DISTANT_STEP, MAX_DISTANCE_RATIO, MIN_DISTANT_PAIRS = 2, 6, 0.5, 4
"""Samples whose names differ in their last number only, by up to MAX_NEIGHBOUR_STEP, may be
neighbouring slices. They are if their distance is at most MAX_DISTANCE_RATIO times that of samples
whose numbers differ by more than MIN_DISTANT_STEP (for numbered patients it is not); with fewer
than MIN_DISTANT_PAIRS of those, times that of the nearest of another group."""


@dataclass(frozen=True)
class Finding:
    """Something about the splits that a user should know.

    kind: "subjects", "copies", "almost copies", "neighbours", "abnormal in normal", "cue", "empty"
    ids: the first of the `count` samples or groups that it concerns

    >>> from adbench.benchmark.audit.audit import Finding
    >>> str(Finding("leak", "subjects", "7 subjects in train and test", ("p1", "p2"), 7))
    '7 subjects in train and test: p1, p2, ...'
    """

    severity: Severity
    kind: str
    sentence: str
    ids: tuple[str, ...] = ()
    count: int = 0

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.ids) else ""
        return f"{self.sentence}: {', '.join(self.ids)}{more}" if self.ids else self.sentence


@dataclass(frozen=True)
class Cue:
    """How well one statistic separates the normal and abnormal samples of a split.

    auroc: above 0.5 if abnormal samples have higher values
    low, high: 95 % interval by a bootstrap over groups; None with fewer than five groups

    >>> from adbench.benchmark.audit.audit import Cue
    >>> Cue("test", "noise level", 0.9, 0.8, 0.97).auroc
    0.9
    """

    split: str
    name: str
    auroc: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    findings: leaks first, then confounds, then notes
    samples: the number of normal and abnormal samples, by split

    >>> from adbench.benchmark.audit.audit import Audit
    >>> Audit((), {"test": {"normal": 8, "abnormal": 8}}, ()).findings
    ()
    """

    findings: tuple[Finding, ...]
    samples: Mapping[str, Mapping[str, int]]
    cues: tuple[Cue, ...]


class AuditedSamples:
    """The summaries of all samples, and from which split and index each was read.

    >>> from adbench.benchmark.audit.audit import AuditedSamples
    >>> from adbench.datasets.phantom import Phantom
    >>> audited = AuditedSamples()
    >>> audited.add("test", Phantom(shape=(16, 16), test=1).test(), 0)
    >>> audited.split_name(0)
    'test'
    """

    def __init__(self) -> None:
        self.summaries: list[SampleSummary] = []
        self.parts: list[str] = []
        self._sources: list[tuple[Split, int]] = []

    def add(self, part: str, split: Split, index: int) -> None:
        """Read a sample and keep its summary. part: one of SPLITS"""
        self.summaries.append(summarize(split[index]))
        self.parts.append(part)
        self._sources.append((split, index))

    def read(self, n: int) -> Sample:
        """The n-th sample, read again."""
        split, index = self._sources[n]
        return split[index]

    def split_name(self, n: int) -> str:
        """The split of the n-th sample; labelled training samples belong to train."""
        return self.parts[n].partition("-")[0]

    def split_names(self, rows: Iterable[int]) -> tuple[str, ...]:
        """The splits of several samples, each once, in the order of SPLITS."""
        return tuple(sorted({self.split_name(n) for n in rows}, key=SPLITS.index))

    def in_split(self, part: str) -> list[SampleSummary]:
        """The summaries of one of SPLITS."""
        return [s for s, p in zip(self.summaries, self.parts, strict=True) if p == part]


def audit(dataset: Dataset, *, progress: Progress = no_progress) -> Audit:
    """Audit all splits of a prepared dataset.

    progress: called with what is done, the number done and the number of all

    >>> from adbench.benchmark.audit.audit import audit
    >>> from adbench.datasets.phantom import Phantom
    >>> data = Phantom(shape=(16, 16), train=4, abnormal=1, held_out=2, val=2, test=4)
    >>> audit(data).samples["test"]
    {'normal': 4, 'abnormal': 4}
    """
    audited = _summarize_samples(dataset, progress)
    samples = {part: dict(Counter(map(_label_name, audited.in_split(part)))) for part in SPLITS}
    findings = [
        *_empty_splits(samples),
        *_shared_subjects(audited),
        *_exact_copies(audited),
        *_misplaced_samples(audited),
    ]
    if audited.summaries:
        table = normalize_thumbnails(audited.summaries)
        order = [SPLITS.index(part) - (part == "train-abnormal") for part in audited.parts]
        neighbours = nearest_neighbours(table, audited.summaries, np.array(order), progress)
        findings += _near_copies(audited, neighbours)
        findings += _neighbouring_slices(audited, table, neighbours)
    cues = tuple(_measure_cues(audited))
    findings += _confounds(cues)
    rank: dict[str, int] = {"leak": 0, "confound": 1, "note": 2}
    findings.sort(key=lambda finding: rank[finding.severity])
    return Audit(tuple(findings), samples, cues)


def _summarize_samples(dataset: Dataset, progress: Progress) -> AuditedSamples:
    splits: dict[str, Split] = {
        "train": dataset.train(),
        "calibration": dataset.calibration(),
        "val": dataset.val(),
        "test": dataset.test(),
    }
    audited = AuditedSamples()
    for part, split in splits.items():
        for index in range(len(split)):
            audited.add(part, split, index)
            progress(f"reading {part}", index + 1, len(split))
    if dataset.spec.labels:
        labelled = dataset.train(labelled=True)
        normal = {summary.key for summary in audited.in_split("train")}
        names = manifest(labelled) if hasattr(labelled, "manifest") else None
        for index in range(len(labelled)):
            if (labelled[index].key if names is None else names[index].key) not in normal:
                audited.add("train-abnormal", labelled, index)
            progress("reading labelled train", index + 1, len(labelled))
    return audited


def _label_name(summary: SampleSummary) -> str:
    return "abnormal" if summary.label else "normal"


def _empty_splits(samples: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    for part in ("train", "calibration", "val", "test"):
        if not samples[part]:
            yield Finding("note", "empty", f"{part} is empty")
        elif part in ("val", "test"):
            for label in sorted({"normal", "abnormal"} - set(samples[part])):
                yield Finding("note", "empty", f"{part} has no {label} sample")


def _shared_subjects(audited: AuditedSamples) -> Iterator[Finding]:
    """Groups that are in two splits."""
    rows: dict[str, list[int]] = defaultdict(list)
    for n, summary in enumerate(audited.summaries):
        rows[summary.group].append(n)
    shared: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for group, members in rows.items():
        if len(splits := audited.split_names(members)) > 1:
            shared[splits].append(group)
    for splits, groups in shared.items():
        what = f"{_count_text(groups, 'subject')} in {' and '.join(splits)}"
        yield _finding("leak", "subjects", what, groups)


def _exact_copies(audited: AuditedSamples) -> Iterator[Finding]:
    """Samples that are equal to the last bit."""
    rows: dict[bytes, list[int]] = defaultdict(list)
    for n, summary in enumerate(audited.summaries):
        if summary.digest is not None:
            rows[summary.digest].append(n)
    across: dict[tuple[str, ...], list[str]] = defaultdict(list)
    contradictory, within = [], []
    for members in rows.values():
        splits = audited.split_names(members)
        names = " = ".join(audited.summaries[n].key for n in members[:3])
        if len(splits) > 1:
            across[splits].append(names)
        elif len(members) > 1:
            within.append(names)
        if len({audited.summaries[n].label for n in members}) > 1:
            contradictory.append(names)
    for splits, names in across.items():
        what = f"{_count_text(names, 'sample')} in {' and '.join(splits)}, equal to the last bit"
        yield _finding("leak", "copies", what, names)
    if contradictory:
        what = f"{_count_text(contradictory, 'sample')} labelled normal and, as a copy, abnormal"
        yield _finding("leak", "abnormal in normal", what, contradictory)
    if within:
        what = f"{_count_text(within, 'sample')} more than once in one split"
        yield _finding("note", "copies", what, within)


def _misplaced_samples(audited: AuditedSamples) -> Iterator[Finding]:
    """Abnormal samples in splits of normal ones."""
    for part in ("train", "calibration"):
        summaries = audited.in_split(part)
        labelled = [s.key for s in summaries if s.label]
        marked = [s.key for s in summaries if s.has_marked_mask and not s.label]
        if labelled:
            what = f"{_count_text(labelled, 'sample')} in {part}, which are labelled abnormal"
            yield _finding("leak", "abnormal in normal", what, labelled)
        if marked:
            what = f"{_count_text(marked, 'sample')} in {part}, whose masks mark an anomaly"
            yield _finding("leak", "abnormal in normal", what, marked)


def _near_copies(audited: AuditedSamples, neighbours: NearestNeighbours) -> Iterator[Finding]:
    """Samples that are nearly the same in two splits."""
    pairs, unchecked = find_near_duplicates(neighbours, audited.summaries, audited.read)
    across: dict[tuple[str, ...], list[str]] = defaultdict(list)
    contradictory = []
    for later, earlier, _ in pairs:
        first, second = audited.summaries[earlier], audited.summaries[later]
        names = f"{first.key} ~ {second.key}"
        across[audited.split_names((earlier, later))].append(names)
        if second.label and not first.label:
            contradictory.append(names)
    for splits, names in across.items():
        what = f"{_count_text(names, 'sample')} in {' and '.join(splits)}, almost the same"
        yield _finding("leak", "almost copies", what, names)
    if contradictory:
        count = _count_text(contradictory, "normal sample")
        what = f"{count} almost the same as an abnormal one"
        yield _finding("leak", "abnormal in normal", what, contradictory)
    if unchecked:
        what = f"{unchecked} more pairs look alike at low resolution and were not checked"
        yield Finding("note", "almost copies", what, (), unchecked)


def _neighbouring_slices(
    audited: AuditedSamples, table: Array, neighbours: NearestNeighbours
) -> Iterator[Finding]:
    """Slices next to each other, by their names, that are in two splits and similar."""
    series: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for n, summary in enumerate(audited.summaries):
        if match := re.fullmatch(r"(.*?)(\d+)(\D*)", summary.key):
            series[match[1], match[3]].append((int(match[2]), n))

    def distance(a: int, b: int) -> float:
        return 1 - float(table[a] @ table[b])

    across: dict[tuple[str, ...], list[tuple[int, int, float]]] = defaultdict(list)
    distant = list[float]()
    for members in map(sorted, series.values()):
        crossing = [
            (a, b)
            for (low, a), (high, b) in pairwise(members)
            if audited.split_name(a) != audited.split_name(b) and high - low <= MAX_NEIGHBOUR_STEP
        ]
        for a, b in crossing:
            across[audited.split_names((a, b))].append((a, b, distance(a, b)))
        numbers = [number for number, _ in members]
        for number, a in members if crossing else ():
            far = bisect_right(numbers, number + MIN_DISTANT_STEP)
            if far < len(members):
                distant.append(distance(a, members[far][1]))
    if len(distant) < MIN_DISTANT_PAIRS:
        distant = [pair.distance for pair in neighbours.within_splits]
    limit = MAX_DISTANCE_RATIO * float(np.median(distant)) if distant else 0.0
    for splits, pairs in across.items():
        if np.median([distance for *_, distance in pairs]) < limit:
            names = [
                f"{audited.summaries[a].key} | {audited.summaries[b].key}" for a, b, _ in pairs
            ]
            what = f"{_count_text(names, 'pair')} of neighbouring slices in {' and '.join(splits)}"
            yield _finding("leak", "neighbours", what, names)


def _measure_cues(audited: AuditedSamples) -> Iterator[Cue]:
    for part in ("val", "test"):
        summaries = audited.in_split(part)
        label = np.array([summary.label for summary in summaries], bool)
        if not summaries or label.all() or not label.any():
            continue
        groups = [summary.group for summary in summaries]
        resamples = Resamples.from_groups(groups, stream_name="audit")
        for name in summaries[0].cues:
            value = np.array([summary.cues[name] for summary in summaries])
            auroc = image_metrics(value, label)["auroc"]
            replicates = bootstrap_image_metrics(value, label, resamples)["auroc"]
            low, high = percentile_interval(replicates) or (None, None)
            if auroc is not None:
                yield Cue(part, name, auroc, low, high)


def _confounds(cues: Iterable[Cue]) -> Iterator[Finding]:
    for cue in cues:
        low, high = (0.5, 0.5) if cue.low is None or cue.high is None else (cue.low, cue.high)
        is_strong = max(cue.auroc, 1 - cue.auroc) >= MIN_AUROC and not low < 0.5 < high
        if is_strong or low > 0.5 + MIN_EFFECT or high < 0.5 - MIN_EFFECT:
            direction = "higher" if cue.auroc > 0.5 else "lower"
            interval = f"{low:.2f} to {high:.2f}" if cue.low is not None else "too few groups"
            yield Finding(
                "confound",
                "cue",
                f"{cue.name} alone tells normal from abnormal in {cue.split}: {direction} in "
                f"abnormal samples, AUROC {cue.auroc:.2f} ({interval})",
            )


def _finding(severity: Severity, kind: str, sentence: str, ids: Sequence[str]) -> Finding:
    return Finding(severity, kind, sentence, tuple(ids[:MAX_NAMED]), len(ids))


def _count_text(ids: Sequence[str], what: str) -> str:
    return f"{len(ids)} {what}{'' if len(ids) == 1 else 's'}"
