"""The first stage of a latent method: its codec is trained, whatever is diffused afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from ..runtime.rng import Rng
from ..runtime.run import Run
from ..training.data_loading import Examples
from ..training.loop import Training, minimise
from ..transforms.augmentation import shifted
from ..transforms.resizing import Canvas
from .autoencoder import VQ
from .codebook_init import seed_codes
from .codec import Codec


@dataclass(frozen=True)
class Coding:
    """module: what is trained, by its own loss, as `plan` says, on samples that entered `canvas`.

    A codebook begins at encodings of the data. shift: the share of a side by which samples are
    moved at most, each step anew. measured: give the latents unit variance afterwards, that of
    `most` samples
    """

    module: Codec
    plan: Training
    canvas: Canvas
    shift: float = 0.0
    measured: bool = True
    most: int = 512
    name: str = "codec"

    def settings(self) -> Mapping[str, object]:
        made = {"plan": asdict(self.plan), "canvas": asdict(self.canvas)}
        return {**made, "shift": self.shift, "measured": self.measured and self.most}

    def take(self, data: Examples, run: Run) -> None:
        """Have the module learnt: here, or by whoever put the same stage on the run's shelf."""
        run.shelf(self, lambda: self._learn(data, run))

    def _learn(self, data: Examples, run: Run) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.module.loss(self.canvas.enter(shifted(x, rng, self.shift)), rng)

        if isinstance(self.module, VQ):
            seed_codes(self.module, data, run, enter=self.canvas.enter)
        minimise(loss, self.module, data, run, self.plan, self.name)
        if self.measured:
            self.module.measure(data, run, enter=self.canvas.enter, most=self.most)
