"""ImDiffusion: impute every other stripe of a signal by diffusion; the steps of the chain vote.

Chen, Zhang, Ma, Liu, Ding, Li, He, Rajmohan, Lin and Zhang, "ImDiffusion: Imputed Diffusion Models
for Multivariate Time Series Anomaly Detection", VLDB 2024. https://arxiv.org/abs/2307.00754
https://github.com/17000cyh/IMDiffusion (no licence: written from the paper's description alone)

As the paper is described (its own text was not at hand): a window is cut into stripes, of which
every other one is masked; both gratings are imputed, so that every value is imputed once, from
values on both of its sides. The model is unconditional: the values that are not masked get noise as
well, and the network is shown that noise in place of the values (`reference="values"` is CSDI's
conditional model). The estimates along the chain are an ensemble: each step votes where its error
is above its threshold.

Differs: thresholds are a quantile of each step's errors on calibration samples, theirs are one
threshold of the last step on test errors, scaled for each other step by the total error; among
values with equally many votes the error of the last step decides, so that scores are ordered; an
error is that of the estimate of the clean signal, which is clamped to 6 units of amplitude. Not in
the sources that were read, and chosen here: the network's size (that of CSDI, on which the paper
builds), the schedule (CSDI's 50 levels, with beta from 0.03 to 0.39), and the noise level, which is
the highest level whose estimate votes: chains start from pure noise always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser, Estimate
from ..engine.diffusion.gaussian import Gaussian
from ..engine.diffusion.schedule import sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.imputation_transformer import ImputationTransformer
from ..engine.noise.noise import gaussian
from ..engine.runtime.context import Interrupted, TrainingContext
from ..engine.runtime.out_of_memory import retry_out_of_memory
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import Count, Several
from ..engine.runtime.transfer import to_device
from ..engine.sampling.continuous_batching import ChainBatch, Step, one_step_per_level, run_chains
from ..engine.sampling.step_noise import StepNoise
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, train_module
from ..engine.transforms.amplitude import (
    PEAK,
    SILENCE,
    Amplitude,
    fit_unit,
    from_units,
    to_units,
    unit_of,
)
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method

Reference = Literal["noise", "values"]
Quantile = Annotated[float, Meta(gt=0, lt=1)]


@dataclass(frozen=True)
class TransformerConfig:
    """The size of the network.

    layers: residual blocks.
    width: channels of every value inside.
    heads: of attention; they divide the width.
    """

    layers: Count = 4
    width: Count = 64
    heads: Count = 8


NETWORK = TransformerConfig()
SCHEDULE = ScheduleConfig(T=50, beta="scaled_linear")
TRAINING = Training(steps=20_000, batch=16, lr=1e-3, weight_decay=1e-6, ema=None)


class ImDiffusion(Method):
    """Impute stripes of a signal, and count the steps whose error is above its threshold.

    network: of the transformer.
    window: steps that are imputed together, from each other alone.
    stripes: in a window, an even number that divides it; every other one is masked.
    reference: what the network is shown of the rest: its noise, or its values.
    vote_every: every so many levels, from level 1 up, an estimate may vote.
    quantile: the share of errors on calibration samples that are below a step's threshold.
    calibration: number of calibration samples at most.
    amplitude: the unit of signals.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.imdiffusion import ImDiffusion, TransformerConfig
    >>> method = ImDiffusion(Spec(1, (130,)), network=TransformerConfig(1, 8, 2))
    >>> method.canvas.padded_shape, method.voters[:4]
    ((200,), [1, 4, 7, 10])
    """

    levels, published = (200, 400, 600, 800, 1000), 600
    ndims = frozenset({1})
    unit: Tensor  # (): of the amplitude of training samples
    thresholds: Tensor  # (K,), of the errors of each voter
    gratings: Tensor  # (2, 1, padded length) bool, true where values are imputed

    def __init__(
        self, spec: Spec, *,
        network: TransformerConfig = NETWORK, schedule: ScheduleConfig = SCHEDULE,
        window: Several = 100, stripes: Several = 10, reference: Reference = "noise",
        training: Training = TRAINING, vote_every: Count = 3, quantile: Quantile = 0.98,
        calibration: Count = 256, amplitude: Amplitude = "train",
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if stripes % 2 or window % stripes:
            raise ValueError(f"stripes={stripes} are not an even number that divides {window}")
        self.canvas = ResizePad(spec.shape, None, window, low=0.0)
        net = ImputationTransformer(spec.channels, window=window, layers=network.layers,
            width=network.width, heads=network.heads)  # fmt: skip
        peak = SILENCE if amplitude == "none" else PEAK
        self.denoiser = Denoiser(net, schedule.build(), clip=(-peak, peak),
            trained_on=f"{stripes} stripes of {window}, {reference}, amplitude by {amplitude}",
        )  # fmt: skip
        self.plan, self.quantile, self.calibration = training, quantile, calibration
        self.reference: Reference = reference
        self.amplitude: Amplitude = amplitude
        self.voters = list(range(1, self.denoiser.schedule.T + 1, vote_every))
        stripe = torch.arange(self.canvas.padded_shape[0]) // (window // stripes) % 2
        grating = torch.stack([stripe == 0, stripe == 1])[:, None]
        self.register_buffer("gratings", grating, persistent=False)
        self.register_buffer("unit", torch.ones(()))
        self.register_buffer("thresholds", torch.ones(len(self.voters)))

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self._loss(self._normalise(x), rng)

        if not len(calibration):
            raise ValueError("thresholds are taken from calibration samples; there are none")
        self.unit = fit_unit(self.amplitude, train).to(context.device)
        context.place(self)
        train_module(loss, self.denoiser, train, context, self.plan)
        retry_out_of_memory(
            lambda: self._calibrate(calibration, context),
            self, context, "calibrating", context.on_event,
        )  # fmt: skip

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        estimates, errors = self._impute(x, rng)
        votes = (errors > self.thresholds.to(x.device)[:, None, None]).cumsum(0)  # (K, N, *S)
        tie_break = errors[0] / (errors[0] + self.thresholds[0].to(x.device))
        highest = [self.denoiser.schedule.to_level(level) for level in levels]
        counts = [max(1, sum(voter <= level for voter in self.voters)) for level in highest]
        maps = [(votes[count - 1] + tie_break) / (count + 1) for count in counts]
        normal = from_units(estimates[0], unit_of(self.amplitude, x, self.unit))
        return Detection.from_map(torch.stack(maps), normal.expand(len(levels), *normal.shape))

    def _normalise(self, x: Tensor) -> Tensor:
        return to_units(self.canvas.forward(x), unit_of(self.amplitude, x, self.unit))

    def _loss(self, z: Tensor, rng: Rng) -> Tensor:
        """Mean squared error of the noise on the stripes that are masked, (N,)."""
        denoiser = self.denoiser
        mask = self.gratings[rng.fork("grating").integers(2)]  # (N, 1, padded)
        level = 1 + rng.fork("level").integers(denoiser.schedule.T)
        eps = gaussian(rng.fork("noise"), z.shape[1:], level)
        outside, reference = self._known(z, eps, mask)
        noisy = torch.where(mask, denoiser.process.add_noise(z, level, eps), outside(level))
        prediction = denoiser.predict(noisy, level, reference, mask.expand_as(z).to(z.dtype))
        return ((prediction - eps).square() * mask).flatten(1).mean(1) * 2

    def _known(self, z: Tensor, eps: Tensor, mask: Tensor) -> tuple[KnownStripes, Tensor]:
        """What stands outside the mask at each level, and what the network is shown of it."""
        if self.reference == "noise":
            return KnownStripes(self.denoiser.process_as(Gaussian), z, eps), eps * ~mask
        silent = torch.zeros_like(z)
        return KnownStripes(self.denoiser.process_as(Gaussian), silent, silent), z * ~mask

    @torch.no_grad()
    def _impute(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """The estimates of the voters (K, N, C, *S) in units, and their squared errors (K, N, *S).

        Both gratings are imputed, and every value taken from that in which it was masked.
        """
        denoiser, z = self.denoiser, self._normalise(x)
        streams = Rng.cat([rng.fork("grating", i) for i in range(2)])
        mask, both = self.gratings.repeat_interleave(len(z), 0), z.repeat(2, 1, 1)
        top = denoiser.schedule.T
        level = torch.full((len(both),), top, device=z.device)
        eps = gaussian(streams.fork("known"), z.shape[1:], level)
        outside, reference = self._known(both, eps, mask)
        start = gaussian(streams.fork("start"), z.shape[1:], level)
        step_noise = StepNoise(streams.fork("step"), gaussian)
        estimates = z.new_zeros(len(self.voters), *both.shape)
        sampler = StripeImputation(outside, mask, step_noise, self.voters, estimates)
        run_chains(
            denoiser, sampler, torch.where(mask, start, outside(level)),
            [sampling_levels(top)] * len(both),
            conditioning=[reference, mask.expand_as(both).to(z.dtype)],
        )  # fmt: skip
        one, other = estimates.split(len(z), 1)
        imputed = torch.where(self.gratings[0], one, other)
        errors = (imputed - z).square().mean(2)
        return self.canvas.inverse(imputed), self.canvas.inverse(errors)

    def _calibrate(self, calibration: Split, context: TrainingContext) -> None:
        indices = evenly_spaced_indices(len(calibration), self.calibration)
        samples = [calibration[i] for i in indices]
        x = torch.stack([s.x for s in samples]).to(context.device)
        rng = Rng([s.key for s in samples], context.seed, context.device).fork("calibrate")
        errors = []
        for part in torch.arange(len(x)).split(max(1, context.batch // 2)):
            if context.stop():
                raise Interrupted(f"stopped calibrating at calibration sample {part[0]}")
            errors.append(self._impute(x[to_device(part, x.device)], rng.rows(part))[1])
        values = torch.cat(errors, 1).flatten(1).double()
        self.thresholds.copy_(torch.quantile(values, self.quantile, dim=1).clamp(min=1e-9))


@dataclass(frozen=True)
class KnownStripes:
    """The values that are not imputed, at any level: with the same noise throughout a chain.

    process: of the denoiser
    z: the signals, (M, C, L); zeros where the network is shown the values elsewhere
    eps: their noise, (M, C, L)

    >>> import torch
    >>> from adbench.engine.diffusion.gaussian import Gaussian
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> from adbench.methods.imdiffusion import KnownStripes
    >>> one = torch.ones(1, 1, 2)
    >>> KnownStripes(Gaussian(build_schedule("even", 4)), one, 0 * one)(torch.tensor([3]))
    tensor([[[0.5000, 0.5000]]])
    """

    process: Gaussian
    z: Tensor
    eps: Tensor

    def __call__(self, level: Tensor, index: Tensor | None = None) -> Tensor:
        """The values of the chains at `index`, of all if None, each at its level (B,)."""
        z, eps = (self.z, self.eps) if index is None else (self.z[index], self.eps[index])
        return self.process.add_noise(z, level, eps)


@dataclass(frozen=True)
class StripeImputation:
    """DDPM's step of the masked stripes; the others stay as they are known, estimates are recorded.

    known: the values that are not masked
    mask: (M, 1, L) bool, true where values are imputed
    step_noise: of every chain
    voters: levels whose estimate of the clean signal is recorded
    estimates: (K, M, C, L), written as the chains pass the voters

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> from adbench.engine.noise.noise import gaussian
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.engine.sampling.continuous_batching import run_chains
    >>> from adbench.engine.sampling.step_noise import StepNoise
    >>> from adbench.methods.imdiffusion import KnownStripes, StripeImputation
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), linear_schedule(), prediction_type="clean").eval()
    >>> x, mask = torch.ones(1, 1, 2), torch.tensor([[[True, False]]])
    >>> known, estimates = KnownStripes(denoiser.process, x, 0 * x), torch.ones(1, 1, 1, 2)
    >>> step_noise = StepNoise(Rng(["a"]), gaussian)
    >>> sampler = StripeImputation(known, mask, step_noise, [2], estimates)
    >>> run_chains(denoiser, sampler, x, [[2, 1, 0]]), estimates
    (tensor([[[0., 1.]]]), tensor([[[[0., 0.]]]]))
    """

    known: KnownStripes
    mask: Tensor
    step_noise: StepNoise
    voters: Sequence[int]
    estimates: Tensor
    memory = 0

    def plan_steps(self, levels: Sequence[int]) -> list[Step]:
        return one_step_per_level(levels)

    def advance(self, x: Tensor, memory: Tensor, estimate: Estimate, batch: ChainBatch) -> Tensor:
        start, end, chain = batch.start_level, batch.end_level, batch.device_chain
        y = self.known.process.reverse_step(
            estimate.clean, estimate.noise, start, end, self.step_noise(batch, x)
        )
        self._record(estimate.clean, batch)
        return torch.where(self.mask[chain], y, self.known(end, chain))

    def _record(self, clean: Tensor, batch: ChainBatch) -> None:
        at = [
            (self.voters.index(path[0].start_level), chain, row)
            for row, (chain, path) in enumerate(
                zip(batch.chain.tolist(), batch.upcoming, strict=True)
            )
            if path[0].start_level in self.voters
        ]
        if at:
            voter, chain, row = to_device(torch.tensor(at).T, clean.device)
            self.estimates[voter, chain] = clean[row]
