"""Every method that has a diffusion UNet folds blocks of its samples into channels if asked to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adbench.benchmark.plugins import prediction_checks
from adbench.benchmark.plugins.method_under_test import MethodUnderTest
from adbench.benchmark.registry.registry import Registry
from adbench.engine.networks.monai_unet import DiffusionUNet
from small import shorten_trainings

METHODS = Registry.read().methods


def cases() -> Iterator[tuple[str, int]]:
    """Every method with a diffusion UNet, once: a preset has the network of its base."""
    for name, entry in METHODS.items():
        if "fold" in entry.parameters() and not name.endswith("-authors"):
            yield from ((name, axes) for axes in sorted(entry.load().ndims))


@pytest.mark.parametrize(("name", "axes"), list(cases()))
def test_a_method_folds(name: str, axes: int) -> None:
    plain, folded = (MethodUnderTest(METHODS[name], axes, {"fold": fold}) for fold in (1, 2))
    networks = [
        [part for part in method.modules() if isinstance(part, DiffusionUNet)]
        for method in (plain.build(), shorten_trainings(folded, 1).fitted)
    ]
    for pixels, blocks in zip(*networks, strict=True):
        first, second = (net.get_submodule("conv_in.conv") for net in (pixels, blocks))
        assert (pixels.fold, blocks.fold) == (1, 2)
        assert second.in_channels == 2**axes * first.in_channels
    assert networks[0], "fold is a setting of the diffusion UNet"
    prediction_checks.a_result_for_every_level_and_sample(folded)


def test_no_diffusion_unet_is_left_out() -> None:
    for name, entry in METHODS.items():
        subject = MethodUnderTest(entry, min(entry.load().ndims, key=lambda n: abs(n - 2)))
        parts = subject.build().modules()
        assert any(isinstance(part, DiffusionUNet) for part in parts) == (
            "fold" in entry.parameters()
        ), name
