"""IterMask: masks that shrink as an oracle fills them in; the threshold; the first mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.itermask import IterMask
from small import build_small


class Oracle(nn.Module):
    """Fills in `healthy` where it is shown noise, and with an error that spreads from what it
    cannot see: `spread` times the share of the sample that is masked."""

    def __init__(self, healthy: Tensor, spread: float = 0.0) -> None:
        super().__init__()
        self.healthy, self.spread, self.seen = healthy, spread, list[Tensor]()

    def forward(self, x: Tensor, t: Tensor, hint: Tensor | None = None) -> Tensor:
        masked = (x - self.healthy).abs() > 4  # of noise drawn below, or of a lesion that is seen
        self.seen.append(masked)
        share = masked.flatten(1).float().mean(1).view(-1, *[1] * (x.ndim - 1))
        return torch.where(masked, self.healthy + self.spread * share, x)


class Zero(nn.Module):
    """Fills in 0, which is 0.5 of the data."""

    def forward(self, x: Tensor, t: Tensor, hint: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)


def itermask(shape: tuple[int, ...], **settings: Any) -> Any:
    return build_small(IterMask, Spec(1, shape), size=None, **settings).eval()


def with_oracle(method: Any, healthy: float, tau: float, spread: float = 0.0) -> Oracle:
    oracle = Oracle(torch.full((), healthy), spread)
    method.filler.net = oracle
    method.tau.fill_(tau)
    method._fill = lambda inner, hint, mask, rng: method.filler(
        torch.where(mask, torch.full_like(inner, 100.0), inner), torch.ones(len(inner)).long(), hint
    )
    return oracle


@torch.no_grad()
@pytest.mark.parametrize("shape", [(16, 16), (8, 8, 8)])
def test_the_mask_shrinks_to_the_lesion(shape: tuple[int, ...]) -> None:
    """Healthy tissue is 0.5, which is 0 in [-3, 3]; a lesion of 0.9 is 2.4 there."""
    method = itermask(shape, first="all")
    x = torch.full((2, 1, *shape), 0.5)
    lesion = torch.zeros_like(x[0, 0], dtype=torch.bool)
    lesion[2:4, 2:5] = True
    x[1, 0][lesion] = 0.9
    with_oracle(method, 0.0, tau=1.0)
    detection = method.detect(x, [0], Rng(["a", "b"]))
    assert detection.score[0].tolist() == [0.0, pytest.approx(lesion.float().mean().item())]
    torch.testing.assert_close(detection.map[0, 1], torch.where(lesion, 0.16, 0.0))
    torch.testing.assert_close(detection.reconstruction[0, :, 0], torch.full((2, *shape), 0.5))


@torch.no_grad()
def test_it_goes_on_while_the_mask_shrinks_and_stops_then() -> None:
    """The error of the filling is the masked share: less and less is above the threshold."""
    method = itermask((16, 16), first="all", shrink=0.01, iterations=20)
    oracle = with_oracle(method, 0.0, tau=0.0, spread=1.0)
    steps = torch.linspace(0.5, 0.6, 256).view(1, 1, 16, 16)  # 0 to 0.6 in [-3, 3]
    detection = method.detect(steps, [0], Rng(["a"]))
    assert detection.score.item() == 1.0 and len(oracle.seen) == 1  # nothing is restored: no step
    method.tau.fill_(0.3)
    detection = method.detect(steps, [0], Rng(["a"]))
    target, mask, shares = steps.double() * 6 - 3, torch.ones(256, dtype=torch.bool), [1.0]
    while True:  # by hand
        error = (target.flatten() - mask.double().mean()).square()
        smaller = (error > 0.3) & mask
        if mask.sum() - smaller.sum() < 0.01 * max(int(mask.sum()), 1):
            break
        mask = smaller
        shares.append(mask.double().mean().item())
    assert 2 < len(shares) < 20
    assert detection.score.item() == pytest.approx(shares[-1])
    assert len(oracle.seen) - 1 == len(shares)
    method.iterations = 2
    assert method.detect(steps, [0], Rng(["a"])).score.item() == pytest.approx(shares[1])


@torch.no_grad()
def test_the_first_mask_is_the_given_share_of_the_foreground() -> None:
    method = itermask((16, 16), first="hint", first_share=0.25, iterations=1)
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    x[:, :, :8] = 0.0
    x[2] = 0.0  # without a foreground
    method.first.net = Zero()  # the error is the sample's own
    inner = method.canvas.forward(x)
    mask = method._first_mask(inner, inner, method._inside(x))
    assert mask.flatten(1).sum(1).tolist() == [32, 32, 0]  # of 128 pixels
    error = inner.square()[0, 0]
    assert error[mask[0, 0]].min() > error[method._inside(x)[0, 0] & ~mask[0, 0]].max()


def test_the_threshold_is_a_quantile_of_masked_calibration_errors() -> None:
    """A filling of 0 where the samples are uniform in [-3, 3]: errors are u^2, u uniform in 0..3,
    and 80 % of them lie below (0.8 * 3)^2."""
    method = itermask((32, 32), first="all", calibration=64, quantile=0.8)
    generator = torch.Generator().manual_seed(0)
    samples = [
        Sample(torch.rand(1, 32, 32, generator=generator), f"s{i}", f"s{i}", False)
        for i in range(40)
    ]
    method.filler.net = Zero()
    tau = method._calibrated_threshold(samples, TrainingContext())
    assert tau == pytest.approx(2.4**2, rel=0.05)


def test_without_calibration_or_foreground_it_says_so() -> None:
    method = itermask((16, 16))
    with pytest.raises(ValueError, match="there are none"):
        method._calibrated_threshold([], TrainingContext())
    dark = [Sample(torch.zeros(1, 16, 16), "a", "a", False)]
    with pytest.raises(ValueError, match="foreground"):
        method._calibrated_threshold(dark, TrainingContext())
