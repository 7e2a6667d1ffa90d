"""The cheap baselines against closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA as Theirs

from adbench.datasets.base import Sample, Spec
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.base import Method
from adbench.methods.intensity import Intensity
from adbench.methods.pca import PCA
from adbench.methods.template_z import TemplateZ

SPEC = Spec(2, (3, 4))


def normals(count: int, seed: int = 0) -> list[Sample]:
    x = torch.from_numpy(np.random.default_rng(seed).random((count, 2, 3, 4), np.float32))
    return [Sample(one, f"n{i}", f"n{i}", False) for i, one in enumerate(x)]


def look(method: Method, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Map (N, *S) and reconstruction (N, C, *S); of Intensity, which has none, the map twice."""
    results = method.detect(x, [0], Rng([str(i) for i in range(len(x))]))
    assert results.map is not None
    other = results.map if results.reconstruction is None else results.reconstruction
    return results.map[0].numpy(), other[0].numpy()


def test_intensity_is_the_brightness_of_a_channel_or_of_all() -> None:
    x = torch.stack([s.x for s in normals(3)])
    mean, first, dark = Intensity(SPEC), Intensity(SPEC, channel=1), Intensity(SPEC, dark=True)
    np.testing.assert_array_equal(look(mean, x)[0], x.mean(1).numpy())
    np.testing.assert_array_equal(look(first, x)[0], x[:, 1].numpy())
    np.testing.assert_allclose(look(dark, x)[0], 1 - x.mean(1).numpy(), rtol=1e-6)
    with pytest.raises(ValueError, match=r"channel is one of 0\.\.1"):
        Intensity(SPEC, channel=2)


def test_template_z_counts_standard_deviations() -> None:
    train = normals(50)
    method = TemplateZ(SPEC, floor=0.0)
    method.fit(train, [], TrainingContext())
    rows = torch.stack([s.x for s in train])
    z = (rows[:4] - rows.mean(0)).abs() / rows.std(0, correction=0)
    np.testing.assert_allclose(look(method, rows[:4])[0], z.mean(1).numpy(), rtol=1e-4)
    flat = TemplateZ(SPEC, floor=0.1)
    flat.fit([train[0]] * 3, [], TrainingContext())
    assert look(flat, train[0].x[None] + 0.1)[0].mean() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("components", [1, 5, 64])
def test_pca_projects_as_scikit_learn_does(components: int) -> None:
    train, test = normals(20), torch.stack([s.x for s in normals(6, seed=1)])
    method = PCA(SPEC, components=components)
    method.fit(train, [], TrainingContext())
    theirs = Theirs(min(components, 19)).fit(np.stack([s.x.flatten().numpy() for s in train]))
    flat = test.flatten(1).numpy()
    want = theirs.inverse_transform(theirs.transform(flat)).reshape(test.shape)
    results, normal = look(method, test)
    np.testing.assert_allclose(normal, want, atol=2e-5)
    np.testing.assert_allclose(results, np.abs(test.numpy() - want).mean(1), atol=2e-5)


def test_pca_of_what_it_was_fitted_on_leaves_nothing() -> None:
    train = normals(8)
    method = PCA(SPEC, components=8, samples=8)
    method.fit(train, [], TrainingContext())
    assert look(method, torch.stack([s.x for s in train]))[0].max() < 1e-5
    constant = PCA(SPEC)
    constant.fit([train[0]] * 4, [], TrainingContext())
    assert look(constant, train[0].x[None])[0].max() < 1e-6
