"""DDPM-OOD, LDM-OOD and WaveNet-OOD stage by stage: schedule, noising, a step, a chain, the loss,
map and score, against numbers of the authors' code and the equations written out in float64.

The toy denoiser is eps(x, t) = 0.3 x + 0.1 t / 1000, t counted from 0.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import build_schedule, shift_snr
from adbench.engine.noise.noise import gaussian
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.reconstruct import enumerate_chains, repeat_streams, reverse_process
from adbench.engine.sampling.samplers import SamplingConfig
from adbench.methods.ddpm_ood import DDPMOOD
from adbench.methods.ldm_ood import LDMOOD
from adbench.methods.wavenet_ood import WaveNetOOD
from small import build_small

IMAGES, SIGNALS = Spec(1, (8, 8)), Spec(2, (64,))
GRID: dict[str, Any] = {"sampling_steps": 20, "skip": 8}
PLMS = ((1,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


class Toy(nn.Module):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + 0.1 * t.view(-1, *[1] * (x.ndim - 1)).to(x.dtype) / 1000


def toy(x: np.ndarray, level: int) -> np.ndarray:
    return 0.3 * x + 0.1 * (level - 1) / 1000


def alpha_bars(name: str = "scaled_linear") -> np.ndarray:
    """Of levels 0..1000: the product of 1 - beta up to each."""
    first, last = 0.0015, 0.0195
    beta = np.linspace(first, last, 1000)
    if name == "scaled_linear":
        beta = np.linspace(first**0.5, last**0.5, 1000) ** 2
    return np.concatenate([[1.0], np.cumprod(1 - beta)])


def transfer(x: np.ndarray, eps: np.ndarray, a: float, b: float) -> np.ndarray:
    """PNDM's equation 11, from alpha_bar a to b."""
    return (b / a) ** 0.5 * x - (b - a) * eps / (a * (1 - b) ** 0.5 + (a * (1 - a) * b) ** 0.5)


def plms(x: np.ndarray, start: int, stride: int, alpha_bar: np.ndarray) -> np.ndarray:
    """The first step twice, then up to four estimates; the last step ends at level 0."""
    levels = [*range(start, 0, -stride), 0]
    stored = [alpha_bar[level] for level in levels]
    history = [toy(x, levels[0])]
    y = transfer(x, history[0], stored[0], stored[1])
    y = transfer(x, (toy(y, levels[1]) + history[0]) / 2, stored[0], stored[1])
    for level, (a, b) in zip(levels[1:], list(pairwise(stored))[1:], strict=False):
        history.append(toy(y, level))
        weights = PLMS[min(len(history), 4) - 1]
        eps = sum(w * e for w, e in zip(weights, history[::-1], strict=False))
        y = transfer(y, np.asarray(eps), a, b)
    return y


def start_noise(method: Any, x: Tensor, rng: Rng) -> list[np.ndarray]:
    """What each start's chain begins with, drawn by the engine."""
    index, level = enumerate_chains(method.starts.levels, len(x), 1)
    streams = repeat_streams(rng, 1).rows(index).fork("start")
    return [n.double().numpy() for n in gaussian(streams, x.shape[1:], level).split(len(x))]


def reconstructions(method: Any, z: Tensor, rng: Rng) -> list[np.ndarray]:
    """From every start, by the equations."""
    alpha_bar, z64 = alpha_bars(), z.double().numpy()
    return [
        plms(alpha_bar[at] ** 0.5 * z64 + (1 - alpha_bar[at]) ** 0.5 * noise, at,
             method.starts.stride, alpha_bar)
        for at, noise in zip(method.starts.levels, start_noise(method, z, rng), strict=True)
    ]  # fmt: skip


def with_toy(cls: type, spec: Spec, **settings: Any) -> Any:
    method = build_small(cls, spec, **GRID | settings).eval()
    method.denoiser = Denoiser(Toy(), build_schedule("scaled_linear")).eval()
    return method


def uniform(count: int, spec: Spec, name: str) -> tuple[Tensor, list[str]]:
    keys = [f"{name}{i}" for i in range(count)]
    return Rng(keys).uniform((spec.channels, *spec.shape)), keys


@pytest.mark.parametrize(
    ("name", "golden"),
    [("scaled_linear", (.9985, .98320, .91669, .61458, .40716, .23445, .11492, .04697, .00844)),
     ("linear_latent", (.9985, .98265, .90522, .51434, .28138, .12839, .04885, .01549, .00199))],
)  # fmt: skip
def test_schedules_are_those_of_the_authors_code(name: str, golden: tuple[float, ...]) -> None:
    alpha_bar = build_schedule(name).alpha_bar
    np.testing.assert_allclose(alpha_bar.numpy(), alpha_bars(name), rtol=1e-12)
    places = (0, 10, 50, 200, 300, 400, 500, 600, 749)  # of the authors' arrays
    assert [round(alpha_bar[t + 1].item(), 5) for t in places] == list(golden)


def test_a_shifted_schedule_has_four_times_the_signal_to_noise() -> None:
    alpha_bar = alpha_bars()[1:]
    snr = 4 * alpha_bar / (1 - alpha_bar)
    shifted = shift_snr(build_schedule("scaled_linear"), 4.0).alpha_bar[1:]
    np.testing.assert_allclose(shifted.numpy(), 1 / (1 + 1 / snr), rtol=1e-10)


