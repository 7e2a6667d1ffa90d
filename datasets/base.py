"""The interface of a dataset: a Spec and four splits of Samples; and the exception for bad data.

Letters: N samples, C channels, S one to three spatial axes: (L,), (H, W) or (D, H, W).
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

T = TypeVar("T")

Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Many = Annotated[Sequence[T], Meta(min_length=1)]
Pair = Annotated[Sequence[T], Meta(min_length=2, max_length=2)]
Three = Annotated[Sequence[T], Meta(min_length=3, max_length=3)]
"""Types of settings with their ranges. The registry checks every argument of a constructor against
its annotation before any data are read. (The engine, which knows no data, has its own.)"""


def _rise(values: Sequence[float]) -> bool:
    return sorted(values) == list(values)


def _sum_to_one(values: Sequence[float]) -> bool:
    return abs(sum(values) - 1) < 1e-6


Span = Annotated[
    Sequence[Natural],
    Meta(min_length=2, max_length=2, extra={"check": _rise, "words": "that rise"}),
]
"""The first and the last."""

SUM = {"check": _sum_to_one, "words": "that sum to 1"}
TwoFractions = Annotated[Sequence[Fraction], Meta(min_length=2, max_length=2, extra=SUM)]
ThreeFractions = Annotated[Sequence[Fraction], Meta(min_length=3, max_length=3, extra=SUM)]
FourFractions = Annotated[Sequence[Fraction], Meta(min_length=4, max_length=4, extra=SUM)]

Progress = Callable[[str, int, int], None]
"""(what is being done, how many are done, of how many)."""


class DataError(ValueError):
    """Data is missing or bad: a one-line summary, then every problem, one line each.

    The summary says what is wrong, why, and which command or change repairs it. Nothing was cached.

    >>> error = DataError("2 of 5 cases are unusable", ["case-1 is empty", "case-4 holds NaN"])
    >>> print(error)
    2 of 5 cases are unusable
      case-1 is empty
      case-4 holds NaN
    >>> error.problems
    ('case-1 is empty', 'case-4 holds NaN')
    """

    exit_code: ClassVar[int] = 5

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        summary, *problems = (_as_utf8(text) for text in (summary, *problems))
        lines = [f"  {problem}" for problem in merge_equal(problems)]
        super().__init__("\n".join([summary, *lines]))
        self.summary, self.problems = summary, tuple(problems)


def _as_utf8(text: str) -> str:
    """Text that can be printed and stored, whatever bytes a file name in it has."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Spec:
    """What a method may know of a dataset before it reads any sample.

    channels: C, channels of every sample
    shape: spatial extent S of every sample
    labels: whether abnormal, labelled training samples are available
    masks: whether test samples have masks of their anomalies

    >>> Spec(channels=1, shape=(64, 64))
    Spec(channels=1, shape=(64, 64), labels=False, masks=True)
    """

    channels: int
    shape: tuple[int, ...]
    labels: bool = False
    masks: bool = True


class Tile(NamedTuple):
    """Position of a tile in a larger image; anomaly maps of tiles are joined before evaluation.

    image_key: key of the larger image
    start: first index of the tile along each axis of S
    extent: spatial extent S of the larger image

    >>> Tile("plate-1", start=(0, 64), extent=(128, 128)).start
    (0, 64)
    """

    image_key: str
    start: tuple[int, ...]
    extent: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One signal, image or volume with its ground truth.

    x: (C, *S) float32 in the dataset's canonical scale [0, 1]
    key: stable name, unique in the dataset; it seeds the sample's random noise
    group: patient or recording that the sample comes from; no group is in two splits
    label: whether the sample is abnormal
    mask: (*S) bool, true where abnormal; None where no mask exists
    boxes: in place of a mask, boxes around the anomalies, each (first of every axis, past the last
        of every axis) in steps of S; () of a normal sample, None where nobody drew boxes
    roi: (*S) bool, true where the sample is evaluated (the brain); None for everywhere
    spacing: mm per step along each axis of S; None where unknown
    tags: strata of the sample, such as {"lesion": "stroke", "contrast": "0.6"}
    counterpart: (C, *S), the healthy counterpart: x without its anomaly; synthetic data only
    tile: position in a larger image, if the sample is a tile of it

    >>> import torch
    >>> sample = Sample(torch.zeros(1, 8, 8), key="p1/z003", group="p1", label=False)
    >>> sample.group, sample.mask is None
    ('p1', True)
    """

    x: Tensor
    key: str
    group: str
    label: bool
    mask: Tensor | None = None
    roi: Tensor | None = None
    spacing: tuple[float, ...] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    counterpart: Tensor | None = None
    tile: Tile | None = None
    boxes: tuple[tuple[int, ...], ...] | None = None


class Split(Protocol):
    """A fixed sequence of Samples, read one at a time; a list of Samples is one.

    >>> import torch
    >>> split: Split = [Sample(torch.zeros(1, 4), "a", "a", False)]
    >>> len(split), split[0].key
    (1, 'a')
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


