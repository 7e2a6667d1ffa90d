"""How well a method leaves the normal alone: PSNR and SSIM of a reconstruction of a normal sample.

Only of normal samples: a reconstruction of an abnormal one is meant to differ.
Letters: N samples, C channels, S one to three spatial axes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SSIM_WINDOW = 7
"""Places along each axis that SSIM compares at a time."""

MAX_PSNR = 100.0
"""dB that a reconstruction counts as at most; an exact one would have infinitely many."""


def psnr_ssim(x: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
    """psnr (N,) in dB, at most MOST, and ssim (N,) in -1..1, higher is more alike, of samples
    (N, C, *S) in [0, 1] and their reconstructions.

    Wang et al., IEEE Transactions on Image Processing 13(4), 2004, with windows of equal weights,
    unbiased variances, K1 = 0.01, K2 = 0.03 and a range of 1, averaged over windows that lie wholly
    within the sample and over channels. A shorter axis is compared whole; NaN where an axis has one
    place only, for then nothing varies.
    """
    x, y = x.double(), reconstruction.double()
    error = (x - y).square().flatten(1).mean(1)
    psnr = (-10 * torch.log10(error)).clamp(max=MAX_PSNR)
    size = [min(SSIM_WINDOW, length) for length in x.shape[2:]]
    if min(size) < 2:
        return psnr, torch.full_like(psnr, float("nan"))
    count = torch.tensor(size).prod().item()
    unbiased = count / (count - 1)
    means = [_window_mean(part, size) for part in (x, y, x * x, y * y, x * y)]
    mx, my, xx, yy, xy = means
    vx, vy = unbiased * (xx - mx * mx), unbiased * (yy - my * my)
    covariance = unbiased * (xy - mx * my)
    light, contrast = 0.01**2, 0.03**2
    alike = (2 * mx * my + light) * (2 * covariance + contrast)
    alike = alike / ((mx * mx + my * my + light) * (vx + vy + contrast))
    return psnr, alike.flatten(1).mean(1)


def normal_psnr_ssim(x: Tensor, reconstruction: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """psnr and ssim, (L, N) each, of reconstructions (L, N, C, *S) at L levels; NaN for abnormal
    samples, by their label (N,) bool."""
    found = torch.full((2, *reconstruction.shape[:2]), float("nan"), dtype=torch.float64)
    normal = ~label
    for level, made in enumerate(reconstruction):
        if normal.any():
            found[:, level, normal] = torch.stack(psnr_ssim(x[normal], made[normal])).cpu()
    return found[0], found[1]


def _window_mean(values: Tensor, size: list[int]) -> Tensor:
    """Over every window of that size that lies wholly within (N, C, *S)."""
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
    return pool[len(size)](values, size, stride=1)
