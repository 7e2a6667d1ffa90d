"""The first stage of a latent method: its codec is trained, whatever is diffused afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from ..runtime.context import TrainingContext
from ..runtime.rng import Rng
from ..training.data_loading import Examples
from ..training.loop import Training, train_module
from ..transforms.augmentation import random_shift
from ..transforms.resizing import ResizePad
from .autoencoder import VQ
from .codebook_init import initialize_codebook
from .codec import Codec


@dataclass(frozen=True)
class CodecTraining:
    """module: what is trained, by its own loss, as `plan` says, on samples that entered `canvas`.

    A codebook begins at encodings of the data. shift: the share of a side by which samples are
    moved at most, each step anew. fit_scale: give the latents unit variance afterwards, that of
    `max_samples` samples
    """

    module: Codec
    plan: Training
    canvas: ResizePad
    shift: float = 0.0
    fit_scale: bool = True
    max_samples: int = 512
    name: str = "codec"

    def settings(self) -> Mapping[str, object]:
        made = {"plan": asdict(self.plan), "canvas": asdict(self.canvas)}
        return {**made, "shift": self.shift, "measured": self.fit_scale and self.max_samples}

    def train(self, data: Examples, context: TrainingContext) -> None:
        """Have the module learnt: here, or by whoever put the same stage on the run's shelf."""
        context.shared_stages(self, lambda: self._train(data, context))

    def _train(self, data: Examples, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.module.loss(self.canvas.forward(random_shift(x, rng, self.shift)), rng)

        if isinstance(self.module, VQ):
            initialize_codebook(self.module, data, context, preprocess=self.canvas.forward)
        train_module(loss, self.module, data, context, self.plan, self.name)
        if self.fit_scale:
            self.module.fit_scale(
                data, context, preprocess=self.canvas.forward, max_samples=self.max_samples
            )
