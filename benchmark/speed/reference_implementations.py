"""What a method's prediction is compared with: the same result computed in another way.

The plain loop is how research code does it: one image and one timestep at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...engine.diffusion.denoiser import Denoiser
from ...engine.diffusion.gaussian import Gaussian
from ...engine.diffusion.schedule import sampling_levels
from ...engine.noise.noise import Gaussian as WhiteNoise
from ...engine.runtime.context import TrainingContext
from ...engine.runtime.rng import Rng
from ...engine.sampling.reconstruct import SamplingConfig
from ...methods.base import Detection, Method
from ..experiments.matrix import Experiment
from ..experiments.resolve import build_method

DEFAULT_STEPS = 20
"""Network calls per chain to compare with, for a method that visits every level itself."""

DrawNoise = Callable[[str, int], Tensor]
"""("start" or "step", level) -> noise (1, C, *S)."""


class NotComparable(ValueError):
    """A comparison that a method cannot be part of; the text says why.

    >>> from types import SimpleNamespace
    >>> REFERENCES["separate"](None, SimpleNamespace(levels=[250]), 0)
    Traceback (most recent call last):
    adbench...NotComparable: sweeps one level only
    """


class Comparison(NamedTuple):
    """Two ways of computing the same, unless the description says otherwise.

    >>> comparison = Comparison("a loop", lambda: sum(n for n in range(9)), lambda: 9 * 8 // 2)
    >>> comparison.slow() == comparison.fast()
    True
    """

    description: str
    slow: Callable[[], object]
    fast: Callable[[], object]


class RepeatedPrediction:
    """Predicts the same samples at the same levels at every call.

    x: samples (N, C, *S)
    keys: of the samples, for their random streams

    >>> from adbench.datasets.base import Spec
    >>> from adbench.methods.template_z import TemplateZ
    >>> method = TemplateZ(Spec(1, (8,)))
    >>> predict = RepeatedPrediction(
    ...     method, torch.rand(2, 1, 8), ["a", "b"], [0], TrainingContext()
    ... )
    >>> predict().map.shape, torch.equal(predict().score, predict().score)
    (torch.Size([1, 2, 8]), True)
    """

    def __init__(
        self,
        method: Method,
        x: Tensor,
        keys: Sequence[str],
        levels: Sequence[int],
        context: TrainingContext,
    ) -> None:
        self.method, self.x, self.keys, self.levels = method, x, keys, levels
        self.context = context

    def __call__(self) -> Detection:
        return self.predict(slice(None), self.levels)

    @torch.no_grad()
    def predict(self, which: slice, levels: Sequence[int]) -> Detection:
        """The detection of some of the samples at other levels."""
        rng = Rng(self.keys[which], 0, self.context.device)
        return self.method.detect(self.x[which], levels, rng)


def _single_sample_loop(
    experiment: Experiment, predict: RepeatedPrediction, evaluations: int
) -> Comparison:
    """As research code does it: float32, one sample and one timestep at a time."""
    context = replace(predict.context, dtype=torch.float32, compile="off", batch=1)
    method = build_method(experiment, predict.method.spec).to(context.device).eval()  # NCHW
    plain_loop = _build_plain_loop(method, predict, evaluations)
    if plain_loop is not None:
        description = "a plain loop, one image and one timestep at a time, float32"
        return Comparison(description, plain_loop, predict)
    context.place(method)
    single = RepeatedPrediction(method, predict.x, predict.keys, predict.levels, context)

    def one_by_one() -> None:
        for i in range(len(single.keys)):
            for level in single.levels:
                single.predict(slice(i, i + 1), [level])

    description = "its own detect, one image and one level at a time, one row a call, float32"
    return Comparison(description, one_by_one, predict)


def _separate_levels(
    experiment: Experiment, predict: RepeatedPrediction, evaluations: int
) -> Comparison:
    if len(predict.levels) < 2:
        raise NotComparable("sweeps one level only")

    def level_by_level() -> None:
        for level in predict.levels:
            predict.predict(slice(None), [level])

    return Comparison(f"{len(predict.levels)} levels, each by itself", level_by_level, predict)


def _fewer_steps(
    experiment: Experiment, predict: RepeatedPrediction, evaluations: int
) -> Comparison:
    if "sampling_steps" not in experiment.method_args:
        raise NotComparable("takes no sampling_steps")
    steps = experiment.method_args["sampling_steps"]

    def with_steps(steps: int | None) -> RepeatedPrediction:
        args = {**experiment.method_args, "sampling_steps": steps}
        method = build_method(replace(experiment, method_args=args), predict.method.spec)
        predict.context.place(method).eval()
        return RepeatedPrediction(method, predict.x, predict.keys, predict.levels, predict.context)

    description = f"a step for every level, not {steps or DEFAULT_STEPS} a chain"
    if steps:
        return Comparison(description, with_steps(None), predict)
    return Comparison(description, predict, with_steps(DEFAULT_STEPS))


REFERENCES = {"loop": _single_sample_loop, "separate": _separate_levels, "fewer": _fewer_steps}


def _build_plain_loop(
    method: Method, predict: RepeatedPrediction, evaluations: int
) -> Callable[[], None] | None:
    """The method's reconstruction as a plain loop.

    None if it does not consist of ancestral chains along a Gaussian process, as many as have these
    evaluations, and nothing else.
    """
    denoiser, sampling = getattr(method, "denoiser", None), getattr(method, "chain", None)
    if not (
        isinstance(denoiser, Denoiser)
        and isinstance(denoiser.process, Gaussian)
        and isinstance(sampling, SamplingConfig)
        and sampling.effective_eta == 1
        and sampling.variance != "learned"
    ):
        return None
    levels = [denoiser.schedule.to_level(level) for level in predict.levels]
    paths = [sampling_levels(level, sampling.steps, sampling.stride) for level in levels]
    steps = sum(len(path) - 1 for path in paths)
    if len(predict.keys) * sampling.repeats * steps != evaluations:
        return None
    canvas, noise = getattr(method, "canvas", None), getattr(method, "noise", None)
    x = predict.x if canvas is None else canvas.forward(predict.x)
    generator = torch.Generator(x.device).manual_seed(0)
    alpha_bar = denoiser.schedule.alpha_bar.tolist()

    def draw_noise(purpose: str, level: int) -> Tensor:
        if noise is None or isinstance(noise, WhiteNoise):
            return torch.randn(1, *x.shape[1:], generator=generator, device=x.device)
        streams = Rng([f"{purpose} {level}"], 0, x.device)
        return noise(streams, x.shape[1:], torch.tensor([level], device=x.device))

    def plain_loop() -> None:
        for image in x.split(1):
            for path in paths:
                for _ in range(sampling.repeats):
                    reconstruction = plain_reverse_process(
                        denoiser.net, image, alpha_bar, path, draw_noise,
                        predicts=denoiser.prediction_type, clip=denoiser.clip,
                        small_variance=sampling.variance == "small",
                    )  # fmt: skip
                    (reconstruction - image).square()

    return plain_loop


@torch.no_grad()
def plain_reverse_process(
    net: nn.Module,
    x: Tensor,
    alpha_bar: Sequence[float],
    path: Sequence[int],
    draw_noise: DrawNoise,
    *,
    predicts: str = "noise",
    clip: tuple[float, float] | None = None,
    small_variance: bool = True,
) -> Tensor:
    """A reconstruction of x (1, C, *S): noised to level path[0], denoised along the path.

    The engine is measured and tested against it, and shares no code with it. One network call a
    step. Ho et al. 2020: equation 4; algorithm 2 with the mean of equation 7. Salimans and Ho 2022,
    section 4, for v.

    alpha_bar: the share of the signal's variance at every level; alpha_bar[0] = 1
    path: falling levels, the last one 0
    predicts: noise, clean or v
    clip: the range of the predicted clean sample
    small_variance: the variance of equation 7, else that of the forward step

    >>> import torch
    >>> from adbench.benchmark.speed.reference_implementations import plain_reverse_process
    >>> def perfect(x, t):
    ...     return torch.zeros_like(x)
    >>> def draw_noise(purpose, level):
    ...     return torch.ones(1, 1, 4)
    >>> x = torch.zeros(1, 1, 4)
    >>> plain_reverse_process(perfect, x, [1.0, 0.5], [1, 0], draw_noise, predicts="clean")
    tensor([[[0., 0., 0., 0.]]])
    """
    a = alpha_bar[path[0]]
    x = a**0.5 * x + (1 - a) ** 0.5 * draw_noise("start", path[0])
    for level, next_level in pairwise(path):
        a, b = alpha_bar[level], alpha_bar[next_level]
        clean = net(x, torch.full((1,), level - 1, device=x.device))
        if predicts == "noise":
            clean = (x - (1 - a) ** 0.5 * clean) / a**0.5
        elif predicts == "v":
            clean = a**0.5 * x - (1 - a) ** 0.5 * clean
        if clip is not None:
            clean = clean.clamp(*clip)
        x = (b**0.5 * (1 - a / b) * clean + (a / b) ** 0.5 * (1 - b) * x) / (1 - a)
        if next_level:
            variance = (1 - a / b) * ((1 - b) / (1 - a) if small_variance else 1)
            x = x + variance**0.5 * draw_noise("step", level)
    return x