def test_noise_a_step_and_a_chain() -> None:
    """x_0 .5, noise -1: at level 251 x is .5 * .7242.. - .6895..; then one step to 241."""
    method = with_toy(DDPMOOD, IMAGES)
    alpha_bar, level = alpha_bars(), torch.tensor([251])
    x = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    noisy = method.denoiser.process.add_noise(x, level, -torch.ones_like(x))
    value = 0.5 * alpha_bar[251] ** 0.5 - (1 - alpha_bar[251]) ** 0.5
    assert noisy.unique().item() == pytest.approx(value, rel=1e-12)
    step = SamplingConfig(sampler="plms")
    for path in ([251, 241], [251, 0]):
        ours = reverse_process(method.denoiser, noisy, [path], Rng(["a"]), sampling=step)
        theirs = transfer(
            np.asarray(value), toy(np.asarray(value), 251), alpha_bar[251], alpha_bar[path[1]]
        )
        assert ours.unique().item() == pytest.approx(theirs.item(), rel=1e-12)
    z, keys = uniform(2, IMAGES, "z")
    ours = method.starts.reconstruct(method.denoiser, z.double(), Rng(keys), 3)
    for a, b in zip(ours, reconstructions(method, z, Rng(keys)), strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("cls", "spec"), [(DDPMOOD, IMAGES), (DDPMOOD, SIGNALS),
                                           (WaveNetOOD, SIGNALS)])  # fmt: skip
def test_the_loss_is_the_squared_error_of_the_noise(cls: type, spec: Spec) -> None:
    method = with_toy(cls, spec)
    x, keys = uniform(3, spec, "x")
    rng, alpha_bar = Rng(keys), alpha_bars()
    level = 1 + rng.fork("level").integers(1000)
    noise = gaussian(rng.fork("noise"), x.shape[1:], level).double().numpy()
    expected = []
    for x0, at, eps in zip(x.double().numpy(), level.tolist(), noise, strict=True):
        noisy = alpha_bar[at] ** 0.5 * x0 + (1 - alpha_bar[at]) ** 0.5 * eps
        expected.append(((toy(noisy, at) - eps) ** 2).mean())
    loss = method.denoiser.loss(x.double(), rng)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-9)


def expected_errors(method: Any, z: Tensor, rng: Rng, clamp: bool) -> np.ndarray:
    """(K, N, *S): the squared error of each start, mean over channels."""
    restored = np.stack(reconstructions(method, z, rng))
    if clamp:
        restored = restored.clip(0, 1)
    return ((restored - z.double().numpy()) ** 2).mean(2)


@torch.no_grad()
@pytest.mark.parametrize(("cls", "spec"), [(DDPMOOD, IMAGES), (DDPMOOD, SIGNALS),
                                           (WaveNetOOD, SIGNALS)])  # fmt: skip
def test_map_and_score_are_in_deviations_of_calibration_samples(cls: type, spec: Spec) -> None:
    """Images are clamped to [0, 1]; signals are not, and are in units of their power about 0."""
    method = with_toy(cls, spec, **({"smooth": 1} if cls is WaveNetOOD else {}))
    signals = len(spec.shape) == 1
    if signals:
        method.unit.fill_(0.25)
    calibration, names = uniform(4, spec, "h")
    samples = [Sample(x, k, k, False) for x, k in zip(calibration, names, strict=True)]
    method.starts.calibrate(method._measure_starts, samples, TrainingContext())
    x, keys = uniform(2, spec, "x")
    detection = method.detect(x, [500, 1000], Rng(keys))

    def normalise(x: Tensor) -> Tensor:
        return (x - 0.5) / 0.25 if signals else x

    rng = Rng(names).fork("calibrate")
    normal = expected_errors(method, normalise(calibration), rng, not signals)
    each = normal.reshape(*normal.shape[:2], -1).mean(2)
    mean, deviation = each.mean(1), each.std(1, ddof=1)
    errors = expected_errors(method, normalise(x), Rng(keys), not signals)
    for i, level in enumerate((500, 1000)):
        count = sum(start <= level for start in method.starts.levels)
        map, score = np.zeros(errors.shape[1:]), np.zeros(2)
        for k in range(count):
            map += errors[k] / deviation[k] / count
            score += (errors[k].reshape(2, -1).mean(1) - mean[k]) / deviation[k] / count
        np.testing.assert_allclose(detection.map[i], map, rtol=2e-3)
        np.testing.assert_allclose(detection.score[i], score, rtol=2e-3, atol=2e-3)


def test_a_z_score_of_the_authors_table() -> None:
    """{1, 2, 3} and {2, 4, 6} of calibration samples; a sample's 4 and 10 are z of 2 and 3: 2.5."""
    calibration = np.array([[1.0, 2, 3], [2.0, 4, 6]])
    z = (np.array([4.0, 10.0]) - calibration.mean(1)) / calibration.std(1, ddof=1)
    assert z.tolist() == [2, 3] and z.mean() == 2.5


@torch.no_grad()
def test_ldm_ood_measures_what_is_decoded() -> None:
    """With an encoder that takes means of 2 x 2 pixels and a decoder that is not linear."""
    method = with_toy(LDMOOD, IMAGES, size=None, looks=0, spectrum=0, adversary=0)
    method.codec.encode = lambda x: torch.nn.functional.avg_pool2d(x, 2)
    method.codec.decode = lambda z: z.tanh().repeat_interleave(2, 2).repeat_interleave(2, 3)
    x, keys = uniform(2, IMAGES, "x")
    z = method.codec.encode(x)
    detection = method.detect(x, [1000], Rng(keys))
    decoded = np.stack(
        [np.tanh(y).repeat(2, 2).repeat(2, 3) for y in reconstructions(method, z, Rng(keys))]
    ).clip(0, 1)
    errors = ((decoded - x.double().numpy()) ** 2).mean((0, 2))  # mean 0, deviation 1 of each start
    np.testing.assert_allclose(detection.map[0], errors, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(detection.score[0], errors.mean((1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(detection.reconstruction[0], decoded[-1], rtol=1e-4, atol=1e-6)
