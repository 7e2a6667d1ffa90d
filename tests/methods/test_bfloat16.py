"""Every method trains, calibrates and detects with networks in bfloat16, the default on a GPU."""

from __future__ import annotations

import pytest
import torch

from adbench.benchmark.plugins.conformance import MethodUnderTest
from adbench.benchmark.registry.registry import Registry

METHODS = Registry.read().methods
ALL_AXES = {"ldm-ood", "ddpm-ood"}
"""Asked in one, two and three axes; the others in two, or in what they take instead."""


def cases() -> list[tuple[str, int]]:
    named = []
    for name, entry in METHODS.items():
        ndims = sorted(entry.load().ndims)
        named += [(name, axes) for axes in ndims if name in ALL_AXES or axes == min(2, ndims[-1])]
    return named


@pytest.mark.parametrize(("name", "axes"), cases())
@torch.no_grad()
def test_every_method_detects_in_bfloat16(name: str, axes: int) -> None:
    subject = MethodUnderTest(METHODS[name], axes)
    if name.startswith("cddpm"):  # torch 2.15 on a CPU: of a convolution of 1 x 1 pixels with a
        subject.args["size"] = 64  # stride of 2, half of the gradients are memory never written
    method = subject.fit(subject.build(), dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        detection = subject.predict(method)
    assert detection.score.isfinite().all()
    if detection.map is not None:
        assert detection.map.isfinite().all() and (detection.map >= 0).all()
    if detection.reconstruction is not None:
        assert detection.reconstruction.isfinite().all()
