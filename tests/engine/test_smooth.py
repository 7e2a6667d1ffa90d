"""Gaussian blur against SciPy's."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from adbench.engine.smooth import blurred


def test_the_blur_is_scipys_along_the_images_axes_alone() -> None:
    x = np.random.default_rng(1).random((2, 24, 20))
    expected = gaussian_filter(x, (0, 2, 2), mode="mirror")
    np.testing.assert_allclose(blurred(torch.from_numpy(x), 2.0).numpy(), expected, rtol=1e-9)


def test_a_constant_stays_and_a_small_image_is_no_error() -> None:
    x = torch.full((1, 5, 3), 0.7)
    torch.testing.assert_close(blurred(x, 4.0), x)
    assert blurred(x, 0.0) is x
