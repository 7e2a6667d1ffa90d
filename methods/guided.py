"""Guided diffusion: encode a sample with DDIM and decode it with classifier guidance to healthy.

Wolleb et al., "Diffusion Models for Medical Anomaly Detection", MICCAI 2022.
https://arxiv.org/abs/2203.04306 https://github.com/JuliaWolleb/diffusion-anomaly

As in the authors' code: trained on healthy and diseased samples with image labels (0 healthy, 1
diseased); the network is conditioned on the label, learns its variance, and its estimates are not
clipped after guidance; the classifier of noisy samples is the encoder of a UNet; data in [0, 1];
the map is the sum of absolute differences over channels.

Differs, with the argument that restores theirs: no noise is added before encoding (`first_noise`);
encoding goes from level 0 to the level that decoding starts from (`index_shift`: from 2 to 501,
then down from 499); x_0 is clipped to [0, 1], theirs to [-1, 1] (`clip`); when steps are left out
the classifier gets the network's timesteps, theirs the number of the step
(`classifier_hears="index"`). Of the DDPM variant (`sampler="ddpm"`): noise is added up to the level
that the chain starts from (theirs: always up to 500, `start_level=500`), and the last step, whose
variance is 0, is not guided (`guide_last`). Their labels of CheXpert are swapped, which led to
disease (`target="diseased", encode_label="diseased"`).

The averaged weights (EMA, decay 0.9999) are judged. The commands in the authors' README name a file
of plain weights (`model.pt`; files of averages are called `ema_...`): `ema=None` gives those.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ..datasets.base import Spec, Split
from ..engine.diffusion.denoiser import Denoiser
from ..engine.diffusion.gaussian import Gaussian
from ..engine.diffusion.schedule import sampling_levels
from ..engine.diffusion.schedule_config import ScheduleConfig
from ..engine.networks.diffusion_unet import side_divisor
from ..engine.networks.noisy_classifier import NoisyClassifier, build_encoder
from ..engine.networks.unet_config import HeadsUNetConfig
from ..engine.noise.noise import gaussian
from ..engine.runtime.context import TrainingContext
from ..engine.runtime.rng import Rng
from ..engine.runtime.setting_types import (
    Count,
    Depth,
    Level,
    Many,
    NonNegative,
    Positive,
    Range,
    Unbounded,
)
from ..engine.runtime.transfer import to_device
from ..engine.sampling.classifier_guidance import (
    ClassifierGuidedSampler,
    LogProbGradient,
    classifier_guidance,
)
from ..engine.sampling.continuous_batching import ChainBatch, run_chains
from ..engine.sampling.reconstruct import (
    SamplingConfig,
    ddim_invert,
    enumerate_chains,
    repeat_streams,
    reverse_process,
)
from ..engine.sampling.solvers import Ancestral, DdimOde
from ..engine.sampling.step_noise import StepNoise
from ..engine.training.data_loading import evenly_spaced_indices
from ..engine.training.loop import Training, UnclippedTraining, train_module
from ..engine.transforms.resizing import ResizePad
from .base import Detection, Method


@dataclass(frozen=True)
class ClassifierConfig:
    """The noise-aware classifier.

    classifier_width, classifier_mults, classifier_res_blocks, classifier_attention,
    classifier_head_channels: of half a UNet.
    classifier_steps, classifier_lr, classifier_clip: of its training.
    classifier_max_level: the highest level that it is trained at.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.guided import ClassifierConfig, Guided
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> classifier = ClassifierConfig(classifier_width=8, classifier_mults=(1, 2),
    ...     classifier_res_blocks=1, classifier_attention=(False, False), classifier_steps=100)
    >>> method = Guided(Spec(1, (16, 16), labels=True), size=None, network=network,
    ...     classifier=classifier)
    >>> [plan.steps for plan in method.training_plans()]
    [80000, 100]
    """

    classifier_width: Count = 32
    classifier_mults: Many[Positive] = (1, 1, 2, 2, 4, 4)
    classifier_res_blocks: Depth = 4
    classifier_attention: Many[bool] = (False, False, False, True, True, True)
    classifier_head_channels: Count = 64
    classifier_steps: Count = 150_000
    classifier_lr: Positive = 1e-4
    classifier_clip: Positive | None = None
    classifier_max_level: Level = 1000


@dataclass(frozen=True)
class GuidedQuirks:
    """What the authors' code does and this method does not by default.

    first_noise: noise of level 1 is added before encoding.
    index_shift: encoding goes from level 2 to one above the level, decoding from one below.
    classifier_hears: the time that DDIM passes to the classifier: the level, or the number of the
    step.
    start_level: the level up to which DDPM adds noise, None for that of the chain.
    guide_last: DDPM guides the step to level 0 too, with the variance of the step before.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.guided import Guided, GuidedQuirks
    >>> try:
    ...     Guided(Spec(1, (16, 16)), sampling_steps=50, quirks=GuidedQuirks(index_shift=True))
    ... except ValueError as error:
    ...     print(error)
    index_shift is of an encoding that leaves no step out
    """

    first_noise: bool = False
    index_shift: bool = False
    classifier_hears: Literal["level", "index"] = "level"
    start_level: Level | None = None
    guide_last: bool = False


@dataclass(frozen=True)
class LabelledTraining(UnclippedTraining):
    """balanced: as many diseased samples are trained on as healthy ones, in both trainings.

    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.methods.guided import ClassifierConfig, Guided, LabelledTraining
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> classifier = ClassifierConfig(8, (1, 2), 1, classifier_attention=(False, False))
    >>> method = Guided(Spec(1, (16, 16), labels=True), size=None, network=network,
    ...     classifier=classifier, training=LabelledTraining(10, 2, 1e-4, balanced=True))
    >>> [plan.balanced for plan in method.training_plans()]
    [True, True]
    """

    balanced: bool = False


NETWORK = HeadsUNetConfig(128, (1, 1, 2, 2, 4, 4), 2,
    attention=(False, False, False, False, True, False), heads=1)  # fmt: skip
SCHEDULE = ScheduleConfig()
TRAINING = LabelledTraining(steps=80_000, batch=10, lr=1e-4)
CLASSIFIER = ClassifierConfig()
CORRECTED = GuidedQuirks()


class Guided(Method):
    """Reconstruct each sample as healthy; the map is the absolute difference, summed over channels.

    class_cond: the network is conditioned on the label.
    clip: range of the estimates of x_0 before guidance, None for no clipping.
    sampler: ddim encodes and decodes along the ODE, ddpm adds noise and samples.
    scale: of the classifier's gradient.
    sampling_steps: network calls of a chain, None for one per level.
    encode_label: the label while encoding: "predicted" by the classifier, or "null" for none, which
    the network was never trained with.
    target: the label that decoding is guided to.
    rescale: stretch the sample and its reconstruction to [0, 1] each before comparing them, as
    theirs on CheXpert.
    judged: the score is the map's mean, or the classifier's logit of disease, which is supervised.

    >>> import torch
    >>> from adbench.datasets.base import Spec
    >>> from adbench.engine.networks.unet_config import HeadsUNetConfig
    >>> from adbench.engine.runtime.rng import Rng
    >>> from adbench.methods.guided import ClassifierConfig, Guided
    >>> network = HeadsUNetConfig(8, (1, 2), 1, attention=(False, False), heads=1)
    >>> classifier = ClassifierConfig(8, (1, 2), 1, classifier_attention=(False, False))
    >>> method = Guided(Spec(2, (8, 8), labels=True), size=None, network=network,
    ...     classifier=classifier, sampling_steps=2).eval()
    >>> detection = method.detect(torch.zeros(3, 2, 8, 8), [100, 500], Rng(["a", "b", "c"]))
    >>> detection.map.shape, detection.reconstruction.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2, 3, 2, 8, 8]))
    """

    supervision = "image-labels"
    levels, published = (100, 200, 300, 400, 500, 600, 750), 500
    inference = frozenset(
        ["sampler", "scale", "sampling_steps", "encode_label", "first_noise", "index_shift",
         "start_level", "rescale", "judged", "clip", "target", "classifier_hears", "guide_last"]
    )  # fmt: skip

    def __init__(
        self, spec: Spec, *,
        size: Count | None = 256, network: HeadsUNetConfig = NETWORK,
        schedule: ScheduleConfig = SCHEDULE, class_cond: bool = True,
        clip: Range[Unbounded] | None = (0.0, 1.0), training: LabelledTraining = TRAINING,
        classifier: ClassifierConfig = CLASSIFIER, sampler: Literal["ddim", "ddpm"] = "ddim",
        scale: NonNegative = 100.0, sampling_steps: Count | None = None,
        encode_label: Literal["healthy", "diseased", "null", "predicted"] = "healthy",
        target: Literal["healthy", "diseased"] = "healthy", rescale: bool = False,
        judged: Literal["map", "classifier"] = "map", quirks: GuidedQuirks = CORRECTED,
    ) -> None:  # fmt: skip
        super().__init__(spec)
        if quirks.index_shift and sampling_steps is not None:
            raise ValueError("index_shift is of an encoding that leaves no step out")
        narrow = [int(classifier.classifier_width * m) for m in classifier.classifier_mults]
        whole = math.lcm(network.side_divisor, side_divisor(narrow))
        self.canvas = ResizePad(spec.shape, size, whole, low=0.0)
        net = network.build(len(spec.shape), spec.channels, out_channels=2 * spec.channels,
            labels=2 if class_cond else 0, eps=1e-5, zero_attention=True)  # fmt: skip
        self.clip = None if clip is None else (clip[0], clip[1])
        about, times = f"{gaussian} on {self.canvas}", schedule.build()
        self.denoiser = Denoiser(
            net, times, clip=self.canvas.range, learns_variance=True, trained_on=about
        )
        half = build_encoder(self.canvas.padded_shape, spec.channels, 2, narrow,
            res_blocks=classifier.classifier_res_blocks,
            attention=classifier.classifier_attention,
            head_channels=classifier.classifier_head_channels)  # fmt: skip
        self.classifier = NoisyClassifier(half, times)
        self.plan = training
        self.classifier_plan = Training(classifier.classifier_steps, training.batch,
            classifier.classifier_lr, clip=classifier.classifier_clip, ema=None,
            decay=training.decay, balanced=training.balanced)  # fmt: skip
        self.class_cond, self.sampler, self.scale = class_cond, sampler, scale
        self.sampling_steps, self.encode_label = sampling_steps, encode_label
        self.rescale, self.judged, self.target, self.quirks = rescale, judged, target, quirks
        self.classifier_max_level = classifier.classifier_max_level

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        def denoising_loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            return self.denoiser.loss(
                self.canvas.forward(x), rng, conditioning=self._condition(label.long())
            )

        def classifier_loss(x: Tensor, label: Tensor, rng: Rng) -> Tensor:
            inner, highest = self.canvas.forward(x), self.classifier_max_level
            return self.classifier.loss(inner, label, rng, max_level=highest)

        train_module(denoising_loss, self.denoiser, train, context, self.plan, "diffusion")
        train_module(
            classifier_loss, self.classifier, train, context, self.classifier_plan, "classifier"
        )
        if context.team.rank == 0:
            self._warn_of_weak_classifier(train, calibration, context)

    @torch.no_grad()
    def _warn_of_weak_classifier(
        self, train: Split, calibration: Split, context: TrainingContext
    ) -> None:
        """Warn where the classifier does not call most of the normal calibration samples healthy,
        or most of the diseased training samples diseased."""
        healthy = [calibration[i].x for i in evenly_spaced_indices(len(calibration), 64)]
        some = (train[i] for i in evenly_spaced_indices(len(train), 1024))
        diseased = [sample.x for sample in some if sample.label][:64]
        for samples, label, name in (
            (healthy, 0, "held-out normal samples healthy"),
            (diseased, 1, "diseased training samples diseased"),
        ):
            correct = 0
            for part in (
                torch.stack(samples).to(context.device).split(context.batch) if samples else ()
            ):
                logits = self.classifier(self.canvas.forward(part), _constant_labels(part, 1))
                correct += int((logits.argmax(1) == label).sum())
            if samples and 2 * correct <= len(samples):
                warnings.warn(
                    f"the classifier calls {correct} of {len(samples)} {name}; guidance leads "
                    "nowhere: train it longer (classifier_steps) or on more diseased samples, or "
                    "see whether 0 is the label of health",
                    stacklevel=2,
                )

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        inner = self.canvas.forward(x)
        sample = self._reconstruct_ddim if self.sampler == "ddim" else self._reconstruct_ddpm
        with self._inference_clip():
            healthy = sample(inner, levels, rng)
        normal = self.canvas.inverse(healthy.view(len(levels), *inner.shape))
        compared = (normal, x)
        if self.rescale:
            compared = tuple(rescale_to_unit(y, x.ndim - 1) for y in compared)
        detection = Detection.from_map((compared[0] - compared[1]).abs().sum(2), normal)
        if self.judged == "map":
            return detection
        logits = self.classifier(inner, _constant_labels(inner, 1))
        score = (logits[:, 1] - logits[:, 0]).expand(len(levels), len(x))
        return replace(detection, score=score)

    @contextmanager
    def _inference_clip(self) -> Iterator[None]:
        """Clip estimates to `clip`, and restore the range that the checkpoint names."""
        trained, self.denoiser.clip = self.denoiser.clip, self.clip
        try:
            yield
        finally:
            self.denoiser.clip = trained

    def _reconstruct_ddim(self, inner: Tensor, levels: Sequence[int], rng: Rng) -> Tensor:
        """Encode along DDIM's ODE and decode with guidance, (L * N, C, *outer)."""
        first, condition = inner, self._condition(self._encoding_label(inner))
        starts = [self.denoiser.schedule.to_level(at) for at in levels]
        if self.quirks.first_noise:
            at = torch.ones(len(inner), dtype=torch.int64, device=inner.device)
            noise = gaussian(rng.fork("first"), inner.shape[1:], at)
            first = self._process.add_noise(inner, at, noise)
        if self.quirks.index_shift:
            ode, highest = DdimOde(self._process), self.denoiser.schedule.T
            paths = [[min(i, highest) for i in range(2, at + 2)] for at in starts]
            encoded = torch.cat(
                [
                    run_chains(
                        self.denoiser, ode, first, [path] * len(inner), conditioning=condition
                    )
                    for path in paths
                ]
            )
            downs = [sampling_levels(at - 1) for at in starts]
        else:
            chain = SamplingConfig(self.sampling_steps)
            up = ddim_invert(self.denoiser, first, levels, sampling=chain, conditioning=condition)
            encoded = up.flatten(0, 1)
            downs = [sampling_levels(at, self.sampling_steps) for at in starts]
        return reverse_process(
            self.denoiser,
            encoded,
            [path for path in downs for _ in range(len(inner))],
            repeat_streams(rng, 1).rows(enumerate_chains(starts, len(inner), 1)[0]),
            sampling=SamplingConfig(sampler="ddim"),
            guide=classifier_guidance(
                self._process, self._log_prob_gradient(downs, len(inner)), self.scale
            ),
            samples=list(range(len(inner))) * len(levels),
            conditioning=self._condition(self._target_label(inner)),
        )

    def _reconstruct_ddpm(self, inner: Tensor, levels: Sequence[int], rng: Rng) -> Tensor:
        """Add noise and denoise by ancestral steps with guidance, (L * N, C, *outer)."""
        starts = [self.denoiser.schedule.to_level(at) for at in levels]
        index, level = enumerate_chains(starts, len(inner), 1)
        streams, level = repeat_streams(rng, 1).rows(index), to_device(level, inner.device)
        if self.quirks.start_level is not None:
            level = torch.full_like(level, self.denoiser.schedule.to_level(self.quirks.start_level))
        noise = gaussian(streams.fork("start"), inner.shape[1:], level)
        noisy = self._process.add_noise(inner[to_device(index, inner.device)], level, noise)
        steps = Ancestral(
            self._process, StepNoise(streams.fork("step"), gaussian), variance="learned"
        )
        downs = [sampling_levels(at, self.sampling_steps) for at in starts]
        gradient = self._log_prob_gradient(downs, len(inner))
        return run_chains(
            self.denoiser,
            ClassifierGuidedSampler(steps, gradient, self.scale, self.quirks.guide_last),
            noisy,
            [path for path in downs for _ in range(len(inner))],
            samples=index.tolist(),
            conditioning=self._condition(self._target_label(inner)),
        )

    def _log_prob_gradient(self, paths: Sequence[Sequence[int]], samples: int) -> LogProbGradient:
        """The classifier's gradient towards the target, for chains of `samples` samples on each of
        the paths of levels."""
        step_numbers = [{at: i for i, at in enumerate(reversed(path))} for path in paths]
        by_number = self.quirks.classifier_hears == "index" and self.sampler == "ddim"

        def gradient(x: Tensor, batch: ChainBatch) -> Tensor:
            time = batch.network_level
            if by_number:
                chains = zip(batch.chain.tolist(), batch.upcoming, strict=True)
                numbers = [step_numbers[k // samples][path[0].network_level] for k, path in chains]
                time = to_device(torch.tensor(numbers), x.device)
            return self.classifier.log_prob_gradient(x, time, self._target_label(x))

        return gradient

    def _target_label(self, x: Tensor) -> Tensor:
        """The label that decoding is guided to, for every row, (N,)."""
        return _constant_labels(x, LABELS[self.target])

    def _encoding_label(self, inner: Tensor) -> Tensor:
        if self.encode_label != "predicted" or not self.class_cond:
            return _constant_labels(inner, LABELS.get(self.encode_label, 0))
        return self.classifier(inner, _constant_labels(inner, 1)).argmax(1)

    def _condition(self, label: Tensor) -> tuple[Tensor, ...]:
        return (label,) if self.class_cond else ()

    @property
    def _process(self) -> Gaussian:
        return self.denoiser.process_as(Gaussian)


LABELS = {"healthy": 0, "diseased": 1, "null": -1}


def _constant_labels(x: Tensor, value: int) -> Tensor:
    """The same label for every row of x, (N,) int64."""
    return torch.full((len(x),), value, device=x.device)


def rescale_to_unit(x: Tensor, axes: int) -> Tensor:
    """Stretch every sample over its last `axes` axes to [0, 1]; a constant sample becomes 0.

    x: (..., *S)
    axes: number of axes that belong to one sample

    >>> import torch
    >>> from adbench.methods.guided import rescale_to_unit
    >>> rescale_to_unit(torch.tensor([[1.0, 2.0, 3.0]]), 1)
    tensor([[0.0000, 0.5000, 1.0000]])
    """
    over = list(range(-axes, 0))
    low = x.amin(over, keepdim=True)
    return (x - low) / (x.amax(over, keepdim=True) - low).clamp(min=1e-12)
