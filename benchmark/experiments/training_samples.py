"""Which samples a method is trained on: a share of the patients, and abnormal ones by mistake.

Both axes ask what a detector is worth under other conditions than a benchmark's: with little data,
and with normal data that nobody has looked through. What is chosen depends on the seed and on
names alone; a smaller share is a part of a larger one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from ...datasets.base import DataError, Dataset, Sample, Split


@dataclass(frozen=True)
class TrainingSamples:
    """How the training samples differ from those of the dataset.

    fraction: percent of the groups (patients) of normal samples that are trained on
    contamination: percent of the training samples that are abnormal, and passed off as normal
    seed: of the choice of both

    >>> from adbench.benchmark.experiments.training_samples import TrainingSamples
    >>> from adbench.datasets.phantom import Phantom
    >>> dataset = Phantom(shape=(8, 8), train=20, abnormal=10)
    >>> chosen = TrainingSamples(fraction=50, contamination=10).choose(dataset)
    >>> len(chosen), sum("abnormal" in chosen[i].key for i in range(len(chosen)))
    (11, 1)
    """

    fraction: float = 100.0
    contamination: float = 0.0
    seed: int = 0

    @property
    def whole(self) -> bool:
        """Whether the samples are those of the dataset."""
        return self.fraction == 100 and self.contamination == 0

    def choose(self, dataset: Dataset, *, labelled: bool = False) -> Split:
        """The training samples of a dataset: normal ones in its order, then abnormal ones.

        The number of abnormal samples is such that they are `contamination` percent of all, of at
        least one. They carry no label and no mask.

        labelled: whether a method is trained with labels, which rules contamination out

        Raises DataError where there are too few abnormal training samples, or labels.
        """
        if self.whole:
            return dataset.train(labelled=labelled)
        if labelled and self.contamination:
            raise DataError(
                "a method that is trained with labels cannot be contaminated: abnormal samples are "
                "among its training samples, and marked"
            )
        split = dataset.train(labelled=labelled)
        rows = [(i, split[i].group) for i in range(len(split))]
        groups = self._ranked("fraction", sorted({group for _, group in rows}))
        chosen = {*groups[: max(1, round(len(groups) * self.fraction / 100))]}
        normal = [(split, i) for i, group in rows if group in chosen]
        return _Chosen([*normal, *self._abnormal(dataset, len(normal))], not labelled)

    def _abnormal(self, dataset: Dataset, normal: int) -> list[tuple[Split, int]]:
        if not self.contamination:
            return []
        split = dataset.train(labelled=True)
        rows = {split[i].key: i for i in range(len(split)) if split[i].label}
        share = self.contamination / 100
        wanted = max(1, round(normal * share / (1 - share)))
        if wanted > len(rows):
            raise DataError(
                f"{self.contamination:g} % of abnormal samples among the training samples are "
                f"{wanted}, and the dataset has {len(rows)} abnormal ones outside of validation "
                "and test; contaminate less, or take a dataset with labelled training samples"
            )
        return [(split, rows[key]) for key in self._ranked("contaminate", sorted(rows))[:wanted]]

    def _ranked(self, stream: str, names: Sequence[str]) -> list[str]:
        """Names in an order drawn from a named stream, the same on any machine."""

        def draw(name: str) -> bytes:
            return blake2b(f"{stream}/{self.seed}/{name}".encode(), digest_size=16).digest()

        return sorted(names, key=draw)


@dataclass(frozen=True)
class _Chosen:
    """Samples of splits, (split, index) each; with `unmarked` abnormal ones pass for normal."""

    rows: Sequence[tuple[Split, int]]
    unmarked: bool

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Sample:
        split, row = self.rows[index]
        sample = split[row]
        return replace(sample, label=False, mask=None, boxes=None) if self.unmarked else sample
