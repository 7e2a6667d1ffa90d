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

from ...datasets.base import Dataset, Progress, Sample, Split, manifest, silent
from ..evaluation.metrics.ranking import image_metrics
from ..evaluation.statistics.bootstrap import Resamples, image_draws, interval
from .near_duplicates import Nearest, almost_equal, nearest, normed
from .sample_summary import Array, Look, look

Severity = Literal["leak", "confound", "note"]

PARTS = ("train", "train-abnormal", "held_out", "val", "test")
"""As they are looked at; the second is what train(labelled=True) adds, and counts as train."""

FEW = 5
STRONG = 0.2
"""How far from 0.5 the whole interval of a cue's AUROC lies before the cue is a confound."""

STEP, FAR, ALIKE, FEWEST = 2, 6, 0.5, 4
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


class Place:
    """Where the n-th look was taken: in which split, and at which index of it."""

    def __init__(self) -> None:
        self.looks: list[Look] = []
        self.parts: list[str] = []
        self._where: list[tuple[Split, int]] = []

    def add(self, part: str, split: Split, index: int) -> None:
        self.looks.append(look(split[index]))
        self.parts.append(part)
        self._where.append((split, index))

    def read(self, n: int) -> Sample:
        split, index = self._where[n]
        return split[index]

    def split(self, n: int) -> str:
        return self.parts[n].partition("-")[0]


def audit(dataset: Dataset, *, progress: Progress = silent) -> Audit:
    """Look at every sample of every split of a prepared dataset."""
    seen = _seen(dataset, progress)
    samples = {
        part: dict(
            Counter(
                _kind(held) for held, p in zip(seen.looks, seen.parts, strict=True) if p == part
            )
        )
        for part in PARTS
    }
    findings = [*_empty(samples), *_subjects(seen), *_copies(seen), *_misplaced(seen)]
    if seen.looks:
        table = normed(seen.looks)
        order = [PARTS.index(part) - (part == "train-abnormal") for part in seen.parts]
        found = nearest(table, seen.looks, np.array(order), progress)
        findings += _almost(seen, found)
        findings += _neighbours(seen, table, found)
    cues = tuple(_cues(seen))
    findings += _confounds(cues)
    rank: dict[str, int] = {"leak": 0, "confound": 1, "note": 2}
    findings.sort(key=lambda finding: rank[finding.severity])
    return Audit(tuple(findings), samples, cues)


def _seen(dataset: Dataset, progress: Progress) -> Place:
    splits: dict[str, Split] = {
        "train": dataset.train(),
        "held_out": dataset.held_out(),
        "val": dataset.val(),
        "test": dataset.test(),
    }
    seen = Place()
    for part, split in splits.items():
        for index in range(len(split)):
            seen.add(part, split, index)
            progress(f"looking at {part}", index + 1, len(split))
    if dataset.spec.labels:
        both = dataset.train(labelled=True)
        known = {
            held.key for held, part in zip(seen.looks, seen.parts, strict=True) if part == "train"
        }
        names = manifest(both) if hasattr(both, "manifest") else None
        for index in range(len(both)):
            if (both[index].key if names is None else names[index].key) not in known:
                seen.add("train-abnormal", both, index)
            progress("looking at labelled train", index + 1, len(both))
    return seen


def _kind(held: Look) -> str:
    return "abnormal" if held.label else "normal"


