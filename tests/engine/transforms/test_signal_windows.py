"""What signals ask for: a network for windows, the root mean square, spectra in short stretches."""

from __future__ import annotations

import math

import torch

from adbench.engine.transforms import spectral_distance as spectra
from adbench.engine.transforms.amplitude import rms
from adbench.engine.transforms.signal_windows import SIGNAL_UNET, unet_arguments


def test_a_network_is_of_signals_or_of_images_but_for_what_is_given() -> None:
    images = {"widths": (8, 16), "res_blocks": 1}
    assert unet_arguments((16, 16), images, widths=None, res_blocks=3) == {
        "widths": (8, 16),
        "res_blocks": 3,
    }
    assert unet_arguments((3000,), images, widths=(4, 4)) == SIGNAL_UNET | {"widths": (4, 4)}


def test_rms_is_a_root_mean_square_about_silence() -> None:
    x = 0.5 + 0.2 * torch.ones(1, 2, 8)
    torch.testing.assert_close(rms(x), torch.full((1, 1, 1), 0.2))


def test_log_spectra_show_amplitude_and_where() -> None:
    """20 dB louder is log 10 away where the floor is far; a turned phase is nothing."""
    noise = torch.randn(1, 2, 2048, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        spectra.spectral_distance(1e3 * noise, 1e4 * noise), torch.full((1, 2048), math.log(10)),
        rtol=1e-3, atol=0,
    )  # fmt: skip
    turned = torch.stack([-noise[:, 1], noise[:, 0]], 1)  # times i
    assert spectra.spectral_distance(noise, turned).max() < 1e-4
    late = noise.clone()
    late[..., 1500:] *= 3
    far = spectra.spectral_distance(noise, late, (64,))[0]
    assert far[:1400].max() < 1e-6 and far[1600:1900].min() > 0.9
    assert spectra.spectral_distance(noise[:, :1], noise[:, :1]).max() == 0


def test_spectra_of_a_signal_are_its_own() -> None:
    x, y = (torch.randn(3, 2, 300, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    assert torch.equal(
        spectra.spectral_distance(x, y)[1:2], spectra.spectral_distance(x[1:2], y[1:2])
    )
