"""Signals as DDPM-OOD, LDM-OOD and LDM see them: about 0, in units of amplitude, not clamped."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from adbench.datasets.base import Sample, Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import scaled_linear_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.methods.ddpm_ood import DDPMOOD
from adbench.methods.ldm import LDM
from adbench.methods.ldm_ood import LDMOOD
from adbench.methods.wavenet_ood import WaveNetOOD
from known import ConstantX0, SmoothNetwork
from small import build_small, samples, small_method

SPEC = Spec(2, (64,))
KEYS = [f"k{i}" for i in range(12)]
METHODS = [DDPMOOD, LDMOOD, LDM]


def white(rms: float, keys: list[str] = KEYS) -> Tensor:
    return 0.5 + rms * Rng(keys).normal((2, 64))


def split(x: Tensor, name: str) -> list[Sample]:
    return [Sample(row, f"{name}{i}", f"{name}{i}", False) for i, row in enumerate(x)]


def fitted(cls: type, rms: float = 0.1, **settings: Any) -> Any:
    method = build_small(cls, SPEC, **settings)
    method.fit(split(white(rms), "t"), split(white(rms)[:4], "h"), TrainingContext())
    return method.eval()


@pytest.mark.parametrize("cls", METHODS)
def test_a_network_sees_unit_power_about_0(cls: type) -> None:
    method = fitted(cls)
    z = method._normalise(white(0.1))
    assert z.mean().abs() < 0.05
    assert z.square().mean().sqrt().item() == pytest.approx(1, rel=1e-5)
    assert torch.equal(method._normalise(torch.full((1, 2, 64), 0.5)), torch.zeros(1, 2, 64))


def test_the_signal_to_noise_ratio_of_the_lowest_start() -> None:
    """17.7 dB of components of unit power; [0, 1] about .5 had -3.4 dB at a deviation of .088."""
    alpha_bar = scaled_linear_schedule().alpha_bar[11].item()
    ratio = alpha_bar / (1 - alpha_bar)
    z = fitted(DDPMOOD, 0.088)._normalise(white(0.088))
    assert 10 * math.log10(ratio * z.square().mean().item()) == pytest.approx(17.7, abs=0.1)
    assert 10 * math.log10(ratio * 0.088**2) == pytest.approx(-3.4, abs=0.1)


@pytest.mark.parametrize("cls", METHODS)
def test_the_unit_is_the_training_samples_each_samples_own_or_1(cls: type) -> None:
    x = white(0.2, ["a", "b"])
    for amplitude, rms in (("train", 2.0), ("sample", 1.0), ("none", 0.2)):
        z = fitted(cls, 0.1, amplitude=amplitude)._normalise(x)
        assert z.square().mean().sqrt().item() == pytest.approx(rms, rel=0.15)
    method = fitted(cls, amplitude="sample")
    quiet, loud = (method.detect(0.5 + gain * (x - 0.5), [1000], Rng(["a", "b"])).score
                   for gain in (0.5, 2.0))  # fmt: skip
    torch.testing.assert_close(quiet, loud, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("cls", [DDPMOOD, WaveNetOOD])
def test_what_is_restored_is_not_clamped(cls: type) -> None:
    """A denoiser that says 9 units restores 0.5 + 9 units, and errors are squared units."""
    method = fitted(cls, 0.1, sampling_steps=10, skip=4)
    method.starts.mean.zero_()
    method.starts.deviation.fill_(1)
    method.denoiser = Denoiser(
        ConstantX0(torch.full((1, 2, 64), 9.0)), scaled_linear_schedule(), prediction_type="clean"
    ).eval()
    x = white(0.1, ["a"])
    detection = method.detect(x, [1000], Rng(["a"]))
    unit = method.unit.item()
    torch.testing.assert_close(
        detection.reconstruction[0], torch.full((1, 2, 64), 0.5 + 9 * unit), rtol=1e-4, atol=1e-4
    )
    z = (x - 0.5) / unit
    assert detection.score[0, 0].item() == pytest.approx((9 - z).square().mean().item(), rel=1e-3)


@torch.no_grad()
def test_ldm_ood_does_not_clamp_what_is_decoded() -> None:
    method = fitted(LDMOOD)
    method.codec.decode = lambda z: torch.full((len(z), 2, 64), 9.0)
    reconstruction = method.detect(white(0.1, ["a"]), [1000], Rng(["a"])).reconstruction
    torch.testing.assert_close(reconstruction[0, 0], torch.full((2, 64), 0.5 + 9 * method.unit))


@torch.no_grad()
def test_ldms_map_is_in_units() -> None:
    method = fitted(LDM, healing="plain")
    method.codec.decode = lambda z: torch.full((len(z), 2, 64), 9.0)
    x = white(0.1, ["a"])
    detection = method.detect(x, [500], Rng(["a"]))
    torch.testing.assert_close(detection.map[0, 0], (9 - (x - 0.5) / method.unit).abs().mean(1)[0])
    torch.testing.assert_close(
        detection.reconstruction[0, 0], torch.full((2, 64), 0.5 + 9 * method.unit)
    )


@torch.no_grad()
def test_estimates_of_signals_may_be_clamped_to_6_units_or_the_range_of_the_data() -> None:
    assert build_small(DDPMOOD, SPEC).denoiser.clip is None
    assert build_small(DDPMOOD, SPEC, bounded=True).denoiser.clip == (-6, 6)
    none = build_small(DDPMOOD, SPEC, bounded=True, amplitude="none")
    assert none.denoiser.clip == (-0.5, 0.5)


@pytest.mark.parametrize("cls", METHODS)
def test_a_unit_is_stored_for_signals_alone(cls: type) -> None:
    method = fitted(cls)
    state = method.state_dict()
    assert state["unit"].item() == pytest.approx(0.1, rel=0.05)
    fresh = build_small(cls, SPEC)
    fresh.load_state_dict(state)
    assert torch.equal(fresh.unit, method.unit)
    with pytest.raises(ValueError, match="amplitude by train"):
        build_small(cls, SPEC, amplitude="sample").load_state_dict(state)
    images = build_small(cls, Spec(1, (16, 16)))
    assert images.unit is None and "unit" not in images.state_dict()


def test_the_authors_code_neither_scales_nor_stretches_signals() -> None:
    """Its per-sample stretching to [0, 1] is of images; signals stay as they were recorded."""
    x = white(0.1)
    for name in ("ddpm-ood-authors", "ldm-ood-authors"):
        method = small_method(name, SPEC)
        assert torch.equal(method._normalise(x), x - 0.5)
    image = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.3
    stretched = small_method("ddpm-ood-authors", Spec(1, (16, 16)))._normalise(image)
    assert stretched.min() == 0 and stretched.max() == 1


@torch.no_grad()
def test_a_signals_padding_is_silence() -> None:
    method = build_small(DDPMOOD, Spec(2, (61,)))
    method.unit.fill_(0.1)
    z = method._normalise(torch.rand(1, 2, 61, generator=torch.Generator().manual_seed(0)))
    assert z.shape == (1, 2, 62) and (z[..., -1] == 0).all()


@torch.no_grad()
def test_units_change_no_image() -> None:
    x = torch.stack([s.x for s in samples((16, 16), 2, 1)])
    method = build_small(DDPMOOD, Spec(1, (16, 16))).eval()
    method.denoiser = Denoiser(SmoothNetwork(), scaled_linear_schedule()).eval()
    assert torch.equal(method._normalise(x), x)
    reconstruction = method.detect(x, [1000], Rng(["a", "b"])).reconstruction
    assert reconstruction.min() >= 0 and reconstruction.max() <= 1
