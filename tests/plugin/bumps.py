"""A dataset of somebody else's: smooth fields; half of the tested ones carry a bright bump."""

from collections.abc import Sequence

import torch

from adbench.datasets.base import DataError, Dataset, Progress, Sample, Spec, Split, no_progress
from adbench.engine.runtime.rng import Rng


class Bumps(Dataset):
    synthetic = True

    def __init__(
        self,
        *,
        shape: Sequence[int] = (16, 16),
        train: int = 12,
        size: int = 20,
        height: float = 0.3,
        broken: bool = False,
        root: str | None = None,
    ) -> None:
        self.spec = Spec(1, tuple(shape))
        self.counts = {"train": train, "held_out": size // 2, "val": size, "test": size}
        self.height, self.broken = height, broken

    def prepare(self, progress: Progress = no_progress) -> None:
        if self.broken:
            raise DataError(
                "2 of 3 files are unusable. Nothing was cached.", ["a: bad", "b: worse"]
            )
        progress("make", 1, 1)

    def train(self, *, labelled: bool = False) -> Split:
        return self._part("train", abnormal=False)

    def calibration(self) -> Split:
        return self._part("held_out", abnormal=False)

    def val(self) -> Split:
        return self._part("val", abnormal=True)

    def test(self) -> Split:
        return self._part("test", abnormal=True)

    def _part(self, name: str, *, abnormal: bool) -> list[Sample]:
        count = self.counts[name]
        return [self._sample(f"{name}{i}", abnormal and i % 2 == 1) for i in range(count)]

    def _sample(self, key: str, abnormal: bool) -> Sample:
        u = Rng([key]).uniform((8,))[0].float()
        axes = torch.meshgrid(*[torch.linspace(0, 1, n) for n in self.spec.shape], indexing="ij")
        x = 0.4 + sum(0.1 * torch.sin(3 * a + 6 * u[i]) for i, a in enumerate(axes))
        far = sum((a - 0.2 - 0.6 * u[4 + i]) ** 2 for i, a in enumerate(axes))
        mask = torch.as_tensor(far) < 0.03
        mask = mask if abnormal else torch.zeros_like(mask)
        tags = {"lesion": "bump"} if abnormal else {}
        x = torch.as_tensor(x) + self.height * mask
        return Sample(x[None].float(), key, key, abnormal, mask, tags=tags)
