"""A denoiser: a network that predicts x_0 from x at a level, whatever its prediction type.

Samplers need nothing else, so none of them depends on what the network was trained to predict. The
one rule that makes results independent of batching is here too: at inference the network computes
batches of one fixed, padded shape only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..noise.noise import Noise
from ..runtime.context import BatchedModule
from ..runtime.fixed_batches import apply_in_batches
from ..runtime.memory_format import memory_format
from ..runtime.rng import Rng
from .gaussian import Gaussian, Process, add_noise_in_region
from .schedule import Schedule
from .variational_bound import variational_bound

PredictionType = Literal["noise", "clean", "v", "velocity", "flip"]
"""v is Salimans and Ho's; velocity, of a flow process, is noise - x_0; flip, of a Bernoulli
process, is the logit of x_l differing from x_0."""

P = TypeVar("P")


class Mismatch(ValueError):
    """Weights were trained for another schedule, prediction type, range or noise.

    >>> from torch import nn
    >>> from adbench.engine.diffusion.denoiser import Denoiser, Mismatch
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> trained = Denoiser(nn.Identity(), linear_schedule(), prediction_type="clean")
    >>> try:
    ...     Denoiser(nn.Identity(), linear_schedule()).load_state_dict(trained.state_dict())
    ... except Mismatch as error:
    ...     print(error)
    these weights were trained as {...
    "predicts": "clean", ...}, not as {... "predicts": "noise", ...}
    """


class Estimate(NamedTuple):
    """The noise and x_0 that a denoiser estimates.

    noise, clean: (N, C, *S), one implies the other
    learned_variance: the output of a network that learns its variance, about -1 (the posterior's)
        to 1 (the forward step's)

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from adbench.engine.diffusion.schedule import build_schedule
    >>> class Zero(torch.nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), build_schedule("even", 4)).eval()  # no noise is estimated
    >>> denoiser.estimate(torch.ones(1, 1, 2), torch.tensor([3])).clean  # 1 / sqrt(0.25)
    tensor([[[2., 2.]]])
    """

    noise: Tensor
    clean: Tensor
    learned_variance: Tensor | None = None


class Denoiser(BatchedModule):
    """A network with its forward process, prediction type and clipping.

    net: (x (N, C, *S), timesteps (N,), *conditioning) -> its prediction; it is called with
        t = level - 1, as the papers' arrays count, and with the conditioning of every sample
    schedule: of the process
    prediction_type: what the network was trained to predict
    clip: the range x_0 is known to lie in; estimates are clamped to it at inference
    rederive_noise: whether the noise is then what the clamped x_0 implies, or stays as predicted
    trained_on: what else the weights were trained for (the noise); saved in the state dict with
        schedule and prediction type, and a mismatch refuses to load
    process: the forward process, built from the schedule
    learns_variance: the network has 2 C output channels, the second C are the variance
    batch: rows in every network call at inference

    >>> import torch
    >>> from adbench.engine.diffusion.denoiser import Denoiser
    >>> from torch import nn
    >>> from adbench.engine.diffusion.schedule import linear_schedule
    >>> class Zero(nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return torch.zeros_like(x)
    >>> denoiser = Denoiser(Zero(), linear_schedule(), prediction_type="clean").eval()
    >>> denoiser(torch.ones(2, 1, 4), torch.tensor([100, 250])).shape
    torch.Size([2, 1, 4])
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: Schedule,
        *,
        prediction_type: PredictionType = "noise",
        clip: tuple[float, float] | None = None,
        rederive_noise: bool = True,
        trained_on: str = "",
        process: Callable[[Schedule], Process] = Gaussian,
        learns_variance: bool = False,
    ) -> None:
        super().__init__()
        self.net, self.process = net, process(schedule)
        self.prediction_type: PredictionType = prediction_type
        self.clip, self.trained_on, self.learns_variance = clip, trained_on, learns_variance
        self.rederive_noise = rederive_noise
        self.evaluations = 0
        types = self.process.prediction_types
        if prediction_type not in types or (
            learns_variance and not isinstance(self.process, Gaussian)
        ):
            prediction = f"{prediction_type}{' and variance' if learns_variance else ''}"
            raise ValueError(
                f"a {self.process.name} process has no prediction type {prediction}; "
                f"it has {', '.join(types)}"
            )

    @property
    def schedule(self) -> Schedule:
        """The schedule of the process."""
        return self.process.schedule

    def process_as(self, kind: type[P]) -> P:
        """The process, which must be of this class; TypeError for another."""
        if not isinstance(self.process, kind):
            raise TypeError(f"a {self.process.name} process is no {kind.__name__}")
        return self.process

    def forward(self, x: Tensor, level: Tensor, *conditioning: Tensor) -> Tensor:
        """The estimate of x_0, (N, C, *S), clipped; level is (N,), at least 1."""
        return self.estimate(x, level, *conditioning).clean

    def estimate(self, x: Tensor, level: Tensor, *conditioning: Tensor) -> Estimate:
        """Estimate the noise and x_0; where x_0 is clipped, the noise is re-derived from it, as
        ancestral sampling does, unless `rederive_noise` is off, as in diffusers' DDIM."""
        prediction, learned_variance = self._predict_parts(x, level, *conditioning)
        noise, clean = self._noise_and_x0(x, prediction, level)
        if self.clip is not None:
            clean = clean.clamp(*self.clip)
            noise = None if self.rederive_noise else noise
        if noise is None:
            noise = self.process.noise_from_x0(x, clean, level)
        return Estimate(noise, clean, learned_variance)

    def predict(self, x: Tensor, level: Tensor, *conditioning: Tensor) -> Tensor:
        """The network's own prediction, (N, C, *S) in x's precision."""
        if self.training:
            return self._call_network(x, level, *conditioning)
        self.evaluations += len(x)
        return apply_in_batches(self._call_network, self.batch, x, level, *conditioning)

    def loss(
        self,
        x: Tensor,
        rng: Rng,
        *,
        noise: Noise | None = None,
        region: Tensor | None = None,
        error_region: Literal["region", "everywhere"] = "region",
        power: Literal[1, 2] = 2,
        max_level: int | None = None,
        conditioning: Sequence[Tensor] = (),
        corrupted: Tensor | None = None,
    ) -> Tensor:
        """The training loss at a level uniform on 1..max_level, (N,).

        Mean |error| ** power of the prediction; for flips the cross-entropy in bits; where the
        variance is learned, plus the variational bound (Nichol & Dhariwal 2021, equation 16,
        weight 1).

        x: (N, C, *S)
        rng: one stream per sample
        noise: the process's own if None
        region: (N, 1, *S) bool; noise is added to x only there
        error_region: where error counts; the mean is over all of S either way
        max_level: on the 1000-step scale, all if None
        conditioning: further inputs of the network, per sample
        corrupted: what noise is added to in place of x, which stays the target: for inputs that
            are corrupted beforehand
        """
        highest = self.schedule.to_level(1000 if max_level is None else max_level)
        level = 1 + rng.fork("level").integers(highest)
        eps = (noise or self.process.default_noise)(rng.fork("noise"), x.shape[1:], level)
        start = x if corrupted is None else corrupted
        noisy = add_noise_in_region(self.process, start, level, eps, region)
        prediction, learned_variance = self._predict_parts(noisy, level, *conditioning)
        error = self.process.prediction_error(
            prediction, x, noisy, eps, level, self.prediction_type, power
        )
        if learned_variance is not None:
            process = self.process_as(Gaussian)
            estimate = self._noise_and_x0(noisy, prediction.detach(), level)[1]
            bound = variational_bound(process, x, estimate, learned_variance, noisy, level)
            error = error + bound
        if region is not None and error_region == "region":
            error = error * region
        return error.flatten(1).mean(1)

    def get_extra_state(self) -> Tensor:
        facts = {
            "schedule": self.schedule.name,
            "predicts": self.prediction_type,
            "clip": self.clip,
            "about": self.trained_on,
        }
        if not isinstance(self.process, Gaussian):
            facts["process"] = self.process.name
        if self.learns_variance:
            facts["learned"] = True
        return torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        theirs, ours = bytes(state.tolist()), bytes(self.get_extra_state().tolist())
        if theirs != ours:
            raise Mismatch(
                f"these weights were trained as {theirs.decode()}, not as {ours.decode()}"
            )

    def _predict_parts(
        self, x: Tensor, level: Tensor, *conditioning: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """The network's prediction, and its variance if it learns one."""
        output = self.predict(x, level, *conditioning)
        if not self.learns_variance:
            return output, None
        prediction, learned_variance = output.chunk(2, 1)
        return prediction, learned_variance

    def _noise_and_x0(
        self, x: Tensor, prediction: Tensor, level: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        return self.process.noise_and_x0(x, prediction, level, self.prediction_type)

    def _call_network(self, x: Tensor, level: Tensor, *conditioning: Tensor) -> Tensor:
        layout = memory_format(x.ndim, x.device.type)
        x_in = x if layout is None else x.contiguous(memory_format=layout)
        t = (level - 1).clamp(min=0)
        return self.call_net(_call, x_in, t, *conditioning).to(x.dtype)


def _call(net: nn.Module, *inputs: Tensor) -> Tensor:
    return net(*inputs)
