"""Every method trains, calibrates and detects with networks in bfloat16, the default on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adbench.benchmark.plugins.method_under_test import MethodUnderTest
from adbench.benchmark.registry.registry import Registry
from adbench.engine.runtime.precision import LowPrecisionModule
from small import shorten_trainings

METHODS = Registry.read().methods
ALL_AXES = {"ldm-ood", "ddpm-ood"}
"""Asked in one, two and three axes; the others in two, or in what they take instead."""


def cases() -> list[tuple[str, int]]:
    named = []
    for name, entry in METHODS.items():
        ndims = sorted(entry.load().ndims)
        named += [(name, axes) for axes in ndims if name in ALL_AXES or axes == min(2, ndims[-1])]
    return named


class PrecisionOutsideOfNetworks(TorchDispatchMode):
    """Collects the operations that return bfloat16 while neither a network nor a gradient is being
    computed, and the precisions of the convolutions and products of networks."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.operations = 0, set[str]()
        self.network_dtypes = set[torch.dtype]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):
            if self.depth and func.overloadpacket in CONVOLUTIONS:
                self.network_dtypes.add(output.dtype)
            elif not self.depth and output.dtype == torch.bfloat16:
                self.operations.add(str(func))
        return output


CONVOLUTIONS = {torch.ops.aten.convolution, torch.ops.aten.addmm, torch.ops.aten.mm}


@contextmanager
def operations_by_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[PrecisionOutsideOfNetworks]:
    mode = PrecisionOutsideOfNetworks()

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **options: Any) -> Any:
            mode.depth += 1
            try:
                return function(*args, **options)
            finally:
                mode.depth -= 1

        return wrapper

    with monkeypatch.context() as patch, mode:
        for name in ("call_net", "autocast", "net_in_use"):
            patch.setattr(LowPrecisionModule, name, within(getattr(LowPrecisionModule, name)))
        patch.setattr(Tensor, "backward", within(Tensor.backward))
        patch.setattr(torch.autograd, "grad", within(torch.autograd.grad))
        yield mode


@pytest.mark.parametrize(("name", "axes"), cases())
@torch.no_grad()
def test_networks_alone_compute_in_bfloat16(
    name: str, axes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = shorten_trainings(MethodUnderTest(METHODS[name], axes), 2)
    method = subject.build()
    with operations_by_place(monkeypatch) as fitting:
        subject.fit(method, dtype=torch.bfloat16)
    with operations_by_place(monkeypatch) as detecting:
        detection = subject.predict(method)
    assert not fitting.operations and not detecting.operations
    assert detecting.network_dtypes <= {torch.bfloat16}
    networks = [part for part in method.modules() if isinstance(part, LowPrecisionModule)]
    assert bool(detecting.network_dtypes) == any(hasattr(part, "net") for part in networks)
    for output in (detection.score, detection.map, detection.reconstruction):
        assert output is None or (output.dtype == torch.float32 and output.isfinite().all())
    assert detection.map is None or (detection.map >= 0).all()
    for key, value in method.state_dict().items():
        assert value.dtype not in (torch.bfloat16, torch.float16), key


@pytest.mark.parametrize("name", [n for n, entry in METHODS.items() if entry.baseline])
@torch.no_grad()
def test_a_baseline_is_the_same_at_every_precision(name: str) -> None:
    subject = MethodUnderTest(METHODS[name], max(METHODS[name].load().ndims & {1, 2}))
    low, full = (
        subject.predict(subject.fit(subject.build(), dtype=dtype))
        for dtype in (torch.bfloat16, torch.float32)
    )
    assert torch.equal(low.score, full.score)
    assert low.map is None or (full.map is not None and torch.equal(low.map, full.map))
