"""A pretended accelerator: tensors that say they are on a GPU, computed on the CPU.

Devices that CUDA does not mix raise as it does, and every wait of the host for the device is
counted with the line that asked for it. Speed, rounding and memory are the CPU's.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes

from adbench.engine.networks.monai_unet import FusedAttention
from adbench.engine.runtime import compiled_kernels, memory_format
from adbench.engine.runtime.precision import LowPrecisionModule

DEVICE = torch.device("cuda", 0)
ADAM = import_module("torch.optim.adam")
CLIPPING = import_module("torch.nn.utils.clip_grad")
ROOT = f"{Path(__file__).resolve().parents[2]}/"
TRANSFER = "engine/runtime/transfer.py"
"""Copies tensors for others, whose lines a wait in it is counted by."""

aten = torch.ops.aten

WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten._linalg_check_errors,
}
"""Operations whose result, or its size, the host waits for."""

INDEXING = {
    aten.index, aten._unsafe_index, aten.index_put, aten.index_put_, aten._index_put_impl_,
}  # fmt: skip
"""Operations that take an index of the host, which may be a list, and move it to the device.
CUDA's masked_fill and index_fill take none."""

HOST_SCALARS = {aten.where, aten.lerp, aten.masked_fill, aten.masked_fill_, aten.fill_,
    aten.index_fill, aten.index_fill_}  # fmt: skip
"""Operations besides the pointwise ones that take a number of the host, ()."""

PRODUCTS = {aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.mv, aten.dot, aten.convolution,
    aten._scaled_dot_product_flash_attention_for_cpu}  # fmt: skip
"""What takes the time of a network: CUDA has none for integers."""

COUNTED = PRODUCTS | INDEXING | WAITING
"""What a test may ask about: most operations are none of these."""

CROSSING = {aten.copy_, aten._to_copy}
"""Operations that take tensors of two devices."""

FACTORIES = {
    torch.empty, torch.zeros, torch.ones, torch.full, torch.arange, torch.linspace, torch.eye,
    torch.empty_strided, torch.rand, torch.randn, torch.randint, torch.randperm,
    torch.fft.fftfreq, torch.fft.rfftfreq,
}  # fmt: skip
COMPOSITE = {torch.quantile, Tensor.quantile}
"""Operations that C++ puts together of others, on the device of the host's copies."""

FROM_HOST = {torch.tensor, torch.as_tensor, torch.scalar_tensor}

REPLACED = FACTORIES | COMPOSITE | FROM_HOST | {
    Tensor.to, Tensor.cuda, Tensor.cpu, Tensor.pin_memory, Tensor.is_pinned, Tensor.tolist,
    Tensor.numpy, Tensor.__array__, Tensor.new_tensor,
}  # fmt: skip
"""What the mode answers for. torch asks it about every function, also for attributes."""


