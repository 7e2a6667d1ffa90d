"""PatchCore: distances, the weight of equation 7, map and score against NumPy; a planted patch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from adbench.datasets.base import Sample, Spec
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.patchcore import PatchCore
from small import build_small

SPEC = Spec(2, (64, 64))


def patchcore(**settings: Any) -> Any:
    more = {"size": 64, "depths": (2, 3), "bank": 4} | settings
    return build_small(PatchCore, SPEC, **more).eval()


def texture(name: str) -> Tensor:
    """(2, 64, 64) in [0, 1]: a grating, moved and with noise of its own."""
    rng = Rng([name])
    shift = 6.3 * rng.fork("shift").uniform((2, 1, 1))[0].float()
    wave = torch.sin(torch.arange(64) / 3 + shift).expand(2, 64, 64)
    return (0.5 + 0.2 * wave + 0.02 * rng.normal((2, 64, 64))[0]).clamp(0, 1)


def samples(count: int, name: str) -> list[Sample]:
    keys = [f"{name}{i}" for i in range(count)]
    return [Sample(texture(key), key, key, False, torch.zeros(64, 64) > 0) for key in keys]


def reference(patches: np.ndarray, memory: np.ndarray, neighbours: int) -> tuple[np.ndarray, float]:
    """The distances of all patches, and the score of equations 6 and 7, in float64."""
    distance = np.linalg.norm(patches[:, None] - memory[None], axis=2)
    nearest = distance.argmin(1)
    lowest = distance.min(1)
    at = lowest.argmax()
    own = nearest[at]
    around = np.linalg.norm(memory - memory[own], axis=1).argsort()[:neighbours]
    weight = 1 - np.exp(lowest[at]) / np.exp(distance[at, around]).sum()
    return lowest, weight * lowest[at]


@torch.no_grad()
@pytest.mark.parametrize("neighbours", [3, 9])
def test_map_and_score_are_the_papers(neighbours: int) -> None:
    """8 x 8 patches of 2 x 40 + 2 x 112 features, and a memory of 20 vectors."""
    method = patchcore(neighbours=neighbours, blur=2.0)
    x = torch.stack([texture("a"), texture("b")])
    patches = method.maps.embed(x, window=3)
    spread = 0.05 * Rng(["memory"]).normal((20, 304))[0]
    method.memory.vectors = patches.flatten(2).mT.flatten(0, 1)[::6][:20] + spread
    memory = method.memory.vectors.double().numpy()
    detection = method.detect(x, [0], Rng(["a", "b"]))
    for i in range(2):
        places = patches[i].flatten(1).T.double().numpy()
        distance, score = reference(places, memory, neighbours)
        assert detection.score[0, i].item() == pytest.approx(score, rel=1e-4)
        grid = torch.from_numpy(distance.reshape(1, 1, 8, 8))
        wide = torch.nn.functional.interpolate(grid, size=(64, 64), mode="bilinear")[0, 0].numpy()
        expected = gaussian_filter(wide, 2.0, mode="mirror")
        np.testing.assert_allclose(detection.map[0, i].numpy(), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_the_weight_the_score_is_the_largest_distance() -> None:
    method, x = patchcore(reweight=False, blur=0.0), texture("a")[None]
    patches = method.maps.embed(x, window=3).flatten(2).mT[0]
    method.memory.vectors = patches[:10] + 0.1
    distance, _ = reference(patches.double().numpy(), method.memory.vectors.double().numpy(), 9)
    assert method.detect(x, [0], Rng(["a"])).score.item() == pytest.approx(distance.max(), rel=1e-4)


@torch.no_grad()
def test_what_it_remembers_is_a_share_of_the_patches_of_some_samples() -> None:
    method, train = patchcore(share=0.1), samples(6, "t")
    method.fit(train, [], TrainingContext())
    assert method.memory.vectors.shape == (26, 304)  # ceil(0.1 * 4 * 64)
    x = torch.stack([train[i].x for i in (0, 1, 3, 4)])
    patches = method.maps.embed(x, window=3).flatten(2).mT.flatten(0, 1)
    gap = (method.memory.vectors[:, None] - patches).square().sum(2).min(1).values
    assert gap.max() < 1e-6


@torch.no_grad()
def test_a_planted_patch_is_where_it_looks_unusual() -> None:
    method = patchcore(share=0.5, blur=1.0, features="effperc", depths=(1, 2))
    method.fit(samples(4, "t"), [], TrainingContext())
    normal = texture("x")
    ill = normal.clone()
    ill[:, 20:32, 36:48] = ill[:, 20:32, 36:48].mT
    detection = method.detect(torch.stack([normal, ill]), [0], Rng(["n", "i"]))
    assert detection.score[0, 1] > 1.4 * detection.score[0, 0]
    row, column = divmod(int(detection.map[0, 1].argmax()), 64)
    assert 16 <= row < 36 and 32 <= column < 52


def test_an_empty_training_split_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to remember"):
        patchcore().fit([], [], TrainingContext())
