"""DiffPath: how unusual are six statistics of the path that inverts a sample to noise.

Heng et al., "Out-of-Distribution Detection with a Single Unconditional Diffusion Model", NeurIPS
2024. https://arxiv.org/abs/2405.11881 https://github.com/clear-nus/diffpath

As in the authors' code (DiffPath-6D): ten steps of DDIM's ODE upwards; of the noise estimates at
all steps and of their differences from one step to the next the sums of the values, of their
squares and of their cubes; these six numbers standardised; a mixture of normal distributions, whose
number of components and kind of covariance have the highest likelihood in cross-validation; the
score is the negative log density. There is no map. The network is that of their CelebA model: 4000
levels of the cosine schedule, learned variance, x_0 clipped to the range of the data.

Differs: theirs is one model of other images (CelebA, ImageNet) for all data sets, with the mixture
fitted to training images, which the model has not seen; here the model is trained on normal samples
and the mixture is fitted to normal calibration samples, which it has not seen either. Means take
the place of sums, which is the same after standardisation. Cross-validation leaves out whole
groups, and mixtures with more components than samples are not tried. A noise level is where the
inversion ends; theirs is the highest. There is a mixture for each of four levels, and another level
stands for the nearest of them. Weights trained elsewhere can be imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, pi
from typing import Any, Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.per_sample_dropout import PerSampleDropout
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.runtime.context import Interrupted, TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Decay, Many, Several
from ..engine.runtime.transfer import to_device
from ..engine.sampling.continuous_batching import ChainBatch
from ..engine.sampling.reconstruct import SamplingConfig, ddim_invert
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

NETWORK = HeadsUNetConfig(128, (1, 2, 2, 2), 3, attention=(False, True, True, False), heads=4)
SCHEDULE = ScheduleConfig(T=4000, beta="cosine")
TRAINING = Training(steps=500_000, batch=128, lr=1e-4, clip=None)
CovarianceKind = Literal["full", "tied", "diag", "spherical"]
COVARIANCES: tuple[CovarianceKind, ...] = ("full", "tied", "diag", "spherical")
FOLDS = 10
STATISTICS = 6


class DiffPath(Method):
    """Score a sample by the density of six statistics of its inversion; no map.

    dropout: probability.
    sampling_steps: network calls of the inversion, at least 2.
    mixture_sizes: numbers of normal distributions in the mixture that are tried.
    calibration: number of calibration samples at most.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.diffpath import DiffPath
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> method = DiffPath(Spec(1, (16, 16)), network=network, mixture_sizes=(1, 5))
    >>> method.means.shape, method.chain.steps  # levels, components, statistics
    (torch.Size([4, 5, 6]), 10)
    """

    levels, published = (250, 500, 750, 1000), 1000
    centre: Tensor  # (L, 6) of the statistics at each level of `levels`
    scale: Tensor  # (L, 6)
    weights: Tensor  # (L, K) of the mixture; 0 of components that are not used
    means: Tensor  # (L, K, 6)
    precisions: Tensor  # (L, K, 6, 6), Cholesky factors of the inverse covariances

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 32, network: HeadsUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, dropout: Decay = 0.3,
        training: Training = TRAINING, sampling_steps: Several = 10,
        mixture_sizes: Many[Count] = (50, 100), calibration: Several = 10_000,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if calibration < min(mixture_sizes):
            raise ValueError(
                f"calibration={calibration} samples are fewer than the {min(mixture_sizes)} parts "
                f"of the smallest of mixture_sizes"
            )
        self.canvas = ResizePad(spec.shape, size, network.side_divisor)
        net = network.build(len(spec.shape), spec.channels, out_channels=2 * spec.channels,
            scale_shift=True, eps=1e-5, zero_attention=True)  # fmt: skip
        self.denoiser = Denoiser(
            net, schedule.build(), clip=self.canvas.range, learns_variance=True,
            trained_on=f"gaussian on {self.canvas}",
        )  # fmt: skip
        self.dropout = PerSampleDropout(net, dropout)
        self.plan, self.chain = training, SamplingConfig(sampling_steps)
        self.mixture_sizes, self.calibration = tuple(mixture_sizes), calibration
        lead, most = len(self.levels), max(mixture_sizes)
        self.register_buffer("centre", torch.zeros(lead, STATISTICS).double())
        self.register_buffer("scale", torch.ones(lead, STATISTICS).double())
        self.register_buffer("weights", torch.zeros(lead, most).double())
        self.register_buffer("means", torch.zeros(lead, most, STATISTICS).double())
        identity = torch.eye(STATISTICS).double()
        self.register_buffer("precisions", identity.repeat(lead, most, 1, 1))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        if len(calibration) < 2:
            raise ValueError(
                "DiffPath fits its mixture to calibration samples, at least 2; there "
                f"are {len(calibration)}"
            )
        if len(calibration) < min(self.mixture_sizes):
            raise ValueError(
                f"a mixture of {min(self.mixture_sizes)} needs as many calibration samples "
                f"at least; there are {len(calibration)}: give smaller `mixture_sizes`"
            )

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            inner = self.canvas.forward(x)
            with self.dropout.with_streams(rng, inner):
                return self.denoiser.loss(inner, rng)

        train_module(loss, self.denoiser, train, context, self.plan, "diffusion")
        context.place(self)
        retry_out_of_memory(
            lambda: self._fit_mixtures(calibration, context),
            self, context, "calibrating", context.on_event,
        )  # fmt: skip

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        scores: dict[int, Tensor] = {}
        nearest = [min(self.levels, key=lambda known: abs(known - level)) for level in levels]
        for level in sorted(set(nearest)):
            statistics = self.statistics(inner, level)
            scores[level] = -self._log_density(statistics, self.levels.index(level))
        return Detection(torch.stack([scores[level] for level in nearest]).to(x.dtype))

    def statistics(self, inner: Tensor, level: int) -> Tensor:
        """Six numbers of the inversion of each sample up to a level, (N, 6) float64.

        The means of the noise estimates, their squares and their cubes over all steps; and of
        their differences from step to step, per share of the path.

        inner: (N, C, *S), in the denoiser's range
        """
        recorder = _PathRecorder(len(inner), inner)
        ddim_invert(self.denoiser, inner, [level], sampling=self.chain, guide=recorder.record_step)
        return recorder.statistics()

    def _log_density(self, statistics: Tensor, index: int) -> Tensor:
        """The log density of statistics (N, 6) by the mixture of one of `levels`, (N,)."""
        z = (statistics - self.centre[index]) / self.scale[index]
        means, factors = self.means[index], self.precisions[index]
        away = ((z[:, None] - means)[..., None, :] @ factors)[..., 0, :]  # (N, K, 6)
        determinant = factors.diagonal(dim1=-2, dim2=-1).log().sum(-1)  # (K,)
        log_normal = determinant - (away.square().sum(-1) + STATISTICS * log(2 * pi)) / 2
        return (log_normal + self.weights[index].log()).logsumexp(1)

    @torch.no_grad()
    def _fit_mixtures(self, calibration: Split, context: TrainingContext) -> None:
        """Fit centre, scale and mixture of every level to calibration samples."""
        samples = [
            calibration[i] for i in evenly_spaced_indices(len(calibration), self.calibration)
        ]
        groups = [sample.group for sample in samples]
        for index, level in enumerate(self.levels):
            parts = []
            for start in range(0, len(samples), 32):
                if context.stop():
                    raise Interrupted(f"stopped calibrating at calibration sample {start}")
                x = torch.stack([s.x for s in samples[start : start + 32]]).to(context.device)
                parts.append(self.statistics(self.canvas.forward(x), level).cpu())
            values = torch.cat(parts)
            centre, scale = values.mean(0), values.std(0, correction=0)
            scale = torch.where(scale > 0, scale, 1.0)
            seed = int(Rng(["mixture"], context.seed).at(level).seeds(1).item() % 2**32)
            mixture = select_mixture((values - centre) / scale, groups, self.mixture_sizes, seed)
            count = len(mixture.weights_)
            self.centre[index], self.scale[index] = centre, scale
            self.weights[index] = 0.0
            self.weights[index, :count] = torch.from_numpy(mixture.weights_)
            self.means[index, :count] = torch.from_numpy(mixture.means_)
            self.precisions[index, :count] = _precision_factors(mixture)


class _PathRecorder:
    """The guide that changes nothing, and sums what passes by at every step of every chain."""

    def __init__(self, chains: int, like: Tensor) -> None:
        self.sums = torch.zeros(chains, STATISTICS, dtype=torch.float64, device=like.device)
        self.previous = torch.zeros_like(like)
        self.steps = [0] * chains

    def record_step(
        self, x: Tensor, noise: Tensor, clean: Tensor, batch: ChainBatch
    ) -> tuple[Tensor, Tensor]:
        index = batch.device_chain
        change = noise - self.previous[index]
        for row, chain in enumerate(batch.chain.tolist()):
            value, first = noise[row].double(), self.steps[chain] == 0
            self.sums[chain, :3] += _moments(value)
            if not first:
                self.sums[chain, 3:] += _moments(change[row].double())
            self.steps[chain] += 1
        self.previous[index] = noise
        return noise, clean

    def statistics(self) -> Tensor:
        """(N, 6); the change counts per share of the path, as if it had one step in all."""
        counts = torch.tensor(self.steps, dtype=torch.float64)[:, None]
        steps = to_device(counts, self.sums.device)
        powers = torch.arange(1, 4, dtype=torch.float64, device=self.sums.device)
        noise = self.sums[:, :3] / steps.clamp(min=1)
        change = self.sums[:, 3:] / (steps - 1).clamp(min=1) * steps**powers
        return torch.cat([noise, change], 1)


def _moments(values: Tensor) -> Tensor:
    """The means of the values of one sample, of their squares and of their cubes, (3,)."""
    return torch.stack([values.mean(), values.square().mean(), (values**3).mean()])


def select_mixture(
    values: Tensor, groups: Sequence[str], components: Sequence[int], seed: int
) -> Any:
    """Fit the mixture of normal distributions that is most probable in cross-validation.

    Of all kinds of covariance and numbers of components. Returns scikit-learn's GaussianMixture.

    values: (N, D) float64
    groups: of each; all of one is left out together, in up to ten folds
    components: numbers that are tried, those above the size of a training fold are not
    seed: of its starting values

    >>> import torch
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.diffpath import select_mixture
    >>> values = Rng(["a"]).normal((60, 2))[0].double()
    >>> values[30:] += 9  # two clusters
    >>> groups = [f"patient {i}" for i in range(60)]
    >>> select_mixture(values, groups, (1, 2), seed=0).n_components
    2
    """
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import GroupKFold, cross_val_score

    data = values.numpy()
    folds = min(FOLDS, len(set(groups)))
    smallest = len(data) if folds < 2 else len(data) - -(-len(data) // folds)
    numbers = [number for number in components if number <= smallest] or [min(components)]
    kinds = [
        GaussianMixture(number, covariance_type=kind, max_iter=200, random_state=seed)
        for number in numbers
        for kind in COVARIANCES
    ]
    if len(numbers) * len(COVARIANCES) > 1 and folds > 1 and numbers[0] <= smallest:
        splits = GroupKFold(folds)
        likelihoods = [
            cross_val_score(kind, data, groups=list(groups), cv=splits).mean() for kind in kinds
        ]
        best = kinds[max(range(len(kinds)), key=likelihoods.__getitem__)]
    else:
        best = kinds[-1]  # the simplest
    return best.fit(data)


def _precision_factors(mixture: Any) -> Tensor:
    """The Cholesky factors of a mixture's inverse covariances, (K, D, D), of whatever kind."""
    factors = torch.from_numpy(mixture.precisions_cholesky_)
    count, size = mixture.means_.shape
    if mixture.covariance_type == "full":
        return factors
    if mixture.covariance_type == "tied":
        return factors.expand(count, size, size)
    if mixture.covariance_type == "spherical":
        factors = factors[:, None].expand(count, size)
    return factors.diag_embed()