class ManifestEntry(NamedTuple):
    """Identity of a sample: its key, a hash of its values, and its group.

    >>> ManifestEntry(key="p1/z003", content_hash="91aa", group="p1").group
    'p1'
    """

    key: str
    content_hash: str
    group: str


def manifest(split: Split) -> list[ManifestEntry]:
    """Return the identity of every sample of a split, in order.

    split: a split; one with a method `manifest()` is asked for it, and its samples are not read

    >>> import torch
    >>> entry = manifest([Sample(torch.zeros(1, 4), "a", "g", False)])[0]
    >>> entry.key, entry.group
    ('a', 'g')
    """
    own_manifest = getattr(split, "manifest", None)
    if own_manifest is not None:
        return list(own_manifest())
    return [
        ManifestEntry(s.key, content_hash(s), s.group)
        for s in (split[i] for i in range(len(split)))
    ]


def content_hash(sample: Sample) -> str:
    """Return a hex digest of a sample's values: x, label, mask, boxes, roi, spacing, tags and tile.

    sample: its healthy counterpart is left out, because no method and no detection metric reads it

    >>> import torch
    >>> content_hash(Sample(torch.zeros(1, 4), "a", "a", False))
    '0561ebd2cfd6a3453969f7dbe25857d7'
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (sample.x, sample.mask, sample.roi):
        if part is None:
            digest.update(b"-")
        else:
            array = np.ascontiguousarray(part.numpy())
            digest.update(f"{array.dtype.str}{array.shape}".encode() + array.tobytes())
    metadata = (bool(sample.label), sample.spacing, sorted(sample.tags.items()))
    digest.update(repr(metadata).encode())
    if sample.tile is not None:
        digest.update(repr(tuple(sample.tile)).encode())
    if sample.boxes is not None:
        digest.update(repr(sample.boxes).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Batch:
    """N samples stacked.

    x: (N, C, *S) float32
    keys, groups: of each sample
    label: (N,) bool
    mask: (N, *S) bool; None unless every sample has one
    roi: (N, *S) bool, true everywhere for samples without one

    >>> import torch
    >>> Batch.from_samples([Sample(torch.zeros(1, 4), "a", "a", False)] * 2).x.shape
    torch.Size([2, 1, 4])
    """

    x: Tensor
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    label: Tensor
    mask: Tensor | None
    roi: Tensor

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> Batch:
        """Stack samples of one shape."""
        masks = [s.mask for s in samples if s.mask is not None]
        return cls(
            x=torch.stack([s.x for s in samples]),
            keys=tuple(s.key for s in samples),
            groups=tuple(s.group for s in samples),
            label=torch.tensor([s.label for s in samples]),
            mask=torch.stack(masks) if len(masks) == len(samples) else None,
            roi=torch.stack(
                [
                    torch.ones(s.x.shape[1:], dtype=torch.bool) if s.roi is None else s.roi
                    for s in samples
                ]
            ),
        )


def no_progress(task: str, done: int, total: int) -> None:
    """Ignore a progress report (the default callback).

    task: what is being done
    done: how many steps are complete
    total: how many steps there are

    >>> no_progress("reading files", 1, 3)
    """


def first_names(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names as text, with ", ..." if there are more.

    names: in the order in which they are shown
    limit: how many are shown

    >>> first_names(["a", "b", "c"], limit=2)
    'a, b, ...'
    """
    return ", ".join([*names[:limit], *(["..."] if len(names) > limit else [])])


