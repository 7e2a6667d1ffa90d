"""What every dataset offers: a Spec and four Splits of Samples; and the one error for bad data.

Letters: N samples, C channels, S one to three spatial axes: (L,), (H, W) or (D, H, W).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

Progress = Callable[[str, int, int], None]
"""(what is being done, how many are done, of how many)."""


class DataError(ValueError):
    """Data is missing or bad: one line, what and why and the command that mends it, then every
    problem found, one line each. Nothing was cached."""

    exit_code: ClassVar[int] = 5

    def __init__(self, summary: str, problems: Sequence[str] = ()) -> None:
        super().__init__("\n".join([summary, *(f"  {problem}" for problem in problems)]))
        self.summary, self.problems = summary, tuple(problems)


@dataclass(frozen=True)
class Spec:
    """What a method may know of a dataset before it has read any of it.

    shape: spatial extent S
    labels: whether training samples can be had abnormal, and labelled so
    masks: whether test samples say where they are abnormal
    """

    channels: int
    shape: tuple[int, ...]
    labels: bool = False
    masks: bool = True


class Tile(NamedTuple):
    """Where in a larger image a sample was cut from; maps of tiles are joined before judging.

    image_key: key of the larger image       start: first index along each axis of S
    extent: the larger image's own S
    """

    image_key: str
    start: tuple[int, ...]
    extent: tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """One signal, image or volume, and the truth about it.

    x: (C, *S) float32 in the dataset's canonical scale [0, 1]
    key: stable name, unique in the dataset; seeds the sample's noise
    group: what it was cut from (patient, recording); no group stands in two splits
    label: whether it is abnormal
    mask: (*S) bool, true where abnormal; None where nobody has drawn it
    roi: (*S) bool, true where there is anything to judge (the brain); None for everywhere
    spacing: mm per step along each axis of S; None where unknown
    tags: strata it belongs to, such as {"lesion": "stroke", "contrast": "0.6"}
    counterpart: (C, *S), what x would be had it no anomaly; only made-up data knows it
    tile: where it was cut from, if it is a part of a larger image
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


class Split(Protocol):
    """Samples in a fixed order, read one at a time; a list is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Sample: ...


class ManifestEntry(NamedTuple):
    """What identifies a sample: its name, a hash of all that it holds, and its group."""

    key: str
    content_hash: str
    group: str


def manifest(split: Split) -> list[ManifestEntry]:
    """The identity of every sample, in order. A split that knows it (`.manifest()`) is not read."""
    own_manifest = getattr(split, "manifest", None)
    if own_manifest is not None:
        return list(own_manifest())
    return [
        ManifestEntry(s.key, content_hash(s), s.group)
        for s in (split[i] for i in range(len(split)))
    ]


def content_hash(sample: Sample) -> str:
    """Hex digest of a sample's values: x, label, mask, roi, spacing, tags, tile. Not of its
    twin, which no method and no metric of detection looks at."""
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
    return digest.hexdigest()


@dataclass(frozen=True)
class Batch:
    """N samples stacked; x is (N, C, *S), label (N,), mask and roi (N, *S)."""

    x: Tensor
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    label: Tensor
    mask: Tensor | None
    roi: Tensor

    @classmethod
    def from_samples(cls, samples: Sequence[Sample]) -> Batch:
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
    """Progress that nobody watches."""


def first_names(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names as text, with ", ..." if there are more.

    names: in the order in which they are shown
    limit: how many are shown

    >>> first_names(["a", "b", "c"], limit=2)
    'a, b, ...'
    """
    return ", ".join([*names[:limit], *(["..."] if len(names) > limit else [])])


@dataclass(frozen=True)
class VerificationReport:
    """What looking at all of a dataset brought to light.

    problems: what keeps it from being used, one line each; bad_cases: how many cases they are in
    notes: what the user should know. samples: how many in each part
    """

    problems: Sequence[str]
    notes: Sequence[str]
    samples: Mapping[str, int]
    bad_cases: int = 0


class Dataset(ABC):
    """Four splits that share no group. Constructing one reads nothing; `prepare` makes it ready.

    Its keyword arguments say what it holds; those named in `cache_key_ignores` (where the files
    lie)
    do not, and stay out of its identity.
    """

    spec: Spec

    cache_key_ignores: ClassVar[frozenset[str]] = frozenset({"root"})
    """Constructor arguments that do not change a sample."""

    synthetic: ClassVar[bool] = False
    """Made up: printed on the board, never ranked together with real data."""

    def prepare(self, progress: Progress = no_progress) -> None:
        """Read and preprocess once, and keep the result; does nothing when that has been done.

        Raises DataError that lists every bad case; nothing is kept then.
        """
        return None

    def verify(self, progress: Progress = no_progress) -> VerificationReport:
        """Look at everything there is to its last byte, and list all that is wrong with it."""
        self.prepare(progress)
        splits = {"train": self.train(), "held_out": self.calibration()}
        splits |= {"val": self.val(), "test": self.test()}
        problems = []
        for name, split in splits.items():
            for i in range(len(split)):
                try:
                    if not bool(split[i].x.isfinite().all()):
                        problems.append(f"sample {split[i].key!r} holds NaN or inf")
                except DataError as error:
                    problems.append(error.summary)
                progress(f"looking at {name}", i + 1, len(split))
        counts = {name: len(split) for name, split in splits.items()}
        return VerificationReport(problems, (), counts, len(problems))

    @abstractmethod
    def train(self, *, labelled: bool = False) -> Split:
        """Normal samples; with `labelled`, abnormal ones too and labels. Never a mask."""

    @abstractmethod
    def calibration(self) -> Split:
        """Normal samples that are not trained on, to calibrate on."""

    @abstractmethod
    def val(self) -> Split:
        """Both kinds, to choose noise level and threshold on. Methods never see it."""

    @abstractmethod
    def test(self) -> Split:
        """Both kinds, looked at once."""

    def get_split(self, name: str) -> Split:
        """The split of that name, as keys and files have it: train (normal samples), held_out (the
        calibration samples), val or test."""
        return self.calibration() if name == "held_out" else getattr(self, name)()
