"""ImDiffusion: which values are imputed from which, the chain in float64, thresholds and votes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adbench.datasets.base import Sample, Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import scaled_linear_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.imdiffusion import ImDiffusion
from small import build_small

SPEC = Spec(1, (64,))
KEYS = [f"k{i}" for i in range(24)]
SMALL: dict[str, Any] = {"T": 6, "window": 16, "stripes": 4, "vote_every": 2, "amplitude": "none"}


class Constant(nn.Module):
    """Says that x_0 is this, whatever it is shown; and keeps what that was."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value, self.inputs = value, []

    def forward(self, x: Tensor, t: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        self.inputs.append((x.clone(), t.clone(), reference.clone(), mask.clone()))
        return torch.full_like(x, self.value)


class Toy(nn.Module):
    def forward(self, x: Tensor, t: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
        return 0.3 * x + 0.2 * reference - 0.1 * mask + 0.01 * t.view(-1, 1, 1)


def imputer(net: nn.Module | None = None, prediction: Any = "clean", **more: Any) -> Any:
    built = build_small(ImDiffusion, SPEC, **SMALL | more).eval()
    if net is not None:
        built.denoiser = Denoiser(
            net, scaled_linear_schedule(6), prediction_type=prediction, clip=None
        ).eval()
    return built


def white(keys: list[str], size: float = 0.1) -> Tensor:
    return 0.5 + size * Rng(keys).normal((1, 64))


def rows(x: Tensor) -> list[Sample]:
    return [Sample(one, f"r{i}", f"r{i}", False) for i, one in enumerate(x)]


@torch.no_grad()
@pytest.mark.parametrize("reference", ["noise", "values"])
def test_no_value_is_seen_that_is_imputed(reference: str) -> None:
    """A burst within stripe 1 of window 2 changes what is said of other stripes of this window."""
    built = imputer(reference=reference)
    with torch.no_grad():
        for p in built.denoiser.parameters():
            p.normal_(0, 0.3, generator=torch.Generator().manual_seed(p.numel()))
    x = white(["a"])
    burst = x.clone()
    burst[..., 20:24] += 0.3  # the second stripe of 4 of the second window of 16
    one, other = (built._impute(each, Rng(["a"]))[0][0, 0, 0] for each in (x, burst))
    changed = (one != other).nonzero().flatten().tolist()
    assert changed and {(i // 4) % 2 for i in changed} == {0} and {i // 16 for i in changed} == {1}


@torch.no_grad()
@pytest.mark.parametrize("reference", ["noise", "values"])
def test_what_the_network_is_shown(reference: str) -> None:
    net = Constant(0.0)
    built = imputer(net, reference=reference)
    x = white(["a"])
    built._impute(x, Rng(["a"]))
    z, a = x[0] - 0.5, scaled_linear_schedule(6).alpha_bar
    for x_in, t, shown, mask in net.inputs:
        known = mask[:2] == 0
        assert torch.equal(mask[0], 1 - mask[1])
        assert mask[0, 0, :8].tolist() == [1.0] * 4 + [0.0] * 4
        level = t[:2] + 1
        for k in range(2):
            if reference == "values":
                assert torch.equal(shown[k], z * known[k]) and not x_in[k][known[k]].any()
                continue
            scale = a[level[k]].sqrt(), (1 - a[level[k]]).sqrt()
            inside = (scale[0] * z + scale[1] * shown[k])[known[k]].float()
            torch.testing.assert_close(x_in[k][known[k]], inside)
            assert not shown[k][~known[k]].any()


@torch.no_grad()
def test_the_chain_golden_in_float64() -> None:
    built = imputer(Toy(), "noise")
    x = white(["a"])
    estimates, errors = built._impute(x, Rng(["a"]))
    streams = Rng.cat([Rng(["a"]).fork("grating", i) for i in range(2)])
    eps = streams.fork("known").normal((1, 64)).double().numpy()
    start = streams.fork("start").normal((1, 64)).double().numpy()
    beta = np.linspace(0.0015**0.5, 0.0195**0.5, 6) ** 2 * (1000 / 6)
    a = np.concatenate([[1.0], np.cumprod(1 - np.minimum(beta, 0.999))])
    z = x.double().numpy() - 0.5
    stripe = np.arange(64) // 4 % 2
    imputed = {}
    for k in range(2):
        mask = (stripe == k)[None]
        shown = eps[k] * ~mask
        y = np.where(mask, start[k], a[6] ** 0.5 * z[0] + (1 - a[6]) ** 0.5 * eps[k])
        for level in range(6, 0, -1):
            guess = 0.3 * y + 0.2 * shown - 0.1 * mask + 0.01 * (level - 1)
            clean = (y - (1 - a[level]) ** 0.5 * guess) / a[level] ** 0.5
            imputed[k, level] = clean
            ratio, b = a[level] / a[level - 1], a[level - 1]
            y = (b**0.5 * (1 - ratio) * clean + ratio**0.5 * (1 - b) * y) / (1 - a[level])
            drawn = streams.fork("step").at(level).normal((1, 64)).double().numpy()[k]
            y = y + ((1 - b) / (1 - a[level]) * (1 - ratio)) ** 0.5 * drawn
            y = np.where(mask, y, b**0.5 * z[0] + (1 - b) ** 0.5 * eps[k])
    for voter, level in enumerate((1, 3, 5)):
        expected = np.where(stripe == 0, imputed[0, level], imputed[1, level])
        np.testing.assert_allclose(estimates[voter, 0], expected, rtol=2e-3, atol=2e-3)
        error = (expected[0] - z[0, 0]) ** 2
        np.testing.assert_allclose(errors[voter, 0], error, rtol=1e-2, atol=5e-3)


@torch.no_grad()
def test_thresholds_are_quantiles_and_steps_vote() -> None:
    """White noise of variance 1 whose mean is imputed: the threshold is chi-square's quantile."""
    built = imputer(Constant(0.0), quantile=0.95, calibration=200)
    data = rows(white([f"c{i}" for i in range(200)], 1.0))
    built._calibrate(data, TrainingContext())
    assert built.thresholds.tolist() == pytest.approx([3.841] * 3, rel=0.06)
    built.thresholds.copy_(torch.tensor([1.0, 4.0, 100.0]))
    x = torch.full((1, 1, 64), 0.5)
    x[0, 0, 7], x[0, 0, 40] = 0.5 + 3.0, 0.5 + 1.5  # errors 9 and 2.25
    low, all_three = built.detect(x, [500, 1000], Rng(["a"])).map[:, 0]
    assert low[7].item() == pytest.approx((2 + 9 / 10) / 3)  # levels 1 and 3 of 6
    assert all_three[7].item() == pytest.approx((2 + 9 / 10) / 4)
    assert all_three[40].item() == pytest.approx((1 + 2.25 / 3.25) / 4)
    assert low[0] == 0 and low.count_nonzero() == 2
    assert built.detect(x, [1], Rng(["a"])).map[0, 0, 7].item() == pytest.approx((1 + 0.9) / 2)


@torch.no_grad()
def test_the_loss_is_that_of_the_masked_stripes() -> None:
    built = imputer(Toy(), "noise")
    z, rng = white(KEYS) - 0.5, Rng(KEYS)
    mask = ((torch.arange(64) // 4 % 2)[None] == rng.fork("grating").integers(2)[:, None])[:, None]
    eps = rng.fork("noise").normal((1, 64))
    level = 1 + rng.fork("level").integers(6)
    a = scaled_linear_schedule(6).alpha_bar[level].view(-1, 1, 1)
    noisy = (a.sqrt() * z + (1 - a).sqrt() * eps).float()
    guess = Toy()(noisy, level - 1, eps * ~mask, mask.float())
    expected = torch.stack(
        [(g - e)[m].square().mean() for g, e, m in zip(guess, eps, mask, strict=True)]
    )
    torch.testing.assert_close(built._loss(z, rng), expected, rtol=1e-4, atol=1e-5)


def test_an_oracle_of_tones_calls_a_burst() -> None:
    built = imputer(T=20, steps=140, batch=8, lr=3e-3, width=16, heads=2, layers=1)
    time = torch.arange(64.0)
    phase = 6.28 * Rng(KEYS).uniform((1, 1)).float()
    x = 0.5 + 0.2 * (0.4 * time + phase).sin()
    built.fit(rows(x[:16]), rows(x[16:]), TrainingContext())
    built.eval()
    burst = x[16:].clone()
    burst[:, :, 30] += 0.4
    with torch.no_grad():
        map = built.detect(burst, [600], Rng(KEYS[16:])).map[0]
    others = torch.arange(64) != 30
    assert (map[:, 30:31] > map[:, others]).float().mean() > 0.8


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="stripes=3 are not an even number that divides 16"):
        imputer(stripes=3)
    with pytest.raises(ValueError, match="heads=3 do not divide the width 8"):
        imputer(heads=3)
    with pytest.raises(ValueError, match="there are none"):
        imputer().fit(rows(white(KEYS)), [], TrainingContext())
    assert imputer(window=20, stripes=2).canvas.padded_shape == (80,)