def merge_equal(lines: Iterable[str], limit: int = 4) -> list[str]:
    """Return the lines; `limit` or more that differ in names and numbers only become one line.

    lines: problems or notes. Such a line keeps the first of them by name, says how many there are,
        and names `limit` others
    limit: from how many lines on

    >>> lines = [f"a/{number}.png is empty" for number in range(9)]
    >>> merge_equal([*lines, "b/0.png holds NaN"], limit=2)
    ['a/0.png is empty (9 times: also a/1.png, a/2.png, ...)', 'b/0.png holds NaN']
    """
    groups: dict[str, list[str]] = {}
    for line in lines:
        first, *words = line.split(" ")
        pattern = " ".join("#" if NAME_OR_NUMBER.search(word) else word for word in words)
        groups.setdefault(pattern if words else first, []).append(line)
    merged = []
    for group in groups.values():
        if len(group) < limit:
            merged += group
            continue
        first, *others = sorted(group)
        differing = (
            next((a for a, b in zip(o.split(" "), first.split(" "), strict=True) if a != b), "")
            for o in others
        )
        names = first_names([name.strip("(),:;'") for name in differing if name], limit)
        merged.append(f"{first} ({len(group)} times{f': also {names}' if names else ''})")
    return merged


NAME_OR_NUMBER = re.compile(r"[0-9/]|\.\w")
"""In a word: it is a number, a path or a file name, in which equal problems may differ."""


@dataclass(frozen=True)
class LeftOutFiles:
    """Files below the root of a dataset that no sample comes from, for one reason.

    reason: why, and what to do if they are data
    count: how many there are; of an empty folder 0
    names: of the files relative to the root, or of their folders if they are many

    >>> LeftOutFiles("empty folder", 0, ["old/"]).names
    ['old/']
    """

    reason: str
    count: int
    names: Sequence[str]


COLOURS = {1: "gray", 3: "RGB"}
"""What images of so many channels are called."""


@dataclass(frozen=True)
class SampleStatistics:
    """What the samples of a dataset are.

    shape: (C, *S) of every sample
    dtype: of its values
    low, high: smallest and largest value of all samples
    spacing: mm per step along each axis of S, smallest and largest; None where unknown
    stored_shapes: how many cases are stored in which shape, such as {"256 x 256, 3 channels": 8}

    >>> SampleStatistics((1, 4, 4), "float32", 0.0, 1.0, None).as_text()
    '1 x 4 x 4 float32, values 0 to 1, spacing unknown'
    """

    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    spacing: tuple[tuple[float, ...], tuple[float, ...]] | None
    stored_shapes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> SampleStatistics | None:
        """Return the statistics of samples; None if there are none."""
        statistics = None
        for sample in samples:
            low, high = float(sample.x.min()), float(sample.x.max())
            spacing = None if sample.spacing is None else (sample.spacing, sample.spacing)
            dtype = str(sample.x.dtype).removeprefix("torch.")
            one = cls(tuple(sample.x.shape), dtype, low, high, spacing)
            statistics = one if statistics is None else statistics.joined(one)
        return statistics

    def joined(self, other: SampleStatistics) -> SampleStatistics:
        """Return the statistics of both sets of samples."""
        spacing = (
            self.spacing
            and other.spacing
            and (
                tuple(map(min, self.spacing[0], other.spacing[0])),
                tuple(map(max, self.spacing[1], other.spacing[1])),
            )
        )
        low, high = min(self.low, other.low), max(self.high, other.high)
        stored_shapes = Counter(self.stored_shapes) + Counter(other.stored_shapes)
        return replace(self, low=low, high=high, spacing=spacing, stored_shapes=stored_shapes)

    def stored_text(self) -> str:
        """Return stored and prepared shape, "96 x 96 RGB -> 32 x 32 gray"; "" if unknown."""
        if not self.stored_shapes:
            return ""
        stored = max(self.stored_shapes, key=lambda shape: self.stored_shapes[shape])
        others = len(self.stored_shapes) - 1
        more = f" (and {others} other shape{'s' if others > 1 else ''})" if others else ""
        channels, *extent = self.shape
        colour = COLOURS.get(channels, "") if stored.endswith(tuple(COLOURS.values())) else ""
        return f"{stored}{more} -> {' x '.join(map(str, extent))} {colour}".rstrip()

    def as_text(self) -> str:
        """Return the statistics in words."""
        shape = " x ".join(map(str, self.shape))
        spacing = "unknown"
        if self.spacing is not None:
            ends = zip(*self.spacing, strict=True)
            steps = [f"{a:.4g}" if a == b else f"{a:.4g}-{b:.4g}" for a, b in ends]
            spacing = f"{' x '.join(steps)} mm"
        return f"{shape} {self.dtype}, values {self.low:.4g} to {self.high:.4g}, spacing {spacing}"