def _empty(samples: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    for part in ("train", "held_out", "val", "test"):
        if not samples[part]:
            yield Finding("note", "empty", f"{part} is empty")
        elif part in ("val", "test"):
            lacking = {"normal", "abnormal"} - set(samples[part])
            for kind in sorted(lacking):
                yield Finding("note", "empty", f"{part} holds no {kind} sample")


def _subjects(seen: Place) -> Iterator[Finding]:
    """Groups that stand in two splits."""
    splits: dict[str, set[str]] = defaultdict(set)
    for n, held in enumerate(seen.looks):
        splits[held.group].add(seen.split(n))
    torn: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for group, found in splits.items():
        if len(found) > 1:
            torn[_ordered(found)].append(group)
    for where, groups in torn.items():
        what = f"{_count(groups, 'subject')} in {' and '.join(where)}"
        yield _finding("leak", "subjects", what, groups)


def _copies(seen: Place) -> Iterator[Finding]:
    """Samples that are equal to the last bit."""
    owners: dict[bytes, list[int]] = defaultdict(list)
    for n, held in enumerate(seen.looks):
        if held.digest is not None:
            owners[held.digest].append(n)
    torn: dict[tuple[str, ...], list[str]] = defaultdict(list)
    twofold, within = [], []
    for places in owners.values():
        splits = _ordered({seen.split(n) for n in places})
        names = " = ".join(seen.looks[n].key for n in places[:3])
        if len(splits) > 1:
            torn[splits].append(names)
        elif len(places) > 1:
            within.append(names)
        if len({seen.looks[n].label for n in places}) > 1:
            twofold.append(names)
    for where, names in torn.items():
        what = f"{_count(names, 'sample')} in {' and '.join(where)}, equal to the last bit"
        yield _finding("leak", "copies", what, names)
    if twofold:
        what = f"{_count(twofold, 'sample')} called normal and, as a copy, abnormal"
        yield _finding("leak", "abnormal in normal", what, twofold)
    if within:
        what = f"{_count(within, 'sample')} more than once in one split"
        yield _finding("note", "copies", what, within)


def _misplaced(seen: Place) -> Iterator[Finding]:
    """Abnormal samples where only normal ones belong."""
    for part in ("train", "held_out"):
        mine = [h for h, p in zip(seen.looks, seen.parts, strict=True) if p == part]
        called = [held.key for held in mine if held.label]
        marked = [held.key for held in mine if held.marked and not held.label]
        if called:
            what = f"{_count(called, 'sample')} in {part}, which are called abnormal"
            yield _finding("leak", "abnormal in normal", what, called)
        if marked:
            what = f"{_count(marked, 'sample')} in {part}, whose masks mark an anomaly"
            yield _finding("leak", "abnormal in normal", what, marked)


def _almost(seen: Place, found: Nearest) -> Iterator[Finding]:
    """Samples that are nearly the same in two splits."""
    pairs, unchecked = almost_equal(found, seen.looks, seen.read)
    torn: dict[tuple[str, ...], list[str]] = defaultdict(list)
    turned = []
    for later, earlier, _ in pairs:
        names = f"{seen.looks[earlier].key} ~ {seen.looks[later].key}"
        torn[_ordered({seen.split(earlier), seen.split(later)})].append(names)
        if seen.looks[later].label and not seen.looks[earlier].label:
            turned.append(names)
    for where, names in torn.items():
        what = f"{_count(names, 'sample')} in {' and '.join(where)}, almost the same"
        yield _finding("leak", "almost copies", what, names)
    if turned:
        what = f"{_count(turned, 'normal sample')} almost the same as an abnormal one"
        yield _finding("leak", "abnormal in normal", what, turned)
    if unchecked:
        what = f"{unchecked} more pairs look alike when small, and were not looked at again"
        yield Finding("note", "almost copies", what, (), unchecked)


def _neighbours(seen: Place, table: Array, found: Nearest) -> Iterator[Finding]:
    """Slices next to each other, by their names, that stand in two splits and are alike."""
    series: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for n, held in enumerate(seen.looks):
        match = re.fullmatch(r"(.*?)(\d+)(\D*)", held.key)
        if match:
            series[match[1], match[3]].append((int(match[2]), n))
    torn: dict[tuple[str, ...], list[tuple[int, int, float]]] = defaultdict(list)
    apart = list[float]()
    for members in map(sorted, series.values()):
        crossing = [
            (a, b)
            for (low, a), (high, b) in pairwise(members)
            if seen.split(a) != seen.split(b) and high - low <= STEP
        ]
        for a, b in crossing:
            where = _ordered({seen.split(a), seen.split(b)})
            torn[where].append((a, b, 1 - float(table[a] @ table[b])))
        numbers = [number for number, _ in members]
        for number, a in members if crossing else ():
            far = bisect_right(numbers, number + FAR)
            if far < len(members):
                apart.append(1 - float(table[a] @ table[members[far][1]]))
    if len(apart) < FEWEST:
        apart = [pair.distance for pair in found.within]
    limit = ALIKE * float(np.median(apart)) if apart else 0.0
    for where, pairs in torn.items():
        if np.median([distance for *_, distance in pairs]) < limit:
            names = [f"{seen.looks[a].key} | {seen.looks[b].key}" for a, b, _ in pairs]
            what = f"{_count(names, 'pair')} of neighbouring slices in {' and '.join(where)}"
            yield _finding("leak", "neighbours", what, names)


def _cues(seen: Place) -> Iterator[Cue]:
    for part in ("val", "test"):
        mine = [h for h, p in zip(seen.looks, seen.parts, strict=True) if p == part]
        label = np.array([held.label for held in mine], bool)
        if not mine or label.all() or not label.any():
            continue
        resamples = Resamples.of([held.group for held in mine], name="audit")
        for name in mine[0].cues:
            value = np.array([held.cues[name] for held in mine])
            auroc = image_metrics(value, label)["auroc"]
            ends = interval(image_draws(value, label, resamples)["auroc"])
            low, high = ends or (None, None)
            if auroc is not None:
                yield Cue(part, name, auroc, low, high)


def _confounds(cues: Iterable[Cue]) -> Iterator[Finding]:
    for cue in cues:
        if cue.low is None or cue.high is None:
            continue
        if cue.low > 0.5 + STRONG or cue.high < 0.5 - STRONG:
            more = "higher" if cue.auroc > 0.5 else "lower"
            ends = f"{cue.low:.2f} to {cue.high:.2f}"
            yield Finding(
                "confound",
                "cue",
                f"{cue.name} alone tells normal from abnormal in {cue.split}: {more} in abnormal "
                f"samples, AUROC {cue.auroc:.2f} ({ends})",
            )


def _finding(severity: Severity, kind: str, sentence: str, ids: Sequence[str]) -> Finding:
    return Finding(severity, kind, sentence, tuple(ids[:FEW]), len(ids))


def _ordered(splits: set[str]) -> tuple[str, ...]:
    return tuple(sorted(splits, key=PARTS.index))


def _count(ids: Sequence[str], what: str) -> str:
    return f"{len(ids)} {what}{'' if len(ids) == 1 else 's'}"
