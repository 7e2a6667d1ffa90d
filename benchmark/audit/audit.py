"""What is wrong with how a dataset was shared out: leaks between its splits, and cheap cues that
alone tell normal from abnormal.

Every sample is read once and reduced to a Look; only pairs that may be copies are read again.
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

SPLITS = ("train", "train-abnormal", "held_out", "val", "test")
"""As they are looked at; the second is what train(labelled=True) adds, and counts as train."""

MAX_NAMED = 5
MIN_EFFECT = 0.2
"""How far from 0.5 the whole interval of a cue's AUROC lies before the cue is a confound."""

MAX_NEIGHBOUR_STEP, MIN_DISTANT_STEP, MAX_DISTANCE_RATIO, MIN_DISTANT_PAIRS = 2, 6, 0.5, 4
"""Samples whose names differ in their last number only, by up to STEP, may be neighbouring slices.
They are if they are at most ALIKE times as far apart as those that differ by more than FAR (which
numbered patients are not); with fewer than FEWEST of those, as the nearest of another group."""


@dataclass(frozen=True)
class Finding:
    """kind: "subjects", "copies", "almost copies", "neighbours", "abnormal in normal", "cue",
    "empty". ids: a few of the `count` that it concerns"""

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
    """How well one number tells the samples of a split apart. low, high: the middle 95 % of a
    bootstrap over groups; None with fewer than five groups. Above 0.5, abnormal samples have more.
    """

    split: str
    name: str
    auroc: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Audit:
    """findings: leaks first. samples: normal and abnormal ones, by part"""

    findings: tuple[Finding, ...]
    samples: Mapping[str, Mapping[str, int]]
    cues: tuple[Cue, ...]


class AuditedSamples:
    """Where the n-th look was taken: in which split, and at which index of it."""

    def __init__(self) -> None:
        self.summaries: list[SampleSummary] = []
        self.parts: list[str] = []
        self._sources: list[tuple[Split, int]] = []

    def add(self, part: str, split: Split, index: int) -> None:
        self.summaries.append(summarize(split[index]))
        self.parts.append(part)
        self._sources.append((split, index))

    def read(self, n: int) -> Sample:
        split, index = self._sources[n]
        return split[index]

    def split_name(self, n: int) -> str:
        return self.parts[n].partition("-")[0]


def audit(dataset: Dataset, *, progress: Progress = no_progress) -> Audit:
    """Look at every sample of every split of a prepared dataset."""
    seen = _summarize_samples(dataset, progress)
    samples = {
        part: dict(
            Counter(
                _label_name(held)
                for held, p in zip(seen.summaries, seen.parts, strict=True)
                if p == part
            )
        )
        for part in SPLITS
    }
    findings = [
        *_empty_splits(samples),
        *_shared_subjects(seen),
        *_exact_copies(seen),
        *_misplaced_samples(seen),
    ]
    if seen.summaries:
        table = normalize_thumbnails(seen.summaries)
        order = [SPLITS.index(part) - (part == "train-abnormal") for part in seen.parts]
        found = nearest_neighbours(table, seen.summaries, np.array(order), progress)
        findings += _near_copies(seen, found)
        findings += _neighbouring_slices(seen, table, found)
    cues = tuple(_measure_cues(seen))
    findings += _confounds(cues)
    rank: dict[str, int] = {"leak": 0, "confound": 1, "note": 2}
    findings.sort(key=lambda finding: rank[finding.severity])
    return Audit(tuple(findings), samples, cues)


def _summarize_samples(dataset: Dataset, progress: Progress) -> AuditedSamples:
    splits: dict[str, Split] = {
        "train": dataset.train(),
        "held_out": dataset.calibration(),
        "val": dataset.val(),
        "test": dataset.test(),
    }
    seen = AuditedSamples()
    for part, split in splits.items():
        for index in range(len(split)):
            seen.add(part, split, index)
            progress(f"looking at {part}", index + 1, len(split))
    if dataset.spec.labels:
        both = dataset.train(labelled=True)
        known = {
            held.key
            for held, part in zip(seen.summaries, seen.parts, strict=True)
            if part == "train"
        }
        names = manifest(both) if hasattr(both, "manifest") else None
        for index in range(len(both)):
            if (both[index].key if names is None else names[index].key) not in known:
                seen.add("train-abnormal", both, index)
            progress("looking at labelled train", index + 1, len(both))
    return seen


