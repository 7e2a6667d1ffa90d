"""PSNR and SSIM against their formulas, window by window, and where a prediction keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from adbench.benchmark.evaluation.load_predictions import load_predictions
from adbench.benchmark.evaluation.metrics.reconstruction import normal_psnr_ssim, psnr_ssim
from adbench.benchmark.experiments.fit_predict import predict
from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import Split
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.base import Detection, Method

PLUGIN = Path(__file__).parents[3] / "plugin" / "registry.yaml"


def ssim_by_windows(x: np.ndarray, y: np.ndarray) -> float:
    """Of one channel: every window that lies within, its sample moments, the mean of all."""
    size = [min(7, length) for length in x.shape]
    values = []
    for at in product(*(range(n - s + 1) for n, s in zip(x.shape, size, strict=True))):
        window = tuple(slice(a, a + s) for a, s in zip(at, size, strict=True))
        a, b = x[window].ravel(), y[window].ravel()
        (va, cov), (_, vb) = np.cov(a, b)
        ma, mb = a.mean(), b.mean()
        top = (2 * ma * mb + 1e-4) * (2 * cov + 9e-4)
        values.append(top / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    return float(np.mean(values))


@pytest.mark.parametrize("shape", [(30,), (12, 15), (5, 9), (8, 9, 7)])
def test_ssim_is_that_of_its_definition(shape):
    x = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    y = (x + 0.2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    psnr, ssim = psnr_ssim(x, y)
    for i in range(2):
        channels = [
            ssim_by_windows(a.double().numpy(), b.double().numpy())
            for a, b in zip(x[i], y[i], strict=True)
        ]
        assert float(ssim[i]) == pytest.approx(np.mean(channels), abs=1e-10)
        mse = float(((x[i] - y[i]).double() ** 2).mean())
        assert float(psnr[i]) == pytest.approx(-10 * np.log10(mse), abs=1e-5)


def test_what_is_left_as_it_is_has_the_most_of_both():
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    psnr, ssim = psnr_ssim(x, x)
    assert psnr.tolist() == [100, 100]
    assert ssim.tolist() == pytest.approx([1, 1])
    psnr, ssim = psnr_ssim(x, x + 0.1)
    assert psnr.tolist() == pytest.approx([20, 20], abs=1e-4)  # 10 log10(1 / 0.1²)
    assert (ssim < 1).all()


def test_only_normal_samples_are_looked_at():
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    result = torch.stack([x, x * 0.5])
    psnr, ssim = normal_psnr_ssim(x, result, torch.tensor([False, True, False]))
    assert psnr.shape == ssim.shape == (2, 3)
    assert psnr[:, 1].isnan().all() and ssim[:, 1].isnan().all()
    assert psnr[0, 0] == 100 and float(psnr[1, 2]) == pytest.approx(
        float(psnr_ssim(x[2:], x[2:] / 2)[0])
    )
    assert normal_psnr_ssim(x, result, torch.ones(3, dtype=torch.bool))[0].isnan().all()


class Halves(Method):
    """Takes half of the brightness for what is normal, at one of two levels."""

    levels, published = (10, 20), 10

    def fit(self, train: Split, calibration: Split, context: TrainingContext) -> None:
        pass

    def detect(self, x: Tensor, levels: Sequence[int], rng: Rng) -> Detection:
        result = torch.stack([x, x / 2])
        return Detection.from_map((result - x).abs().mean(2), result)


def test_every_normal_sample_of_a_look_is_measured(tmp_path):
    dataset = Registry.read(PLUGIN).dataset("bumps").load()(size=70)
    method = Halves(dataset.spec)
    levels = sorted(Halves.levels)
    predict(tmp_path / "a.h5", method, dataset.test(), levels, TrainingContext(), name="test")
    result = load_predictions(dataset.test(), tmp_path / "a.h5")
    label = np.array([sample.label for sample in dataset.test()])
    assert result.psnr is not None and result.ssim is not None
    assert result.psnr.shape == result.ssim.shape == (2, 70)
    assert (np.isnan(result.psnr) == label).all() and (np.isnan(result.ssim) == label).all()
    assert (result.psnr[0, ~label] == 100).all() and result.ssim[0, ~label] == pytest.approx(1)
    first = int(np.flatnonzero(~label)[0])
    x = dataset.test()[first].x[None]
    expected = torch.cat(psnr_ssim(x, x / 2))
    assert [result.psnr[1, first], result.ssim[1, first]] == pytest.approx(expected.tolist())
