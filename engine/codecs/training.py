"""The first stage of a latent method: training its codec, whatever is diffused afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from torch import Tensor

from ..runtime.context import TrainingContext
from ..runtime.rng import Rng
from ..training.data_loading import Examples
from ..training.loop import Training, train_module
from ..transforms.amplitude import Amplitude, to_units, unit_of
from ..transforms.augmentation import random_shift
from ..transforms.resizing import ResizePad
from .autoencoder import VQ, VQGAN
from .codebook_init import initialize_codebook
from .codec import Codec


@dataclass(frozen=True)
class CodecTraining:
    """The training of a codec by its own loss, a stage that methods share.

    A codebook begins at encodings of the data.

    module: the codec
    plan: number of steps and their settings
    canvas: brings samples into the codec's shape and range
    shift: the share of a side by which samples are shifted at most, anew at each step
    fit_scale: give the latents unit variance afterwards, unless imported weights have a scale
    max_samples: from which the variance is taken
    name: in the state store and in the random streams
    amplitude, unit: of signals that the codec sees about 0 in this unit, see `amplitude.unit_of`;
        None for samples that it sees as the canvas has them

    >>> from adbench.engine.codecs.training import CodecTraining
    >>> from adbench.engine.training.loop import Training
    >>> from adbench.engine.transforms.resizing import ResizePad
    >>> from adbench.engine.codecs.codec import Identity
    >>> canvas, plan = ResizePad((8, 8)), Training(steps=1, batch=1, lr=0.1)
    >>> CodecTraining(Identity((1, 8, 8)), plan, canvas).settings()["measured"]
    512
    """

    module: Codec
    plan: Training
    canvas: ResizePad
    shift: float = 0.0
    fit_scale: bool = True
    max_samples: int = 512
    name: str = "codec"
    amplitude: Amplitude | None = None
    unit: Tensor | None = None

    def settings(self) -> Mapping[str, object]:
        """All that the trained codec depends on besides the data, the seed and the module."""
        settings: dict[str, object] = {"plan": asdict(self.plan), "canvas": asdict(self.canvas)}
        settings |= {"shift": self.shift, "measured": self.fit_scale and self.max_samples}
        return settings if self.amplitude is None else {**settings, "amplitude": self.amplitude}

    def train(self, data: Examples, context: TrainingContext) -> None:
        """Train the codec, or load it where the context's cache has the same stage."""
        context.shared_stages(self, lambda: self._train(data, context))

    def _train(self, data: Examples, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.module.loss(self._preprocess(random_shift(x, rng, self.shift)), rng)

        imported = context.imported_weights(self.module)
        if isinstance(self.module, VQ | VQGAN) and not imported:
            initialize_codebook(self.module, data, context, preprocess=self._preprocess)
        train_module(loss, self.module, data, context, self.plan, self.name)
        if self.fit_scale and "scale" not in imported:
            self.module.fit_scale(
                data, context, preprocess=self._preprocess, max_samples=self.max_samples
            )

    def _preprocess(self, x: Tensor) -> Tensor:
        return to_units(self.canvas.forward(x), unit_of(self.amplitude, x, self.unit))
