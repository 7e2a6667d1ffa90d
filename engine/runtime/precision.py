"""The precision that networks compute in; all else of adbench computes in float32.

This is the one place where another precision begins and ends. In training, autocast chooses the
operations and keeps the weights in float32; at inference a copy of the network has all its weights
in the lower precision, norms included, which moves a third of the memory that autocast moves
(autocast casts the input of every norm and activation to float32 and back).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .compilation import compile_network, is_compiled
from .setting_types import CompileMode

Output = TypeVar("Output")

IEEE, TF32 = "ieee", "tf32"

CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


class LowPrecisionModule(nn.Module):
    """A module that calls its network, `net`, in `dtype` and gives and takes float32.

    dtype: set by `DeviceContext.place`
    compile_mode: set by `DeviceContext.place` where `net` is compiled

    >>> import torch
    >>> from adbench.engine.runtime.precision import LowPrecisionModule
    >>> from torch import nn
    >>> module = LowPrecisionModule()
    >>> module.net, module.dtype = nn.Linear(4, 2), torch.bfloat16
    >>> module.eval().call_net(lambda net, x: net(x), torch.ones(3, 4)).dtype
    torch.float32
    >>> module.net.weight.dtype
    torch.float32
    """

    dtype: torch.dtype = torch.float32
    compile_mode: CompileMode = "off"
    _copy: tuple[object, nn.Module] | None = None

    def call_net(self, call: Callable[..., Output], *inputs: Tensor) -> Output:
        """Return `call(net, *inputs)` in float32, computed in `dtype`.

        call: uses the module that it is given, which in evaluation mode may be a copy of `net`
        inputs: tensors; floating-point ones are brought to `dtype`
        """
        net = self.net_in_use()
        if net is self.net:
            return self.autocast(call, net, *inputs)
        return _to_float32(call(net, *[_to_dtype(value, self.dtype) for value in inputs]))

    def autocast(self, call: Callable[..., Output], *inputs: Any) -> Output:
        """Return `call(*inputs)` in float32, with operations that autocast computes in `dtype`.

        For networks in training, whose weights stay in float32, and for networks that are called
        with weights of the caller's. Convolutions train in float32 on a CPU: see
        `has_wrong_gradients`.
        """
        if self.dtype == torch.float32:
            return call(*inputs)
        device = next(value.device.type for value in inputs if isinstance(value, Tensor))
        if device == "cpu" and has_wrong_gradients(self):
            return call(*inputs)
        with torch.autocast(device, self.dtype):
            return _to_float32(call(*inputs))

    def net_in_use(self) -> nn.Module:
        """The network that `call_net` calls: `net`, or in evaluation mode its copy in `dtype`.

        The copy follows the weights: it is made anew when one of them has changed.
        """
        net = self.get_submodule("net")
        if self.training or self.dtype == torch.float32:
            self._copy = None
            return net
        values = list(chain(net.parameters(), net.buffers()))
        version = (self.dtype, tuple((value.data_ptr(), value._version) for value in values))
        if self._copy is None or self._copy[0] != version:
            copy = deepcopy(net).requires_grad_(False).eval().to(self.dtype)
            if is_compiled(net):
                compile_network(copy, self.compile_mode)
            self._copy = (version, copy)
        return self._copy[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copy": None}  # copies of a module make copies of their own


def has_wrong_gradients(module: nn.Module) -> bool:
    """Whether gradients of a module on a CPU are wrong below float32, and somebody wants them.

    Those of convolutions are: torch 2.15 (oneDNN, a CPU with AVX-512 BF16) gives memory that nobody
    wrote, up to 1e36 times the right numbers, where a kernel of 3 or more meets one sample point
    with a stride of 2, in one to three axes, and in volumes of up to four voxels a side: the
    deepest layers of a UNet. Forward passes are right.

    >>> has_wrong_gradients(nn.Conv2d(1, 1, 3)), has_wrong_gradients(nn.Linear(1, 1))
    (True, False)
    >>> with torch.no_grad():
    ...     has_wrong_gradients(nn.Conv2d(1, 1, 3))
    False
    """
    return torch.is_grad_enabled() and any(
        isinstance(part, CONVOLUTIONS) for part in module.modules()
    )


def _to_dtype(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _to_float32(value: Any) -> Any:
    """A tensor, or each in a tuple or list, in float32 where it had fewer bits."""
    if isinstance(value, Tensor):
        return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value
    if isinstance(value, (tuple, list)):
        return type(value)(_to_float32(each) for each in value)
    return value
