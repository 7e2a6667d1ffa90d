"""PSNR and SSIM of reconstructions of normal samples: how well a method leaves the normal alone.

Only of normal samples: a reconstruction of an abnormal one is meant to differ. On torch tensors,
because they are computed where the reconstructions are, on the device.
Letters: L levels, N samples, C channels, S one to three spatial axes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SSIM_WINDOW = 7
"""Pixels along each axis that SSIM compares at a time."""

MAX_PSNR = 100.0
"""Upper limit in dB; an exact reconstruction would have infinitely many."""


def psnr_ssim(x: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
    """PSNR and SSIM of each sample's reconstruction, (N,) float64 each; higher is more alike.

    PSNR is in dB, at most MAX_PSNR; SSIM lies in -1..1. Wang et al., IEEE Transactions on Image
    Processing 13(4), 2004, with windows of equal weights, unbiased variances, K1 = 0.01, K2 = 0.03
    and a range of 1, averaged over windows that lie wholly within the sample and over channels. A
    shorter axis is compared whole; SSIM is NaN where an axis has one pixel only, for then nothing
    varies.

    x, reconstruction: (N, C, *S), in [0, 1]

    >>> import torch
    >>> from adbench.benchmark.evaluation.metrics.reconstruction import psnr_ssim
    >>> x = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    >>> psnr, ssim = psnr_ssim(x, x.round())
    >>> round(psnr.item(), 2), round(ssim.item(), 3)
    (10.86, 0.702)
    """
    x, y = x.double(), reconstruction.double()
    error = (x - y).square().flatten(1).mean(1)
    psnr = (-10 * torch.log10(error)).clamp(max=MAX_PSNR)
    size = [min(SSIM_WINDOW, length) for length in x.shape[2:]]
    if min(size) < 2:
        return psnr, torch.full_like(psnr, float("nan"))
    count = torch.tensor(size).prod().item()
    unbiased = count / (count - 1)
    means = [_window_mean(values, size) for values in (x, y, x * x, y * y, x * y)]
    mx, my, xx, yy, xy = means
    vx, vy = unbiased * (xx - mx * mx), unbiased * (yy - my * my)
    covariance = unbiased * (xy - mx * my)
    c1, c2 = 0.01**2, 0.03**2
    ssim = (2 * mx * my + c1) * (2 * covariance + c2)
    ssim = ssim / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return psnr, ssim.flatten(1).mean(1)


def normal_psnr_ssim(x: Tensor, reconstruction: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """PSNR and SSIM at every level of the normal samples, (L, N) float64 each, on the CPU.

    NaN for abnormal samples.

    x: (N, C, *S)      reconstruction: (L, N, C, *S)      label: (N,) bool, abnormal

    >>> import torch
    >>> from adbench.benchmark.evaluation.metrics.reconstruction import normal_psnr_ssim
    >>> x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> psnr, ssim = normal_psnr_ssim(x, x[None], torch.tensor([False, True]))
    >>> psnr.tolist()
    [[100.0, nan]]
    """
    metrics = torch.full((2, *reconstruction.shape[:2]), float("nan"), dtype=torch.float64)
    normal = ~label
    for level, images in enumerate(reconstruction):
        if normal.any():
            metrics[:, level, normal] = torch.stack(psnr_ssim(x[normal], images[normal])).cpu()
    return metrics[0], metrics[1]


def _window_mean(values: Tensor, size: list[int]) -> Tensor:
    """The mean over every window of that size that lies wholly within (N, C, *S)."""
    pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
    return pool[len(size)](values, size, stride=1)
