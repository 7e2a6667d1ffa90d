"""DiffPath: the six statistics by hand, the density against SciPy, the choice of a mixture."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.diffpath import COVARIANCES, DiffPath, _precision_factors, select_mixture
from known import NormalPosteriorMean
from small import build_small

ALPHA_BAR = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])


class Toy(nn.Module):
    """eps(x, t) = 0.3 x + 0.1 t / 1000, t counted from 0."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 0.3 * x + 0.1 * t.view(-1, 1, 1, 1).to(x.dtype) / 1000


def diffpath(net: nn.Module | None = None, **settings: Any) -> Any:
    settings = {"size": None, "calibration": 1000} | settings
    method = build_small(DiffPath, Spec(1, (8, 8)), **settings).eval()
    if net is not None:
        method.denoiser = Denoiser(net, linear_schedule()).eval()
    return method


def numbers(x: np.ndarray, levels: list[int]) -> list[float]:
    """Song et al. 2021, equation 12 with sigma 0, upwards; what the noise estimates were."""
    noises = []
    for low, high in pairwise(levels):
        a, b = ALPHA_BAR[low], ALPHA_BAR[high]
        eps = 0.3 * x + 0.1 * (max(low, 1) - 1) / 1000
        x = b**0.5 * (x - (1 - a) ** 0.5 * eps) / a**0.5 + (1 - b) ** 0.5 * eps
        noises.append(eps)
    path, change = np.array(noises), np.diff(noises, axis=0) * len(noises)
    return [(part**power).mean() for part in (path, change) for power in (1, 2, 3)]


@torch.no_grad()
def test_the_statistics_are_those_of_the_path() -> None:
    """The authors' numbers, as means: of eps and of its difference times the number of steps."""
    method, x = diffpath(Toy(), sampling_steps=4), Rng([*"abc"]).normal((1, 8, 8))
    ours = method.statistics(x, 1000).numpy()
    expected = [numbers(one.double().numpy(), [0, 250, 500, 750, 1000]) for one in x]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-7)
    assert method.denoiser.evaluations == 3 * 4


@pytest.mark.parametrize("kind", COVARIANCES)
def test_the_score_is_the_density_of_scikit_learns_mixture(kind: str) -> None:
    from sklearn.mixture import GaussianMixture

    values = Rng(["a"]).normal((80, 6))[0].double().numpy() * [1, 2, 3, 1, 1, 1]
    mixture = GaussianMixture(2, covariance_type=kind, random_state=0).fit(values)
    method = diffpath(mixture_sizes=(4,))
    method.weights[1, :2] = torch.from_numpy(mixture.weights_)
    method.means[1, :2] = torch.from_numpy(mixture.means_)
    method.precisions[1, :2] = _precision_factors(mixture)
    density = method._log_density(torch.from_numpy(values), 1).numpy()
    np.testing.assert_allclose(density, mixture.score_samples(values), rtol=1e-6)


def test_one_component_is_the_normal_distribution_of_the_calibration_samples() -> None:
    """Fitted end to end: the log density of SciPy's normal distribution of their statistics."""
    method = diffpath(Toy(), mixture_sizes=(1,), sampling_steps=3)
    generator = torch.Generator().manual_seed(0)
    shade = torch.rand(40, generator=generator)
    samples = [
        Sample(0.5 * torch.rand(1, 8, 8, generator=generator) * s, f"{i}", f"{i}", False)
        for i, s in enumerate(shade)
    ]
    method._fit_mixtures(samples, TrainingContext())
    x = torch.stack([s.x for s in samples])
    statistics = method.statistics(method.canvas.forward(x), 1000).numpy()
    z = (statistics - statistics.mean(0)) / statistics.std(0)
    score = method.detect(x, [1000], Rng([s.key for s in samples])).score[0].double().numpy()
    covariances: Any = (np.cov(z.T, bias=True), np.eye(6))  # full, and of standard scores
    densities = [
        multivariate_normal.logpdf(z, np.zeros(6), c + 1e-6 * np.eye(6)) for c in covariances
    ]
    assert min(np.abs(-score - d).max() for d in densities) < 2e-3
    outlier = method.detect(torch.ones(1, 1, 8, 8), [1000, 900], Rng(["x"])).score
    assert outlier.min() > score.max() + 10
    assert outlier[0] == outlier[1]  # 900 stands for the nearest of the four levels


def test_an_exact_model_finds_samples_that_are_not_normal() -> None:
    """Normal samples have variance 1 and their inversion has noise of variance 1 at all levels."""
    method = diffpath(mixture_sizes=(1,), sampling_steps=10)
    exact = NormalPosteriorMean(linear_schedule(), 0.0, 1.0)
    method.denoiser = Denoiser(exact, linear_schedule(), prediction_type="clean").eval()
    keys = [f"s{i}" for i in range(60)]
    normal = 0.5 + Rng(keys).normal((1, 8, 8)) / 2  # variance 1 on the canvas, which is -1..1
    method._fit_mixtures(
        [Sample(x, key, key, False) for x, key in zip(normal, keys, strict=True)], TrainingContext()
    )
    new = 0.5 + Rng([key + "'" for key in keys]).normal((1, 8, 8)) / 2
    wide = 0.5 + (new - 0.5) * 1.5
    score = method.detect(torch.cat([new, wide]), [1000], Rng(keys * 2)).score[0]
    assert (score[60:].sort().values[6] > score[:60].sort().values[54]).item()


def test_mixtures_too_large_for_the_samples_are_not_tried() -> None:
    values = Rng(["a"]).normal((12, 6))[0].double()
    groups = [f"p{i // 2}" for i in range(12)]
    assert select_mixture(values, groups, (1, 11, 50), seed=0).n_components == 1
    with pytest.raises(ValueError, match="smaller `mixture_sizes`"):
        few = [Sample(torch.zeros(1, 8, 8), f"{i}", f"{i}", False) for i in range(3)]
        diffpath(mixture_sizes=(50,)).fit(few, few, TrainingContext())
    with pytest.raises(ValueError, match="at least 2"):
        diffpath().fit([], [], TrainingContext())
