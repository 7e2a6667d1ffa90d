"""The methods for signals alone: WaveNet-OOD, AE-1D and the three features."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from adbench.benchmark.registry.settings import build
from adbench.datasets.base import Sample, Spec
from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import scaled_linear_schedule
from adbench.engine.runtime.context import TrainingContext
from adbench.engine.runtime.rng import Rng
from adbench.engine.transforms.amplitude import moving_average, power, rms_unit
from adbench.methods.ae1d import AE1D
from adbench.methods.signal_baselines import RMS, Kurtosis, SpectralFlatness
from adbench.methods.wavenet_ood import WaveNetOOD
from known import ConstantX0, NormalPosteriorMean
from small import build_small, samples

SPEC = Spec(2, (64,))
KEYS = [f"k{i}" for i in range(40)]


def rows(x: Tensor, name: str) -> list[Sample]:
    return [Sample(one, f"{name}{i}", f"{name}{i}", False) for i, one in enumerate(x)]


def white(keys: list[str], length: int = 64, size: float = 0.1) -> Tensor:
    return 0.5 + size * Rng(keys).normal((2, length))


def wavenet(net: torch.nn.Module | None = None, **more: Any) -> Any:
    built = build_small(
        WaveNetOOD, SPEC, **{"sampling_steps": 20, "skip": 4, "width": 8} | more
    ).eval()
    if net is not None:
        built.denoiser = Denoiser(net, scaled_linear_schedule(), prediction_type="clean").eval()
    return built


def test_the_defaults_reach_as_far_as_a_window() -> None:
    built = build(WaveNetOOD, Spec(2, (3000,)))
    assert built.denoiser.net.receptive_field == 6139 and built.ndims == {1}
    assert len(built.starts.levels) == 25 and built.starts.levels[0] == 11
    fork = build(WaveNetOOD, Spec(2, (3000,)), blind=True, layers=8, cycle=3, width=256)
    assert fork.denoiser.net.receptive_field == 35
    assert sum(p.numel() for p in fork.denoiser.parameters()) == 4_269_570


def test_a_network_that_is_blind_does_not_hear_the_level() -> None:
    x = white(["a"], 32)
    for blind in (True, False):
        net = wavenet(blind=blind).denoiser.net
        with torch.no_grad():
            net.exit.weight += 0.1
            a, b = (net(x, torch.tensor([t])) for t in (3, 700))
        assert torch.equal(a, b) == blind


def test_amplitudes_are_in_units_of_the_training_samples() -> None:
    loud = rows(white(KEYS, size=0.2), "l")
    assert rms_unit(loud).item() == pytest.approx(0.2, rel=0.03)
    built = wavenet(steps=1)
    built.fit(loud, rows(white(["h", "i", "j"]), "h"), TrainingContext())
    assert built.unit.item() == pytest.approx(0.2, rel=0.03)
    assert wavenet(amplitude="none")._amplitude_unit(white(["a"])).item() == 1
    each = wavenet(amplitude="sample")._amplitude_unit(white(["a", "b"]))
    assert each.flatten().tolist() == pytest.approx(power(white(["a", "b"])).sqrt().tolist())


@torch.no_grad()
def test_what_comes_from_elsewhere_is_farther_than_what_was_held_out() -> None:
    """White noise with its own optimal denoiser; elsewhere is shifted by three deviations."""
    built = wavenet(
        NormalPosteriorMean(scaled_linear_schedule(), 0.0, 0.25), amplitude="none", calibration=20
    )
    x = white(KEYS, size=0.5)
    held_out = [Sample(one, key, key, False) for one, key in zip(x[:20], KEYS[:20], strict=True)]
    built.starts.calibrate(built._measure_starts, held_out, TrainingContext())
    rng = Rng(KEYS[20:])
    same, other = (built.detect(y, [1000], rng).score[0] for y in (x[20:], x[20:] + 1.5))
    assert other.min() > same.max() and abs(same.mean().item()) < 0.7


@torch.no_grad()
def test_an_oracle_leaves_nothing_and_a_map_says_where() -> None:
    x = white(["a", "b"])
    built = wavenet(ConstantX0(x[:1] - 0.5), smooth=1, amplitude="none")
    results = built.detect(x, [1000], Rng(["a", "b"]))
    assert results.map is not None and results.map[0, 0].max() < 1e-10
    torch.testing.assert_close(results.map[0, 1], (x[1] - x[0]).square().mean(0))
    torch.testing.assert_close(results.reconstruction[0, 1], x[0])


@torch.no_grad()
def test_spectra_are_a_second_measure() -> None:
    built = wavenet(
        NormalPosteriorMean(scaled_linear_schedule(), 0.0, 0.25), amplitude="none", spectral=True
    )
    x = white(KEYS[:12], size=0.5)
    built.starts.calibrate(built._measure_starts, rows(x[:8], "h"), TrainingContext())
    assert built.starts.mean.shape == (5, 2) and (built.starts.mean > 0).all()
    a, b = built.detect(x[8:], [1000], Rng(KEYS[8:12])), built.detect(x[9:10], [1000], Rng(["k9"]))
    assert torch.equal(a.score[0, 1:2], b.score[0])


@given(st.integers(1, 40), st.integers(0, 30))
def test_smoothing_is_a_moving_mean(length: int, at: int) -> None:
    x = torch.arange(31.0)[None] ** 2
    wide = [x[0, min(max(at + i, 0), 30)] for i in range(-(length // 2), length - length // 2)]
    assert moving_average(x, length)[0, at].item() == pytest.approx(
        sum(wide, torch.zeros(())).item() / length, rel=1e-4
    )


def test_the_autoencoder_is_monais() -> None:
    from monai.networks.nets.autoencoder import AutoEncoder

    built = build_small(AE1D, Spec(2, (3000,)), widths=(16, 32, 64))
    theirs = AutoEncoder(1, 2, 2, (16, 32, 64), (2, 2, 2))
    ours = built.coder.net.state_dict()
    assert sum(v.numel() for v in ours.values()) == 15_719
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.values(), strict=True)))
    x = torch.rand(2, 2, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(built.coder.net(x), theirs(x))
        assert built.coder(torch.rand(1, 2, 3000)).shape == (1, 2, 3000)


def test_the_autoencoder_learns_tones_and_its_error_is_in_held_out_deviations() -> None:
    data = samples((64,), 12, 2)
    built = build_small(AE1D, SPEC, widths=(8, 16), steps=600, batch=8, lr=1e-2)
    built.fit(data[:8], data[8:], TrainingContext())
    x = torch.stack([s.x for s in data[8:]])
    with torch.no_grad():
        results = built.detect(x, [0], Rng(KEYS[:4]))
        burst = built.detect(white(KEYS[:4], size=0.2), [0], Rng(KEYS[:4])).score[0]
    assert results.score[0].mean().abs() < 1e-3
    assert results.score[0].std().item() == pytest.approx(1, abs=1e-3)
    assert burst.min() > results.score[0].max()
    with pytest.raises(ValueError, match="too short"):
        build_small(AE1D, Spec(2, (8,)), widths=(4, 4, 4))
    with pytest.raises(ValueError, match="are too few"):
        built.fit(data[:8], data[:1], TrainingContext())


def qpsk(keys: list[str], length: int = 256, every: int = 8) -> Tensor:
    """Symbols of `every` samples, of root mean square 1."""
    bits = Rng(keys).fork("bits").integers(2, (2, length // every)).float()
    return (2 * bits - 1).repeat_interleave(every, 2)


def bursts(keys: list[str], length: int = 256) -> Tensor:
    """White noise for a quarter of the time, silence in between, of root mean square 1."""
    rng = Rng(keys)
    on = rng.fork("on").uniform((1, length // 16)) < 0.25
    on[..., 0] = True
    built = rng.fork("noise").normal((2, length)) * on.repeat_interleave(16, 2)
    return built / built.square().mean((1, 2), keepdim=True).sqrt()


def test_bursts_of_the_power_of_a_modulated_signal_are_separated_from_it() -> None:
    """What RMS cannot tell apart, a short training can."""
    normal = 0.5 + 0.125 * qpsk([str(i) for i in range(136)])
    other = 0.5 + 0.125 * bursts([str(i) for i in range(40)])
    torch.testing.assert_close(power(other), power(normal[:40]))
    built = build_small(AE1D, Spec(2, (256,)), widths=(8, 16), steps=300, batch=16, lr=3e-3)
    built.fit(rows(normal[:64], "t"), rows(normal[64:96], "h"), TrainingContext())
    with torch.no_grad():
        a, b = (built.detect(x, [0], Rng(KEYS)).score[0] for x in (normal[96:], other))
    assert (b[:, None] > a).float().mean().item() > 0.9


def test_an_autoencoders_amplitudes_and_its_windows_silent_sides() -> None:
    x = white(["a", "b"], 101)
    louder = 0.5 + 2 * (x - 0.5)
    built = {mode: build_small(AE1D, Spec(2, (101,)), widths=(4, 8), amplitude=mode).eval()
            for mode in ("sample", "none", "train")}  # fmt: skip
    with torch.no_grad():
        for mode, net in built.items():
            net.unit.fill_(0.125)
            inside = net._normalise(x, net._amplitude_unit(x))
            assert inside.shape == (2, 2, 104)
            assert (inside[..., :1] == 0).all() and (inside[..., -2:] == 0).all()
            a, b = (net.detect(y, [0], Rng(["a", "b"])).score for y in (x, louder))
            assert torch.allclose(a, b, rtol=1e-4) == (mode == "sample")
    assert built["sample"]._normalise(x, built["sample"]._amplitude_unit(x)).square().mean() < 1
    data = rows(white(KEYS, size=0.2), "t")
    for mode, unit_ in (("none", 1.0), ("sample", 1.0), ("train", 0.2)):
        fresh = build_small(AE1D, SPEC, widths=(4, 8), amplitude=mode, steps=1)
        fresh.fit(data, data[:3], TrainingContext())
        assert fresh.unit.item() == pytest.approx(unit_, rel=0.03)


def test_features_of_signals_that_are_known() -> None:
    time = torch.arange(4096.0)
    angle = 2 * math.pi * 33 * time / 4096
    tone = 0.5 + 0.2 * torch.stack([angle.cos(), angle.sin()])[None]
    noise = white(["n"], 4096)
    spec = Spec(2, (4096,))
    rms, kurtosis, flatness = (f(spec).feature for f in (RMS, Kurtosis, SpectralFlatness))
    assert rms(tone).item() == pytest.approx(10 * math.log10(0.02), abs=1e-4)
    assert kurtosis(tone).item() == pytest.approx(1, abs=1e-4)
    assert kurtosis(noise).item() == pytest.approx(2, abs=0.15)
    assert flatness(noise).item() == pytest.approx(-2.507, abs=0.25)  # -10 gamma / ln 10
    assert flatness(tone).item() < -40


@settings(max_examples=20)
@given(st.floats(0, 6.28))
def test_no_phase_changes_a_feature(phase: float) -> None:
    x = white(["p"]).double()
    turned = torch.complex(x[:, 0] - 0.5, x[:, 1] - 0.5) * complex(math.cos(phase), math.sin(phase))
    y = 0.5 + torch.stack([turned.real, turned.imag], 1)
    for kind in (RMS, Kurtosis, SpectralFlatness):
        feature = kind(SPEC).feature
        torch.testing.assert_close(feature(x), feature(y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", [RMS, Kurtosis, SpectralFlatness])
def test_a_feature_is_a_score_in_deviations_and_no_map(kind: type[RMS]) -> None:
    built = kind(SPEC)
    train = rows(white(KEYS), "t")
    built.fit(train, [], TrainingContext())
    x = torch.stack([s.x for s in train])
    results = built.detect(x, [0], Rng(KEYS))
    assert results.map is None and results.score.shape == (1, 40)
    assert results.score.square().mean().item() == pytest.approx(39 / 40, rel=1e-3)
    part = built.detect(x[[7, 3]], [0], Rng(["k7", "k3"]))
    assert torch.equal(part.score[0], results.score[0, [7, 3]])
    with pytest.raises(ValueError, match="8 are the fewest"):
        kind(Spec(2, (4,)))
    with pytest.raises(NotImplementedError, match="cannot tell where"):
        built.localize(x, Rng(KEYS))
