"""What a method's look is held against: the same job done in another way.

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
from ...engine.noise.noise import Gaussian as White
from ...engine.runtime.context import TrainingContext
from ...engine.runtime.rng import Rng
from ...engine.sampling.reconstruct import SamplingConfig
from ...methods.base import Detection, Method
from ..experiments.fit_predict import build_method
from ..experiments.matrix import Experiment

DEFAULT_STEPS = 20
"""Network calls a chain, to compare with, where a method's own number is all."""

DrawNoise = Callable[[str, int], Tensor]
"""("start" or "step", level) -> noise (1, C, *S)."""


class NotComparable(ValueError):
    """A comparison that a method cannot be part of, and why."""


class Comparison(NamedTuple):
    """What is compared, in words; both do the same job, unless the words say otherwise."""

    description: str
    slow: Callable[[], object]
    fast: Callable[[], object]


class RepeatedPrediction:
    """A method that looks at the same samples at the same levels, again and again."""

    def __init__(
        self,
        method: Method,
        x: Tensor,
        keys: Sequence[str],
        levels: Sequence[int],
        context: TrainingContext,
    ) -> None:
        self.method, self.x, self.keys, self.levels, self.context = method, x, keys, levels, context

    def __call__(self) -> Detection:
        return self.predict(slice(None), self.levels)

    @torch.no_grad()
    def predict(self, which: slice, levels: Sequence[int]) -> Detection:
        rng = Rng(self.keys[which], 0, self.context.device)
        with self.context.autocast():
            return self.method.detect(self.x[which], levels, rng)


def _single_sample_loop(cell: Experiment, look: RepeatedPrediction, evaluations: int) -> Comparison:
    """As research code does it: float32, one sample and one timestep at a time."""
    run = replace(look.context, dtype=torch.float32, compile=False, batch=1)
    method = build_method(cell, look.method.spec).to(run.device).eval()  # as it is: NCHW
    plainly = _build_plain_loop(method, look, evaluations)
    if plainly is not None:
        return Comparison(
            "a plain loop, one image and one timestep at a time, float32", plainly, look
        )
    run.place(method)
    alone = RepeatedPrediction(method, look.x, look.keys, look.levels, run)

    def one_by_one() -> None:
        for i in range(len(alone.keys)):
            for level in alone.levels:
                alone.predict(slice(i, i + 1), [level])

    what = "its own detect, one image and one level at a time, one row a network call, float32"
    return Comparison(what, one_by_one, look)


def _separate_levels(cell: Experiment, look: RepeatedPrediction, evaluations: int) -> Comparison:
    if len(look.levels) < 2:
        raise NotComparable("sweeps one level only")

    def apart() -> None:
        for level in look.levels:
            look.predict(slice(None), [level])

    return Comparison(f"{len(look.levels)} levels, each by itself", apart, look)


def _fewer_steps(cell: Experiment, look: RepeatedPrediction, evaluations: int) -> Comparison:
    if "sampling_steps" not in cell.method_args:
        raise NotComparable("takes no sampling_steps")
    few = cell.method_args["sampling_steps"]

    def taking(steps: int | None) -> RepeatedPrediction:
        args = {**cell.method_args, "sampling_steps": steps}
        method = build_method(replace(cell, method_args=args), look.method.spec)
        look.context.place(method).eval()
        return RepeatedPrediction(method, look.x, look.keys, look.levels, look.context)

    what = f"a step for every level, not {few or DEFAULT_STEPS} a chain"
    return (
        Comparison(what, taking(None), look)
        if few
        else Comparison(what, look, taking(DEFAULT_STEPS))
    )


REFERENCES = {"loop": _single_sample_loop, "separate": _separate_levels, "fewer": _fewer_steps}


def _build_plain_loop(
    method: Method, look: RepeatedPrediction, evaluations: int
) -> Callable[[], None] | None:
    """The method's restoration as a plain loop; None where it does not consist of ancestral chains
    along a Gaussian process, as many as have these evaluations, and nothing else."""
    denoiser, chain = getattr(method, "denoiser", None), getattr(method, "chain", None)
    if not (
        isinstance(denoiser, Denoiser)
        and isinstance(denoiser.process, Gaussian)
        and isinstance(chain, SamplingConfig)
        and chain.effective_eta == 1
        and chain.variance != "learned"
    ):
        return None
    levels = [denoiser.schedule.to_level(level) for level in look.levels]
    paths = [sampling_levels(level, chain.steps, chain.stride) for level in levels]
    if len(look.keys) * chain.repeats * sum(len(path) - 1 for path in paths) != evaluations:
        return None
    canvas, noise = getattr(method, "canvas", None), getattr(method, "noise", None)
    x = look.x if canvas is None else canvas.enter(look.x)
    fresh = torch.Generator(x.device).manual_seed(0)
    kept, small = denoiser.schedule.alpha_bar.tolist(), chain.variance == "small"

    def draw(what: str, level: int) -> Tensor:
        if noise is None or isinstance(noise, White):
            return torch.randn(1, *x.shape[1:], generator=fresh, device=x.device)
        streams = Rng([f"{what} {level}"], 0, x.device)
        return noise(streams, x.shape[1:], torch.tensor([level], device=x.device))

    def plainly() -> None:
        for image in x.split(1):
            for path in paths:
                for _ in range(chain.repeats):
                    healed = plain_reverse_process(
                        denoiser.net, image, kept, path, draw,
                        predicts=denoiser.prediction_type, clip=denoiser.clip, small_variance=small,
                    )  # fmt: skip
                    (healed - image).square()

    return plainly


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
    """x (1, C, *S) brought to level path[0] and back along the path, one network call a step.

    Ho et al. 2020: equation 4; algorithm 2 with the mean of equation 7; small_variance: the
    variance of
    equation 7, else of the forward step. Salimans and Ho 2022, section 4, for v. It is what the
    engine is measured against, and shares nothing with it. alpha_bar: of every level, kept[0] = 1.
    """
    a = alpha_bar[path[0]]
    x = a**0.5 * x + (1 - a) ** 0.5 * draw_noise("start", path[0])
    for here, there in pairwise(path):
        a, b = alpha_bar[here], alpha_bar[there]
        clean = net(x, torch.full((1,), here - 1, device=x.device))
        if predicts == "noise":
            clean = (x - (1 - a) ** 0.5 * clean) / a**0.5
        elif predicts == "v":
            clean = a**0.5 * x - (1 - a) ** 0.5 * clean
        if clip is not None:
            clean = clean.clamp(*clip)
        x = (b**0.5 * (1 - a / b) * clean + (a / b) ** 0.5 * (1 - b) * x) / (1 - a)
        if there:
            wide = (1 - a / b) * ((1 - b) / (1 - a) if small_variance else 1)
            x = x + wide**0.5 * draw_noise("step", here)
    return x