@dataclass(frozen=True)
class VerificationReport:
    """Result of checking all of a dataset.

    problems: errors that make the dataset unusable, one line each
    notes: other information for the user
    samples: number of samples of each part
    bad_cases: how many cases the problems are in
    files_read: how many files were read, for samples or as tables
    folders: how many cases each folder holds, and as what they were read, such as
        {"test/bad as abnormal": 8}
    left_out: all other files there, by the reason
    statistics: what a sample is; None if none could be read

    >>> VerificationReport(problems=[], notes=[], samples={"train": 3}).bad_cases
    0
    """

    problems: Sequence[str]
    notes: Sequence[str]
    samples: Mapping[str, int]
    bad_cases: int = 0
    files_read: int = 0
    folders: Mapping[str, int] = field(default_factory=dict)
    left_out: Sequence[LeftOutFiles] = ()
    statistics: SampleStatistics | None = None


class Dataset(ABC):
    """Four splits that share no group. The constructor reads no file; `prepare` makes it ready.

    The constructor's keyword arguments determine the samples and are part of the cache key; those
    named in `cache_key_ignores` (where the files lie) change no sample and are left out of it.

    >>> from adbench.datasets.base import Dataset, Sample, Spec
    >>> class Steps(Dataset):
    ...     spec = Spec(1, (4,))
    ...     def train(self, *, labelled=False):
    ...         return [Sample(torch.zeros(1, 4), f"{i}", f"{i}", False) for i in range(3)]
    ...     def calibration(self):
    ...         return [Sample(torch.zeros(1, 4), "held_out/0", "held_out/0", False)]
    ...     def val(self):
    ...         return []
    ...     def test(self):
    ...         return [Sample(torch.ones(1, 4), "test/0", "test/0", True)]
    >>> Steps().verify().samples
    {'train': 3, 'held_out': 1, 'val': 0, 'test': 1}
    """

    spec: Spec

    cache_key_ignores: ClassVar[frozenset[str]] = frozenset({"root"})
    """Constructor arguments that do not change a sample."""

    synthetic: ClassVar[bool] = False
    """Made up: printed on the board, never ranked together with real data."""

    def preprocessing_state(self) -> dict[str, Any]:
        """Return what reading a new sample needs and the constructor's arguments do not say.

        JSON values, stored with a checkpoint: channels and shape of a sample, and whatever was
        read off the training data. Call it on a prepared dataset.
        """
        return {"channels": self.spec.channels, "shape": list(self.spec.shape)}

    def restore_preprocessing(self, state: Mapping[str, Any]) -> None:
        """Read new samples as the dataset did whose `preprocessing_state` is given.

        state: of a dataset with the same arguments; `spec` is set from it, no file is read
        """
        self.spec = Spec(state["channels"], tuple(state["shape"]))

    def prepare(self, progress: Progress = no_progress) -> None:
        """Read and preprocess everything once and store the result; do nothing if it is stored.

        progress: called with (task, done, total)

        Raises DataError that lists every bad case; nothing is stored then.
        """
        return None

    def verify(self, progress: Progress = no_progress) -> VerificationReport:
        """Read every sample and return all problems of the dataset.

        progress: called with (task, done, total)
        """
        self.prepare(progress)
        splits = {"train": self.train(), "held_out": self.calibration()}
        splits |= {"val": self.val(), "test": self.test()}
        problems, statistics = [], None
        for name, split in splits.items():
            for i in range(len(split)):
                try:
                    sample = split[i]
                    if not bool(sample.x.isfinite().all()):
                        problems.append(f"sample {sample.key!r} holds NaN or inf")
                    one = SampleStatistics.of([sample])
                    statistics = statistics.joined(one) if statistics and one else one
                except DataError as error:
                    problems.append(error.summary)
                progress(f"looking at {name}", i + 1, len(split))
        counts = {name: len(split) for name, split in splits.items()}
        return VerificationReport(problems, (), counts, len(problems), statistics=statistics)

    @abstractmethod
    def train(self, *, labelled: bool = False) -> Split:
        """Return the normal training samples, without masks.

        labelled: add the abnormal training samples, with their labels
        """

    @abstractmethod
    def calibration(self) -> Split:
        """Return normal samples that are not trained on, for calibration (the split "held_out")."""

    @abstractmethod
    def val(self) -> Split:
        """Return normal and abnormal samples that choose noise level and threshold.

        The benchmark reads them; a method never does.
        """

    @abstractmethod
    def test(self) -> Split:
        """Return normal and abnormal samples of the final evaluation."""

    def get_split(self, name: str) -> Split:
        """The split of that name, as keys and files have it: train (normal samples), held_out (the
        calibration samples), val or test."""
        return self.calibration() if name == "held_out" else getattr(self, name)()
