"""Networks compiled by torch.compile, as fits the size of their input."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .setting_types import CompileMode

BACKEND = "inductor"

GRAPH_POSITIONS = 128 * 128
"""Positions of a sample (pixels) below which the launch of a kernel costs more than its work."""

GRAPH_ROWS = 4
"""Rows of a call up to which it does, whatever the size of a sample."""

RECOMPILE_LIMIT = 64
"""Variants of a function that are compiled before torch falls back to eager calls: all networks of
a process share the code of one class, and each has variants for training and inference."""


def compiles(choice: CompileMode, kind: str) -> bool:
    """Return whether networks on a kind of device are compiled.

    >>> from adbench.engine.runtime.compilation import compiles
    >>> compiles("auto", "cuda"), compiles("auto", "cpu"), compiles("on", "cpu")
    (True, False, True)
    """
    return choice == "on" or (choice != "off" and kind == "cuda")


def torch_mode(choice: CompileMode, x: Tensor, kind: str) -> str:
    """Return torch.compile's mode for a network's input.

    x: (N, C, *S) or (N, features)
    kind: of its device

    >>> import torch
    >>> from adbench.engine.runtime.compilation import torch_mode
    >>> [torch_mode("auto", torch.empty(n, 1, s, s), "cuda") for n, s in ((8, 64), (8, 256))]
    ['reduce-overhead', 'default']
    """
    if kind != "cuda" or choice == "on":
        return "default"
    small = len(x) <= GRAPH_ROWS or math.prod(x.shape[2:]) < GRAPH_POSITIONS
    return "reduce-overhead" if small or choice == "reduce-overhead" else "default"


def compile_network(net: nn.Module, choice: CompileMode) -> None:
    """Let torch.compile make the calls of a network faster, in place; no name in its state dict
    changes. Of a codec, its encoder and its decoder are compiled, each by itself.

    choice: anything but off

    >>> import torch
    >>> from adbench.engine.runtime.compilation import compile_network
    >>> from torch import nn
    >>> net = nn.Linear(2, 1)
    >>> compile_network(net, "auto")
    >>> net(torch.ones(3, 2)).shape, list(net.state_dict())  # on a CPU, as before
    (torch.Size([3, 1]), ['weight', 'bias'])
    """
    parts = [part for name, part in net.named_children() if name in ("encoder", "decoder")]
    for part in parts if len(parts) == 2 else [net]:
        if part._compiled_call_impl is None:
            part._compiled_call_impl = _CompiledCall(part._call_impl, choice, type(part).__name__)


def is_compiled(net: nn.Module) -> bool:
    """Return whether a network, or a part of it, is compiled.

    >>> from adbench.engine.runtime.compilation import is_compiled
    >>> from torch import nn
    >>> is_compiled(nn.Linear(1, 1))
    False
    """
    return any(part._compiled_call_impl is not None for part in net.modules())


def rows_at_a_time(count: int, micro: int) -> int:
    """Return at most `micro` rows at a time so that a compiled network sees one batch shape: a
    divisor of `count`, or `micro` itself where that would make more than twice as many passes.

    >>> from adbench.engine.runtime.compilation import rows_at_a_time
    >>> rows_at_a_time(32, 20), rows_at_a_time(32, 16), rows_at_a_time(31, 20)
    (16, 16, 20)
    """
    passes = math.ceil(count / micro)
    divisors = [n for n in range(passes, 2 * passes + 1) if count % n == 0]
    return count // divisors[0] if divisors else micro


class _CompiledCall:
    """A network's call, compiled once for every mode that its inputs ask for; eager, with a
    warning, where there is no compiler."""

    def __init__(self, call: Callable[..., Any], choice: CompileMode, name: str) -> None:
        self._call, self._name = call, name
        self._choice: CompileMode = choice
        self._by_mode: dict[str, Callable[..., Any]] = {}
        self._failed = False

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        x = next(value for value in (*inputs, *options.values()) if isinstance(value, Tensor))
        if self._failed or not compiles(self._choice, x.device.type):
            return self._call(*inputs, **options)
        from torch._dynamo.exc import TorchDynamoException  # here: importing dynamo takes seconds

        mode = torch_mode(self._choice, x, x.device.type)
        try:
            output = self._compiled(mode)(*inputs, **options)
        except TorchDynamoException as error:
            self._failed = True
            reason = " ".join(str(error).split("\n")[:2])  # which backend, and its own error
            warnings.warn(
                f"{self._name} could not be compiled and takes longer: {reason}", stacklevel=2
            )
            return self._call(*inputs, **options)
        return _copy(output) if mode == "reduce-overhead" else output

    def _compiled(self, mode: str) -> Callable[..., Any]:
        if mode not in self._by_mode:
            _raise_recompile_limit()
            self._by_mode[mode] = torch.compile(
                self._call, dynamic=False, backend=BACKEND,
                mode=mode if BACKEND == "inductor" else None,
            )  # fmt: skip
        return self._by_mode[mode]


def _copy(output: Any) -> Any:
    """A copy of tensors that the next call of a CUDA graph would overwrite."""
    if isinstance(output, Tensor):
        return output.clone()
    if isinstance(output, (tuple, list)):
        return type(output)(_copy(each) for each in output)
    return output


def _raise_recompile_limit() -> None:
    from torch._dynamo import config

    for name in ("recompile_limit", "cache_size_limit"):  # the second until torch 2.6
        if hasattr(config, name):
            setattr(config, name, max(getattr(config, name), RECOMPILE_LIMIT))
