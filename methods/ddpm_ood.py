"""DDPM-OOD: restore a sample from many levels, and see how much worse it goes than normal.

Graham et al., "Denoising diffusion models for out-of-distribution detection", CVPR Workshops (VAND)
2023. https://arxiv.org/abs/2211.07740 https://github.com/marksgraham/ddpm-ood

As in the authors' code: data in [0, 1]; PLMS on a grid of 100 levels, from every `skip`-th of them
with noise of its own; each start's squared error as standard deviations from that of held-out
normal samples; the mean over starts is the score. Differs, and named where an argument brings
theirs back: the first step is made twice, as PLMS has it (`lagged`); chains end at a clean sample
(`final_noise`: at level 1, which leaves an error of 0.0015); intensities are the data set's
(`rescale` stretches each sample to [0, 1]). Every chain starts without a history, where theirs
takes over that of the start below. A map is added, theirs are scores alone: the mean over starts
of the squared error in held-out deviations; for looking at there is the mean of what they restore.
The noise level is the highest start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Sample, Spec, Split
from ..engine.canvas import Canvas
from ..engine.denoiser import Denoiser
from ..engine.features import perceptual as network
from ..engine.nets import divisor, unet
from ..engine.noise import named
from ..engine.rng import Rng
from ..engine.run import Interrupted, Run
from ..engine.sample import Chain, descend, repeated, rows
from ..engine.schedule import Schedule, ladder, schedule
from ..engine.train import Training, minimise
from .base import Detection, Method

VALUES = 2**26
"""At most about so many values are restored at once; how many changes no result."""


class DDPMOOD(Method):
    """sampling_steps: levels of the grid. skip: every so many of them a chain starts, from the
    second lowest up. bounded: estimates are clamped to [0, 1] on the way, which theirs are not but
    short trainings need. perceptual: features whose distance is added as a second measure, for
    images. snr_shift: how many times the schedule's signal-to-noise. calibration: held-out samples
    looked at. A level below the lowest start stands for that start alone.
    """

    levels, published = (250, 500, 750, 1000), 1000
    mean: Tensor  # (K, M) of each start's measures on held-out normal samples
    deviation: Tensor  # (K, M)

    def __init__(
        self, spec: Spec, *,
        size: int | None = 32, widths: Sequence[int] = (128, 256, 256), res_blocks: int = 1,
        attention: Sequence[bool] = (False, False, True), head_channels: int = 256,
        beta: str = "scaled_linear", snr_shift: float = 1.0, noise: str = "gaussian",
        steps: int = 33_400, batch: int = 512, lr: float = 2.5e-5, clip: float | None = None,
        ema: float | None = None, ema_warm: bool = False,
        decay: Literal["none", "cosine"] = "none", rescale: bool = False,
        sampling_steps: int = 100, skip: int = 4, lagged: bool = False, final_noise: bool = False,
        bounded: bool = False, perceptual: str | None = None, calibration: int = 256,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if perceptual is not None and len(spec.shape) != 2:
            raise ValueError(f"perceptual distance is of images, not of {len(spec.shape)} axes")
        if not 2 <= sampling_steps <= 1000 or skip < 1:
            raise ValueError(
                f"sampling_steps lie in 2..1000 and skip is at least 1: {sampling_steps}, {skip}"
            )
        self.canvas = Canvas(spec.shape, size, divisor(widths), low=0.0)
        self.noise, self.network = named(noise), None if perceptual is None else network(perceptual)
        net = unet(len(spec.shape), spec.channels, widths, res_blocks=res_blocks,
            attention=attention, head_channels=head_channels)  # fmt: skip
        about = f"{self.noise} on {self.canvas}"
        if self.network is not None:
            about += f", z by {self.network.identity}"
        clamp = self.canvas.range if bounded else None
        self.denoiser = Denoiser(net, shifted(schedule(beta), snr_shift), clip=clamp, about=about)
        self.plan = Training(steps, batch, lr, clip=clip, ema=ema, ema_warm=ema_warm, decay=decay)
        self.stride = 1000 // sampling_steps
        self.starts = [1 + self.stride * k for k in range(1, sampling_steps, skip)]
        self.chain = Chain(sampler="plms", stride=self.stride, lagged=lagged)
        self.final_noise, self.rescale, self.calibration = final_noise, rescale, calibration
        shape = len(self.starts), 1 + (self.network is not None)
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))

    def fit(self, train: Split, held_out: Split, run: Run) -> None:
        count = min(len(held_out), self.calibration)
        if count < 2:
            raise ValueError(f"DDPM-OOD takes z-scores from held-out samples; {count} are too few")

        def loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(self._entered(x), rng, noise=self.noise)

        minimise(loss, self.denoiser, train, run, self.plan)
        run.place(self)
        self._calibrate([held_out[i * len(held_out) // count] for i in range(count)], run)

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        counts = [max(1, sum(start <= level for start in self.starts)) for level in levels]
        score = x.new_zeros(len(levels), len(x))
        found = x.new_zeros(len(levels), len(x), *x.shape[2:])
        normal = x.new_zeros(len(levels), *x.shape)
        for part in self._parts(x, max(counts)):
            z, heat = x.new_zeros(len(part)), x.new_zeros(len(part), *x.shape[2:])
            total = torch.zeros_like(x[part])
            looks = self._looks(x[part], rng.rows(part), max(counts))
            for k, (fields, healed) in enumerate(looks):
                for m in range(fields.shape[1]):  # one by one: sums then round alike in any batch
                    far = fields[:, m].flatten(1).mean(1)
                    z += (far - self.mean[k, m]) / self.deviation[k, m]
                    heat += fields[:, m] / self.deviation[k, m]
                total += healed
                for i in (i for i, count in enumerate(counts) if count == k + 1):
                    score[i, part], found[i, part] = z / (k + 1), heat / (k + 1)
                    normal[i, part] = total / (k + 1)
        return Detection(score, found, normal)

    def _entered(self, x: Tensor) -> Tensor:
        if self.rescale:
            shape = (-1, *[1] * (x.ndim - 1))
            low, high = x.flatten(1).aminmax(dim=1)
            x = (x - low.view(shape)) / (high - low).clamp(min=1e-6).view(shape)
        return self.canvas.enter(x)

    def _parts(self, x: Tensor, count: int, *, most: int | None = None) -> Iterator[Tensor]:
        """Which samples to restore together, so that `count` chains of each fit into memory."""
        at_once = max(1, VALUES // (count * x[0].numel()))
        yield from torch.arange(len(x)).split(min(at_once, most or at_once))

    def _looks(self, x: Tensor, rng: Rng, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each of the lowest `count` starts: how far a sample is from what it is restored to,
        by each measure (N, M, *S); and that, (N, C, *S)."""
        inner, process = self._entered(x), self.denoiser.process
        index, level = rows(self.starts[:count], len(x), 1)
        streams = repeated(rng, 1).rows(index)
        level = level.to(x.device)
        drawn = self.noise(streams.fork("start"), inner.shape[1:], level)
        noised = process.disturb(inner[index.to(x.device)], level, drawn)
        end = [1] if self.final_noise else [0]
        ladders = [ladder(at, stride=self.stride)[:-1] + end for at in level.tolist()]
        back = descend(self.denoiser, noised, ladders, streams, chain=self.chain)
        target = self.canvas.leave(inner)
        for healed in self.canvas.leave(back).clamp(0, 1).split(len(x)):
            fields = [(healed - target).square().mean(1)]
            if self.network is not None:
                fields.append(self.network.distance(target.clamp(0, 1), healed))
            yield torch.stack(fields, 1), healed

    @torch.no_grad()
    def _calibrate(self, samples: Sequence[Sample], run: Run) -> None:
        x = torch.stack([s.x for s in samples]).to(run.device)
        rng = Rng([s.key for s in samples], run.seed, run.device).fork("calibrate")
        far = x.new_zeros(*self.mean.shape, len(x), dtype=torch.float64)
        for part in self._parts(x, len(far), most=8):
            if run.stop():
                raise Interrupted(f"stopped calibrating at held-out sample {part[0]}")
            for k, (fields, _) in enumerate(self._looks(x[part], rng.rows(part), len(far))):
                far[k, :, part] = fields.flatten(2).mean(2).T.double()
        self.mean.copy_(far.mean(2))
        self.deviation.copy_(far.std(2).clamp(min=1e-9))


def shifted(plain: Schedule, times: float) -> Schedule:
    """The schedule with so many times the signal-to-noise at every level."""
    if times == 1:
        return plain
    kept = times * plain.kept / (times * plain.kept + 1 - plain.kept)
    return Schedule(1 - kept[1:] / kept[:-1], f"{plain.name} snr {times}")
