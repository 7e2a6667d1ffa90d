"""PaDiM: Gaussians and Mahalanobis distances against NumPy and SciPy; a planted patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from torch import Tensor

from adbench.datasets.base import Sample, Spec
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.padim import PaDiM
from small import build_small

SPEC = Spec(1, (64, 64))


def padim(**settings: Any) -> Any:
    more = {"size": 64, "depths": (2, 3), "dimensions": 12, "blur": 0.0} | settings
    return build_small(PaDiM, SPEC, **more).eval()


def image(name: str) -> Tensor:
    """(1, 64, 64) in [0, 1]: a ramp with a disc, and noise."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    disc = ((y - 30) ** 2 + (x - 24) ** 2 < 150).float()
    return (0.3 + x / 200 + 0.3 * disc + 0.03 * Rng([name]).normal((1, 64, 64))[0]).clamp(0, 1)


def samples(count: int) -> list[Sample]:
    keys = [f"t{i}" for i in range(count)]
    return [Sample(image(key), key, key, False, torch.zeros(64, 64) > 0) for key in keys]


@torch.no_grad()
def test_the_distance_is_scipys_from_numpys_covariance() -> None:
    """30 samples in batches of 8; 0.01 on the diagonal."""
    method, train = padim(), samples(30)
    method.fit(train, [], TrainingContext(batch=8))
    z = method.maps.embed(torch.stack([s.x for s in train]), interpolation="nearest")
    z = z[:, method.channels]
    z = z.flatten(2).permute(2, 0, 1).double().numpy()  # (P, N, K)
    np.testing.assert_allclose(method.mean.numpy(), z.mean(1), rtol=1e-4, atol=1e-5)
    x = image("new")[None]
    detection = method.detect(x, [0], Rng(["new"]))
    places = (
        method.maps.embed(x, interpolation="nearest")[0, method.channels]
        .flatten(1)
        .T.double()
        .numpy()
    )
    expected = []
    for at, normal in zip(places, z, strict=True):
        inverse = np.linalg.inv(np.cov(normal.T) + 0.01 * np.eye(12))
        expected.append(mahalanobis(at, normal.mean(0), inverse))
    grid = torch.tensor(expected).view(1, 1, 8, 8)
    wide = torch.nn.functional.interpolate(grid, size=(64, 64), mode="bilinear")[0, 0]
    torch.testing.assert_close(detection.map[0, 0].double(), wide, rtol=1e-3, atol=1e-4)
    assert detection.score.item() == pytest.approx(wide.max().item(), rel=1e-3)


def test_channels_are_drawn_once_by_the_seed() -> None:
    drawn = []
    for seed in (0, 0, 1):
        method = padim()
        method.fit(samples(2), [], TrainingContext(seed=seed))
        drawn.append(method.channels.tolist())
        assert len(set(drawn[-1])) == 12 and max(drawn[-1]) < 152
    assert drawn[0] == drawn[1] != drawn[2]


@torch.no_grad()
def test_a_planted_patch_is_where_it_looks_unusual() -> None:
    method = padim(blur=1.0, features="effperc", depths=(1, 2))
    method.fit(samples(40), [], TrainingContext())
    normal = image("x")
    ill = normal.clone()
    ill[:, 40:52, 40:52] = 1 - ill[:, 40:52, 40:52]
    detection = method.detect(torch.stack([normal, ill]), [0], Rng(["n", "i"]))
    assert detection.score[0, 1] > 1.5 * detection.score[0, 0]
    row, column = divmod(int(detection.map[0, 1].argmax()), 64)
    assert 34 <= row < 58 and 34 <= column < 58


def test_one_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="two training samples at least, not 1"):
        padim().fit(samples(1), [], TrainingContext())