class AcceleratorTensor(Tensor):
    """A tensor on DEVICE, whose values are those of `host`."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls, host: Tensor) -> AcceleratorTensor:
        wrapper = Tensor._make_wrapper_subclass(  # pyright: ignore
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(),
            dtype=host.dtype, layout=host.layout, device=host.device,
            requires_grad=host.requires_grad,
        )  # fmt: skip
        wrapper.host = host
        return wrapper

    @property
    def device(self) -> torch.device:  # pyright: ignore
        return DEVICE

    @property
    def is_cuda(self) -> bool:  # pyright: ignore
        return True

    def __repr__(self) -> str:  # pyright: ignore
        return f"AcceleratorTensor({self.host!r})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["host"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> AcceleratorTensor:
        return AcceleratorTensor(parts["host"])

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        packet, writes = func.overloadpacket, _writes_first_argument(func)
        for mode in _ACTIVE:
            mode.operations += 1
        tensors = _tensors(args)
        if kwargs:
            tensors += _tensors(kwargs.values())
            _check_generator(kwargs)
            kwargs = {key: _host(value) for key, value in kwargs.items()}
            if "device" in kwargs and _is_device(kwargs["device"]):
                kwargs["device"] = torch.device("cpu")
        _check_devices(func, args, tensors)
        if packet in COUNTED:
            if packet in PRODUCTS:
                _note_product(packet, args)
            if packet in INDEXING and _counts_a_mask(args):
                _wait(f"{packet} by a mask")
            if packet in WAITING:  # a tensor is on the device, or this would not be called
                _wait(str(packet))
        with torch._C.DisableTorchFunction():  # or the mode would be asked about the host's
            output = func(*map(_host, args), **(kwargs or {}))
        if writes:
            return args[0] if func._schema.returns else None
        return _wrap(output)


class PretendedAccelerator(TorchFunctionMode):
    """The mode in which `device="cuda"` makes AcceleratorTensors; it counts waits by line.

    waits: number of waits, by "file:line operation"
    sampling_waits: those of them within the steps of a sampler
    waits_before_calls: those since the end of the call of a network before, at each call
    products: number of products without a gradient, by "file:line" and dtype
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.sampling_waits: Counter[str] = Counter()
        self.waits_before_calls = list[Counter[str]]()
        self.products: Counter[tuple[str, torch.dtype]] = Counter()
        self.operations, self._thread = 0, threading.get_ident()
        self._calls, self._waits_after_call = 0, Counter[str]()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func not in REPLACED:
            return func(*args, **kwargs)
        if func in FACTORIES or func in FROM_HOST:
            return self._create(func, args, kwargs)
        if func in (Tensor.to, Tensor.cuda, Tensor.cpu):
            return self._move(func, args, kwargs)
        if func in COMPOSITE and _on_device(args[0]):
            return _wrap(func(*map(_host, args), **kwargs))
        if func is Tensor.pin_memory:
            copy = args[0].clone()
            copy.pretends_to_be_pinned = True
            return copy
        if func is Tensor.is_pinned:
            return _is_pinned(args[0])
        on_device = bool(args) and _on_device(args[0])
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__) and on_device:
            if func is not Tensor.tolist:
                raise TypeError("can't convert cuda:0 device type tensor to numpy")
            self.wait("tolist")
            return args[0].host.tolist()
        if func is Tensor.new_tensor and on_device:
            self.wait("new_tensor")
        return func(*args, **kwargs)

    def wait(self, what: str) -> None:
        if threading.get_ident() != self._thread:
            return  # what a thread beside the computation waits for, the computation does not
        frame: Any = sys._getframe(1)
        line, sampling = "", False
        while frame is not None:
            file = _own_file(frame.f_code.co_filename)
            if file != TRANSFER:
                line = line or (f"{file}:{frame.f_lineno} {what}" if file else "")
            sampling = sampling or frame.f_code.co_name == "run_chains"
            frame = frame.f_back
        self.waits[line or f"test {what}"] += 1
        if sampling:
            self.sampling_waits[line] += 1

    def call_network(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a call, which is a network's unless it is made by another one."""
        if not self._calls:
            self.waits_before_calls.append(self.waits - self._waits_after_call)
        self._calls += 1
        try:
            return call(*arguments)
        finally:
            self._calls -= 1
            if not self._calls:
                self._waits_after_call = Counter(self.waits)

    def _create(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        device = kwargs.get("device", torch.get_default_device())
        if not _is_device(device):
            return func(*args, **kwargs)
        _check_generator(kwargs)
        if func in FROM_HOST and not any(map(_on_device, args)):
            self.wait(func.__name__)
        created = func(*args, **{**kwargs, "device": "cpu"})
        return created if _on_device(created) else _to_device(created)

    def _move(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        source, target, dtype, non_blocking, layout = args[0], None, None, False, None
        if func is Tensor.to:
            kwargs.pop("copy", None)
            target, dtype, non_blocking, layout = torch._C._nn._parse_to(*args[1:], **kwargs)  # pyright: ignore
            if len(args) > 1 and _on_device(args[1]):
                target = DEVICE
        else:
            target = torch.device("cpu") if func is Tensor.cpu else DEVICE
        options: dict[str, Any] = {"dtype": dtype, "memory_format": layout}
        options = {name: value for name, value in options.items() if value is not None}
        if target is None or _is_device(target) == _on_device(source):
            return source.to(**options) if options else source
        if _on_device(source):
            if not non_blocking:
                self.wait("to the host")
            host = _ToHost.apply(source)
            host = host.to(**options) if options else host
            host.pretends_to_be_pinned = non_blocking
            return host
        loader = "data_loading.py" in sys._getframe(2).f_code.co_filename  # which pins batches
        if not (non_blocking and (_is_pinned(source) or loader)):
            self.wait("to the device")
        return _to_device(source.to(**options) if options else source)


class _Event:
    """Stands for torch.cuda.Event. Reading it is a wait unless much was queued since."""

    def __init__(self, mode: PretendedAccelerator) -> None:
        self.mode, self.operations = mode, 0

    def record(self, stream: object = None) -> None:
        self.operations = self.mode.operations

    def synchronize(self) -> None:
        if self.mode.operations - self.operations < QUEUED:
            self.mode.wait("event")


QUEUED = 20
"""Operations queued after an event that keep the device busy while the host waits for it."""


class _ToHost(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: AcceleratorTensor) -> Tensor:
        return x.host.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return AcceleratorTensor(gradients[0])


class _ToDevice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return AcceleratorTensor(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0]
        return gradient.host if isinstance(gradient, AcceleratorTensor) else gradient


@contextmanager
def pretended_accelerator() -> Iterator[PretendedAccelerator]:
    """A context in which torch seems to have one GPU, and counts how often the host waits."""
    mode = PretendedAccelerator()
    deterministic = torch.are_deterministic_algorithms_enabled()
    flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    autocast = torch.autocast

    def host_autocast(device_type: str, *args: Any, **options: Any) -> Any:
        return autocast("cpu" if device_type == "cuda" else device_type, *args, **options)

    call_net, call_autocast = LowPrecisionModule.call_net, LowPrecisionModule.autocast

    patches = [
        mock.patch.object(torch, "autocast", host_autocast),
        mock.patch.object(
            LowPrecisionModule, "call_net", lambda *args: mode.call_network(call_net, *args)
        ),
        mock.patch.object(
            LowPrecisionModule, "autocast", lambda *args: mode.call_network(call_autocast, *args)
        ),
        mock.patch.object(compiled_kernels, "_compile", lambda function, _: _kernel(function)),
        # without deterministic algorithms, some of which torch writes in Python for a real GPU
        mock.patch.object(torch, "use_deterministic_algorithms", lambda *_, **options: None),
        mock.patch.object(FusedAttention, "fused_devices", frozenset()),  # other roundings
        mock.patch.object(memory_format, "CHANNELS_LAST_3D_DEVICES", frozenset()),  # other kernels
        mock.patch.object(ADAM, "_fused_adam", _fused_adam),
        mock.patch.object(CLIPPING, "_group_tensors_by_device_and_dtype", _one_group),
        mock.patch.object(torch.cuda, "Event", lambda: _Event(mode)),
        mock.patch.object(torch.cuda, "current_stream", lambda *_: None),
        mock.patch.object(torch.cuda, "synchronize", lambda *_: mode.wait("synchronize")),
        mock.patch.object(torch.cuda, "empty_cache", lambda: None),
        mock.patch.object(torch.cuda, "max_memory_allocated", lambda *_: 0),
        mock.patch.object(torch.cuda, "max_memory_reserved", lambda *_: 0),
        mock.patch.object(torch.cuda, "reset_peak_memory_stats", lambda *_: None),
        mock.patch.object(torch.cuda, "get_device_name", lambda *_: "Pretended accelerator"),
        mock.patch.dict("os.environ"),
    ]
    try:
        for patch in patches:
            patch.start()
        with mode:
            _ACTIVE.append(mode)
            yield mode
    finally:
        _ACTIVE.clear()
        for patch in reversed(patches):
            patch.stop()
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = flags


_ACTIVE: list[PretendedAccelerator] = []


def _kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """One kernel that computes a function of tensors, all of which are on the device."""

    def call(*arguments: Tensor) -> Any:
        if not all(map(_on_device, arguments)):
            raise RuntimeError(f"{function} has arguments on the host")
        return _wrap(function(*map(_host, arguments)))

    return call


def _fused_adam(
    params: list[Any], grads: list[Any], *states: list[Any],
    found_inf: Any = None, grad_scale: Any = None, **options: Any,
) -> None:  # fmt: skip
    """Fused Adam as one tensor at a time on the host, which a CPU does by default."""
    if found_inf is not None and found_inf.host.item():
        return
    lists = [[_host(value) for value in values] for values in (params, grads, *states)]
    with _disable_current_modes():
        ADAM._single_tensor_adam(*lists, grad_scale=None, found_inf=None, **options)


def _one_group(lists: list[list[Tensor]], with_indices: bool = False) -> dict[Any, Any]:
    """Tensors grouped by device: C++ would read the device of the host's copies."""
    first = next(value for value in lists[0] if value is not None)
    return {(first.device, first.dtype): (lists, list(range(len(lists[0]))))}


def _wait(what: str) -> None:
    for mode in _ACTIVE:
        mode.wait(what)


def _check_devices(func: Any, args: Sequence[Any], tensors: list[Tensor]) -> None:
    strangers = [tensor for tensor in tensors if not _on_device(tensor)]
    if not strangers:
        return
    packet = func.overloadpacket
    scalars = torch.Tag.pointwise in func.tags or packet in HOST_SCALARS
    scalars = scalars or str(packet).startswith("aten._foreach")
    strangers = [t for t in strangers if t.dim() or not scalars]
    if not strangers:
        return
    if packet is aten.cat and torch._C._current_graph_task_id() >= 0:
        return  # zeros for a gradient that nothing asks for, which C++ makes beside the copies
    if packet in CROSSING:
        non_blocking = packet is aten.copy_ and len(args) > 2 and args[2]
        if not (non_blocking and all(map(_is_pinned, strangers))):
            _wait(str(packet))
        return
    if packet in INDEXING and _on_device(args[0]):
        values = args[2] if len(args) > 2 and "put" in str(packet) else None
        if not any(values is stranger and stranger.dim() for stranger in strangers):
            _wait(f"{packet} by an index of the host")
            return
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but found at least two devices, {DEVICE} "
        f"and cpu! (in {packet})"
    )


def _counts_a_mask(args: Sequence[Any]) -> bool:
    """Whether the host must know how many values a mask selects: not to fill them with one number,
    which is an operation of its own."""
    filled = len(args) > 2 and not _on_device(args[2]) and args[2].numel() == 1
    return not filled and any(index.dtype == torch.bool for index in _tensors([args[1]]))


def _check_generator(options: Mapping[str, Any]) -> None:
    generator = options.get("generator")
    if generator is not None and generator.device.type != DEVICE.type:
        raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")


def _note_product(packet: Any, args: Sequence[Any]) -> None:
    dtypes = {tensor.dtype for tensor in _tensors(args) if tensor.dim()}
    for dtype in dtypes:
        if not (dtype.is_floating_point or dtype.is_complex):
            raise RuntimeError(f"{packet} is not implemented for {dtype} on {DEVICE}")
    if torch.is_grad_enabled() or torch._C._current_graph_task_id() >= 0:
        return
    frame: Any = sys._getframe(2)
    while frame is not None and not _own_file(frame.f_code.co_filename):
        frame = frame.f_back
    line = f"{_own_file(frame.f_code.co_filename)}:{frame.f_lineno}" if frame else "test"
    for mode in _ACTIVE:
        mode.products.update((line, dtype) for dtype in dtypes)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among arguments, and in lists of them: operations take no deeper trees."""
    tensors = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (list, tuple)):
            tensors += [each for each in value if isinstance(each, Tensor)]
    return tensors


@cache
def _writes_first_argument(func: Any) -> bool:
    written = func._schema.arguments[:1]
    return bool(written) and written[0].alias_info is not None and written[0].alias_info.is_write


@cache
def _own_file(path: str) -> str:
    """The path in the project; empty for tests and libraries."""
    name = path.removeprefix(ROOT)
    return "" if name == path or name.startswith(("tests/", ".venv/")) else name


def _wrap(output: Any) -> Any:
    if type(output) is Tensor:
        return AcceleratorTensor(output)
    if isinstance(output, (list, tuple)):
        return type(output)(_wrap(each) for each in output)
    return output


def _on_device(value: Any) -> bool:
    return type(value) is AcceleratorTensor


def _is_pinned(value: Tensor) -> bool:
    return getattr(value, "pretends_to_be_pinned", False)


def _is_device(device: Any) -> bool:
    return device is not None and torch.device(device).type == DEVICE.type


def _host(value: Any) -> Any:
    if type(value) is AcceleratorTensor:
        return value.host
    if isinstance(value, (list, tuple)):
        return type(value)(_host(each) for each in value)
    return value


def _to_device(value: Tensor) -> Tensor:
    if value.requires_grad and not value.is_leaf:
        return _ToDevice.apply(value)
    return AcceleratorTensor(value.detach().clone()).requires_grad_(value.requires_grad)


WithMode = Callable[[], PretendedAccelerator]
