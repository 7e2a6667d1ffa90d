"""Gaussian blur and enlargement against SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, zoom

from adbench.engine.transforms.blur import enlarge, gaussian_blur


def test_the_blur_is_scipys_along_the_images_axes_alone() -> None:
    x = np.random.default_rng(1).random((2, 24, 20))
    expected = gaussian_filter(x, (0, 2, 2), mode="mirror")
    np.testing.assert_allclose(gaussian_blur(torch.from_numpy(x), 2.0).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(24, 20), (5, 3), (1, 2)])
def test_symmetric_it_is_scipys_by_default_up_to_the_border(shape: tuple[int, int]) -> None:
    """Also where the Gaussian reaches several times around a small image."""
    x = np.random.default_rng(1).random((2, *shape))
    result = gaussian_blur(torch.from_numpy(x), 3.0, mode="symmetric").numpy()
    np.testing.assert_allclose(result, gaussian_filter(x, (0, 3, 3)), rtol=1e-9)


def test_a_constant_stays_and_a_small_image_is_no_error() -> None:
    x = torch.full((1, 5, 3), 0.7)
    torch.testing.assert_close(gaussian_blur(x, 4.0), x)
    assert gaussian_blur(x, 0.0) is x


@pytest.mark.parametrize("shape", [(16, 24), (17, 6), (4, 6)])
def test_an_enlargement_is_scipys_mirrored_one(shape: tuple[int, int]) -> None:
    """Which is what scikit-image's `resize` calls."""
    x = np.random.default_rng(1).random((4, 6))
    factors = [n / m for n, m in zip(shape, x.shape, strict=True)]
    expected = np.asarray(zoom(x, factors, order=1, mode="mirror", grid_mode=True))
    result = enlarge(torch.from_numpy(x)[None], shape)[0].numpy()
    np.testing.assert_allclose(result, expected, rtol=1e-9)


def test_one_position_becomes_a_constant() -> None:
    assert (enlarge(torch.full((1, 1, 1), 0.7), (4, 8)) == 0.7).all()
