"""The methods without diffusion by stage: loss, map and score of VAE, PCA, the per-pixel baselines
and the features of signals, against their equations written out in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.engine.networks.residual_autoencoder import kl_divergence
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.healthy_mean import HealthyMean
from adbench.methods.intensity import Intensity
from adbench.methods.pca import PCA
from adbench.methods.signal_baselines import RMS, Kurtosis, SpectralFlatness
from adbench.methods.template_z import TemplateZ
from adbench.methods.vae import VAE
from small import build_small

SPEC, SIGNALS = Spec(2, (8, 8)), Spec(2, (64,))


def uniform(count: int, spec: Spec, name: str) -> Tensor:
    return Rng([f"{name}{i}" for i in range(count)]).uniform((spec.channels, *spec.shape)).float()


def fitted(cls: type, spec: Spec, **settings: Any) -> tuple[Any, np.ndarray]:
    """The method and its training samples."""
    x = uniform(20, spec, "t")
    method = cls(spec, **settings)
    samples = [Sample(row, str(i), str(i), False) for i, row in enumerate(x)]
    method.fit(samples, samples[:3], TrainingContext())
    return method.eval(), x.double().numpy()


def compare(method: Any, x: Tensor, map: np.ndarray, score: np.ndarray | None = None) -> None:
    with torch.no_grad():
        detection = method.detect(x, [0], Rng([str(i) for i in range(len(x))]))
    expected = np.asarray(map.mean((1, 2)) if score is None else score)
    np.testing.assert_allclose(detection.map[0].numpy(), map, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(detection.score[0].numpy(), expected, rtol=1e-5)


def test_healthy_mean_is_the_absolute_difference_from_the_mean() -> None:
    method, train = fitted(HealthyMean, SPEC)
    x = uniform(3, SPEC, "x")
    compare(method, x, np.abs(x.double().numpy() - train.mean(0)).mean(1))


def test_template_z_is_in_deviations_and_a_floor() -> None:
    method, train = fitted(TemplateZ, SPEC, floor=0.05)
    x = uniform(3, SPEC, "x")
    z = np.abs(x.double().numpy() - train.mean(0)) / (train.std(0) + 0.05)
    compare(method, x, z.mean(1))


def test_intensity_is_the_mean_over_channels() -> None:
    x = uniform(3, SPEC, "x")
    compare(Intensity(SPEC), x, x.double().numpy().mean(1))


def test_pca_leaves_the_residual_of_the_first_components() -> None:
    method, train = fitted(PCA, SPEC, components=4)
    rows = train.reshape(20, -1)
    basis = np.linalg.svd(rows - rows.mean(0), full_matrices=False)[2][:4]
    x = uniform(3, SPEC, "x")
    centred = x.double().numpy().reshape(3, -1) - rows.mean(0)
    residual = centred - centred @ basis.T @ basis
    compare(method, x, np.abs(residual).reshape(3, 2, 8, 8).mean(1))


class ToyCoder(nn.Module):
    """A code of one number with its logarithm of the variance; decoded to the same everywhere."""

    def encode(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([2 * mean - 1, mean - 2], 1)

    def decode(self, z: Tensor) -> Tensor:
        return (0.4 + 0.2 * z).view(-1, 1, 1, 1).expand(-1, 2, 16, 16)


@torch.no_grad()
@pytest.mark.parametrize("judged", ["map", "elbo"])
def test_vaes_map_and_score(judged: str) -> None:
    """Half the summed squared error plus the divergence from a standard normal distribution."""
    method = build_small(VAE, Spec(2, (16, 16)), size=None, beta=0.7, judged=judged).eval()
    method.coder = ToyCoder()
    x = uniform(3, Spec(2, (16, 16)), "x")
    x64 = x.double().numpy()
    level = x64.reshape(3, -1).mean(1)
    mean, log_variance = 2 * level - 1, level - 2
    restored = (0.4 + 0.2 * mean)[:, None, None, None]
    divergence = (mean**2 + np.exp(log_variance) - log_variance - 1) / 2
    loss = ((restored - x64) ** 2).sum((1, 2, 3)) / 2 + 0.7 * divergence
    map = np.abs(restored - x64).sum(1)
    compare(method, x, map, loss if judged == "elbo" else None)


def test_the_divergence_in_numbers() -> None:
    """Of mean 1 and variance e^2 from the standard normal: (1 + e^2 - 2 - 1) / 2."""
    value = kl_divergence(torch.ones(1, 1), torch.full((1, 1), 2.0)).item()
    assert value == pytest.approx(2.694528, abs=1e-6)
    assert kl_divergence(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def rms(x: np.ndarray) -> np.ndarray:
    return 10 * np.log10(((x - 0.5) ** 2).mean((1, 2)))


def kurtosis(x: np.ndarray) -> np.ndarray:
    envelope = ((x - 0.5) ** 2).sum(1)
    return (envelope**2).mean(1) / envelope.mean(1) ** 2


def flatness(x: np.ndarray) -> np.ndarray:
    wave = (x - 0.5)[:, 0] + 1j * (x - 0.5)[:, 1]
    power = np.abs(np.fft.fft(wave, axis=1)) ** 2
    return 10 * (np.log10(power).mean(1) - np.log10(power.mean(1)))


@pytest.mark.parametrize(
    ("cls", "feature"), [(RMS, rms), (Kurtosis, kurtosis), (SpectralFlatness, flatness)]
)
def test_a_feature_of_signals_is_in_deviations_of_training_samples(cls: type, feature: Any) -> None:
    method, train = fitted(cls, SIGNALS)
    x = uniform(3, SIGNALS, "x")
    normal = feature(train)
    score = np.abs(feature(x.double().numpy()) - normal.mean()) / normal.std(ddof=1)
    detection = method.detect(x, [0], Rng(["a", "b", "c"]))
    np.testing.assert_allclose(detection.score[0].numpy(), score, rtol=1e-5)
    assert detection.map is None
