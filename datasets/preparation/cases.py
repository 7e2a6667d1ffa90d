"""The cases of a dataset: an index of them, the samples of one, and reading them by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ..base import DataError, Sample
from ..io.directories import is_utf8, undecodable_name_text
from ..splits.assignment import Case


@dataclass(frozen=True)
class DatasetIndex:
    """The cases found under a root.

    cases: every case
    problems: errors of the folder layout, one line each
    notes: other information for the user
    tables: files that were read and belong to no case, such as lists of splits
    left_out: files and folders that the dataset passes over on purpose, and why

    >>> from adbench.datasets.preparation.cases import DatasetIndex
    >>> DatasetIndex(cases=[]).problems
    ()
    """

    cases: Sequence[Case]
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    tables: Sequence[Path] = ()
    left_out: Mapping[Path, str] = field(default_factory=dict)

    def undecodable_names(self, root: Path) -> list[str]:
        """Return a problem for each file below root whose name no cache key or record can hold."""
        names = (os.path.relpath(path, root) for case in self.cases for path in case.paths)
        unknown = dict.fromkeys(name for name in names if not is_utf8(name))
        return [undecodable_name_text(name) for name in unknown]


@dataclass(frozen=True)
class CaseSamples:
    """The samples of one case.

    samples: in a fixed order
    notes: information for the user
    trainable: false where no method may train on them (a constant image)
    counts: numbers that are summed over all cases, such as slices left out, by their description
    stored_shape: of the case's files, such as "256 x 256 RGB"
    mask_area_ratios: of each abnormal sample, the area of its mask relative to the stored one

    >>> from adbench.datasets.preparation.cases import CaseSamples
    >>> CaseSamples(samples=[], counts={"slices left out": 2}).trainable
    True
    """

    samples: Sequence[Sample]
    notes: Sequence[str] = ()
    trainable: bool = True
    counts: Mapping[str, int] = field(default_factory=dict)
    stored_shape: str = ""
    mask_area_ratios: Sequence[float] = ()


def read_ahead(
    cases: Sequence[Case], read: Callable[[Case], CaseSamples | DataError]
) -> Iterator[tuple[Case, CaseSamples | DataError]]:
    """Yield every case with its samples or its error, in order; threads read ahead.

    read: returns them; several threads call it at once

    >>> from adbench.datasets.preparation.cases import CaseSamples, read_ahead
    >>> from adbench.datasets.splits.assignment import Case
    >>> cases = [Case("a", "a", {}), Case("b", "b", {})]
    >>> [case.name for case, _ in read_ahead(cases, lambda case: CaseSamples([]))]
    ['a', 'b']
    """
    workers = min(os.cpu_count() or 1, 8)
    pending: deque[tuple[Case, Future[CaseSamples | DataError]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for case in cases:
            pending.append((case, pool.submit(read, case)))
            if len(pending) > workers:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
