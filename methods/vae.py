"""VAE: the reconstruction error of a variational autoencoder of normal samples. No diffusion.

The baseline of Wolleb et al., MICCAI 2022, arXiv 2203.04306, which names as its source Chen and
Konukoglu, "Unsupervised Detection of Lesions in Brain MRI using Constrained Adversarial
Auto-encoders", 2018, arXiv 1806.04972. https://github.com/aubreychen9012/cAAE

As there: the residual network of that repository, a code of 128 numbers, 500 epochs of batches of
10 at a learning rate of 1e-4; the map is the absolute difference. The repository has no VAE, so the
loss is the usual one: half the summed squared error plus the divergence. Differs: group norms in
place of batch norms; trained on normal samples alone (theirs: not documented). No average of
weights (EMA) is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.residual_autoencoder import ResidualAutoencoder, kl_divergence
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.search_space import Choice, Interval, SearchSpace
from ..engine.runtime.setting_types import Count, Many, NonNegative
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

TRAINING = Training(steps=280_000, batch=10, lr=1e-4, clip=None, ema=None)


class VAE(Method):
    """Score every pixel by its absolute reconstruction error, summed over channels.

    widths: channels at each resolution
    code: numbers in the code
    beta: weight of the divergence
    judged: the score is the map's mean, or the loss at the code's mean (the negative ELBO)

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.vae import VAE
    >>> method = VAE(Spec(1, (16, 16)), size=None, widths=(4, 8), code=4)
    >>> sum(p.numel() for p in method.parameters())
    8115
    """

    inference = frozenset({"judged"})

    search_space = SearchSpace(
        lr=Interval(2e-5, 1e-3, log=True),
        beta=Interval(0.1, 4.0, log=True),
        code=Choice(32, 64, 128, 256),
    )

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, widths: Many[Count] = (16, 32, 64, 128, 256), code: Count = 128,
        beta: NonNegative = 1.0, training: Training = TRAINING,
        judged: Literal["map", "elbo"] = "map",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        self.canvas = ResizePad(spec.shape, size, side_divisor(widths), low=0.0)
        self.coder = ResidualAutoencoder(
            self.canvas.padded_shape, spec.channels, widths, code, out=2 * code
        )
        self.plan = training
        self.beta, self.judged = beta, judged

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            inner = self.canvas.forward(x)
            mean, log_variance = self._posterior(inner)
            noise = rng.fork("code").normal(mean.shape[1:])
            decoded = self.coder.decode(mean + (log_variance / 2).exp() * noise)
            return self._negative_elbo(inner, decoded, mean, log_variance)

        train_module(loss, self.coder, train, context, self.plan)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        mean, log_variance = self._posterior(inner)
        decoded = self.coder.decode(mean)
        normal = self.canvas.inverse(decoded).expand(len(levels), *x.shape)
        detection = Detection.from_map((normal - x).abs().sum(2), normal)
        if self.judged == "map":
            return detection
        parts = (inner, decoded, mean, log_variance)
        rows = zip(*(part.split(1) for part in parts), strict=True)  # one by one: alike in a batch
        score = torch.cat([self._negative_elbo(*row) for row in rows])
        return replace(detection, score=score.expand(len(levels), -1))

    def _posterior(self, inner: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the code, (N, code) each."""
        mean, log_variance = self.coder.encode(inner).float().chunk(2, 1)
        return mean, log_variance

    def _negative_elbo(
        self, x: Tensor, decoded: Tensor, mean: Tensor, log_variance: Tensor
    ) -> Tensor:
        error = (decoded - x).float().square().flatten(1).sum(1) / 2
        return error + self.beta * kl_divergence(mean, log_variance)