def _label_name(held: SampleSummary) -> str:
    return "abnormal" if held.label else "normal"


def _empty_splits(samples: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    for part in ("train", "held_out", "val", "test"):
        if not samples[part]:
            yield Finding("note", "empty", f"{part} is empty")
        elif part in ("val", "test"):
            lacking = {"normal", "abnormal"} - set(samples[part])
            for kind in sorted(lacking):
                yield Finding("note", "empty", f"{part} holds no {kind} sample")


def _shared_subjects(seen: AuditedSamples) -> Iterator[Finding]:
    """Groups that stand in two splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for n, held in enumerate(seen.summaries):
        splits[held.group].add(seen.split_name(n))
    torn: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for group, found in splits.items():
        if len(found) > 1:
            torn[_sorted_splits(found)].append(group)
    for where, groups in torn.items():
        what = f"{_count_text(groups, 'subject')} in {' and '.join(where)}"
        yield _finding("leak", "subjects", what, groups)


def _exact_copies(seen: AuditedSamples) -> Iterator[Finding]:
    """Samples that are equal to the last bit."""
    owners: dict[bytes, list[int]] = defaultdict(list)
    for n, held in enumerate(seen.summaries):
        if held.digest is not None:
            owners[held.digest].append(n)
    torn: dict[tuple[str, ...], list[str]] = defaultdict(list)
    twofold, within = [], []
    for places in owners.values():
        splits = _sorted_splits({seen.split_name(n) for n in places})
        names = " = ".join(seen.summaries[n].key for n in places[:3])
        if len(splits) > 1:
            torn[splits].append(names)
        elif len(places) > 1:
            within.append(names)
        if len({seen.summaries[n].label for n in places}) > 1:
            twofold.append(names)
    for where, names in torn.items():
        what = f"{_count_text(names, 'sample')} in {' and '.join(where)}, equal to the last bit"
        yield _finding("leak", "copies", what, names)
    if twofold:
        what = f"{_count_text(twofold, 'sample')} called normal and, as a copy, abnormal"
        yield _finding("leak", "abnormal in normal", what, twofold)
    if within:
        what = f"{_count_text(within, 'sample')} more than once in one split"
        yield _finding("note", "copies", what, within)


def _misplaced_samples(seen: AuditedSamples) -> Iterator[Finding]:
    """Abnormal samples where only normal ones belong."""
    for part in ("train", "held_out"):
        mine = [h for h, p in zip(seen.summaries, seen.parts, strict=True) if p == part]
        called = [held.key for held in mine if held.label]
        marked = [held.key for held in mine if held.has_marked_mask and not held.label]
        if called:
            what = f"{_count_text(called, 'sample')} in {part}, which are called abnormal"
            yield _finding("leak", "abnormal in normal", what, called)
        if marked:
            what = f"{_count_text(marked, 'sample')} in {part}, whose masks mark an anomaly"
            yield _finding("leak", "abnormal in normal", what, marked)


def _near_copies(seen: AuditedSamples, found: NearestNeighbours) -> Iterator[Finding]:
    """Samples that are nearly the same in two splits."""
    pairs, unchecked = find_near_duplicates(found, seen.summaries, seen.read)
    torn: dict[tuple[str, ...], list[str]] = defaultdict(list)
    turned = []
    for later, earlier, _ in pairs:
        names = f"{seen.summaries[earlier].key} ~ {seen.summaries[later].key}"
        torn[_sorted_splits({seen.split_name(earlier), seen.split_name(later)})].append(names)
        if seen.summaries[later].label and not seen.summaries[earlier].label:
            turned.append(names)
    for where, names in torn.items():
        what = f"{_count_text(names, 'sample')} in {' and '.join(where)}, almost the same"
        yield _finding("leak", "almost copies", what, names)
    if turned:
        what = f"{_count_text(turned, 'normal sample')} almost the same as an abnormal one"
        yield _finding("leak", "abnormal in normal", what, turned)
    if unchecked:
        what = f"{unchecked} more pairs look alike when small, and were not looked at again"
        yield Finding("note", "almost copies", what, (), unchecked)


def _neighbouring_slices(
    seen: AuditedSamples, table: Array, found: NearestNeighbours
) -> Iterator[Finding]:
    """Slices next to each other, by their names, that stand in two splits and are alike."""
    series: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for n, held in enumerate(seen.summaries):
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", held.key)
        if match:
            series[match[1], match[3]].append((int(match[2]), n))
    torn: dict[tuple[str, ...], list[tuple[int, int, float]]] = defaultdict(list)
    apart = list[float]()
    for members in map(sorted, series.values()):
        crossing = [
            (a, b)
            for (low, a), (high, b) in pairwise(members)
            if seen.split_name(a) != seen.split_name(b) and high - low <= MAX_NEIGHBOUR_STEP
        ]
        for a, b in crossing:
            where = _sorted_splits({seen.split_name(a), seen.split_name(b)})
            torn[where].append((a, b, 1 - float(table[a] @ table[b])))
        numbers = [number for number, _ in members]
        for number, a in members if crossing else ():
            far = bisect_right(numbers, number + MIN_DISTANT_STEP)
            if far < len(members):
                apart.append(1 - float(table[a] @ table[members[far][1]]))
    if len(apart) < MIN_DISTANT_PAIRS:
        apart = [pair.distance for pair in found.within_splits]
    limit = MAX_DISTANCE_RATIO * float(np.median(apart)) if apart else 0.0
    for where, pairs in torn.items():
        if np.median([distance for *_, distance in pairs]) < limit:
            names = [f"{seen.summaries[a].key} | {seen.summaries[b].key}" for a, b, _ in pairs]
            what = f"{_count_text(names, 'pair')} of neighbouring slices in {' and '.join(where)}"
            yield _finding("leak", "neighbours", what, names)


def _measure_cues(seen: AuditedSamples) -> Iterator[Cue]:
    for part in ("val", "test"):
        mine = [h for h, p in zip(seen.summaries, seen.parts, strict=True) if p == part]
        label = np.array([held.label for held in mine], bool)
        if not mine or label.all() or not label.any():
            continue
        resamples = Resamples.from_groups([held.group for held in mine], stream_name="audit")
        for name in mine[0].cues:
            value = np.array([held.cues[name] for held in mine])
            auroc = image_metrics(value, label)["auroc"]
            ends = percentile_interval(bootstrap_image_metrics(value, label, resamples)["auroc"])
            low, high = ends or (None, None)
            if auroc is not None:
                yield Cue(part, name, auroc, low, high)


def _confounds(cues: Iterable[Cue]) -> Iterator[Finding]:
    for cue in cues:
        if cue.low is None or cue.high is None:
            continue
        if cue.low > 0.5 + MIN_EFFECT or cue.high < 0.5 - MIN_EFFECT:
            more = "higher" if cue.auroc > 0.5 else "lower"
            ends = f"{cue.low:.2f} to {cue.high:.2f}"
            yield Finding(
                "confound",
                "cue",
                f"{cue.name} alone tells normal from abnormal in {cue.split}: {more} in abnormal "
                f"samples, AUROC {cue.auroc:.2f} ({ends})",
            )


def _finding(severity: Severity, kind: str, sentence: str, ids: Sequence[str]) -> Finding:
    return Finding(severity, kind, sentence, tuple(ids[:MAX_NAMED]), len(ids))


def _sorted_splits(splits: set[str]) -> tuple[str, ...]:
    return tuple(sorted(splits, key=SPLITS.index))


def _count_text(ids: Sequence[str], what: str) -> str:
    return f"{len(ids)} {what}{'' if len(ids) == 1 else 's'}"
