"""Every method on a pretended accelerator: no mixed devices, the CPU's numbers, and no waits.

The CPU's numbers in two axes, or one where a method takes no images; devices and waits in every
number of axes and in either precision, not in every pair of both, through fit, calibration, save,
resume and detect. The authors' settings run the same lines.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch

from accelerator import PretendedAccelerator, pretended_accelerator
from adbench.benchmark.plugins.conformance import check_method
from adbench.benchmark.plugins.method_under_test import MethodUnderTest
from adbench.benchmark.registry.registry import Registry
from adbench.engine.runtime.context import Interrupted, TrainingContext
from adbench.engine.runtime.distributed import Team
from adbench.engine.runtime.precision import LowPrecisionModule
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.loop import Training, train_module
from adbench.methods.base import Detection, Method
from trainings import DATA, MemoryStateStore, denoising_error

METHODS = Registry.read().methods
OWN_CODE = [name for name in METHODS if not name.endswith("-authors")]
STEPS = 3
"""Of every training: the first makes tables, the second is one like all others."""


SELECTION = "engine/training/selection.py"


class StepWaits:
    """The waits of each training step but the first: a `stop` that is asked before every step.

    Without the one for the calibration loss, which the plan asks for at few steps.
    """

    def __init__(self, gpu: PretendedAccelerator) -> None:
        self.gpu, self.steps, self._before = gpu, list[Counter[str]](), Counter[str]()

    def __call__(self) -> bool:
        frame: Any = sys._getframe(1)
        if frame.f_code.co_name == "train_module":
            if frame.f_locals.get("k", 0) > 1:  # step 1 and those after it, of this training
                waits = self.gpu.waits - self._before
                waits -= Counter({line: 1 for line in waits if line.startswith(SELECTION)})
                self.steps.append(waits)
            self._before = Counter(self.gpu.waits)
        return False


def subject_axes(name: str) -> int:
    ndims = METHODS[name].load().ndims
    return 2 if 2 in ndims else min(ndims)


def subject(name: str, axes: int | None = None) -> MethodUnderTest:
    method = MethodUnderTest(METHODS[name], axes or subject_axes(name))
    for key, value in method.args.items():
        if f"_{key}".endswith("_steps") and isinstance(value, int):
            method.args[key] = min(value, STEPS)
    for key, value in {"select_every": STEPS, "repeats": 2}.items():  # measured at the end alone
        if key in method.args:
            method.args[key] = value
    return method


def on_accelerator(
    method: MethodUnderTest, gpu: PretendedAccelerator, **more: Any
) -> tuple[Method, Detection]:
    fitted = method.fit(method.build(), device="cuda", event_interval=1e9, **more)
    calibrating = Counter(gpu.products)
    x, rng = method.x.to("cuda"), Rng(method.keys, method.context.seed, "cuda")
    gpu.sampling_waits.clear()
    gpu.waits_before_calls.clear()
    gpu.products.clear()
    with torch.no_grad():
        detection = fitted.detect(x, method.levels, rng)
    for waits in gpu.waits_before_calls[1:]:
        assert waits.total() <= 1, f"between two calls of a network:\n{table(waits)}"
    for line in {line for line, _ in calibrating} & {line for line, _ in gpu.products}:
        ours, theirs = (dtypes_at(line, each) for each in (calibrating, gpu.products))
        assert ours == theirs, f"{line} computes in {ours} in fit and in {theirs} in detect"
    return fitted, detection


def dtypes_at(line: str, products: Counter[tuple[str, torch.dtype]]) -> set[torch.dtype]:
    return {dtype for place, dtype in products if place == line}


def on_cpu(detection: Detection) -> list[torch.Tensor]:
    values = (detection.score, detection.map, detection.reconstruction)
    return [value.cpu() for value in values if value is not None]


def table(waits: Counter[str]) -> str:
    return "\n".join(f"{count:4d} {line}" for line, count in waits.most_common())


@pytest.mark.parametrize("name", OWN_CODE)
def test_a_method_computes_the_cpus_numbers_without_waiting(name: str) -> None:
    """To the bit, as it is the CPU that computes them; a step may wait once, a sampler never."""
    method = subject(name)
    with pretended_accelerator() as gpu:
        step_waits = StepWaits(gpu)
        fitted, detection = on_accelerator(method, gpu, stop=step_waits)
        state = {key: value.cpu() for key, value in fitted.state_dict().items()}
        numbers = on_cpu(detection)
        sampling = Counter(gpu.sampling_waits)
    reference = method.predict(method.fitted)
    for key, value in method.fitted.state_dict().items():
        assert torch.equal(state[key], value), key
    for mine, theirs in zip(numbers, on_cpu(reference), strict=True):
        assert torch.equal(mine, theirs)
    for waits in step_waits.steps:
        assert waits.total() <= 1, f"a training step waits for the device:\n{table(waits)}"
    assert not sampling, f"a sampling step waits for the device:\n{table(sampling)}"


def matrix() -> list[tuple[str, int, torch.dtype]]:
    """Every method in the axes and the precision that the test above has not.

    bfloat16 in the axes of that test and in volumes, float32 in other axes: every number of axes
    and either precision of each method, as axes and precision choose other lines. Volumes are in
    float32 for cDDPM, which takes 11 GB on a CPU at the size that `test_bfloat16` asks for, and for
    methods whose gradients are not finite in bfloat16: convolutions of the smallest volumes on a
    CPU (torch 2.15: kernels of 3^3 at 2^3 and, strided, at 1^3), not in two axes or in float32.
    """
    unsound = ("cddpm", "fpgan", "ldm")
    cases = list[tuple[str, int, torch.dtype]]()
    for name in OWN_CODE:
        for axes in sorted(METHODS[name].load().ndims):
            low = axes == subject_axes(name) or (axes == 3 and not name.startswith(unsound))
            cases.append((name, axes, torch.bfloat16 if low else torch.float32))
    return cases


@pytest.mark.parametrize(("name", "axes", "dtype"), matrix())
def test_no_device_is_mixed_and_no_step_waits(name: str, axes: int, dtype: torch.dtype) -> None:
    """A training that is stopped, saved and resumed on the device, then predicts one level."""
    method = subject(name, axes)
    if name.startswith("cddpm") and dtype == torch.bfloat16:  # see test_bfloat16
        method.args["size"] = 64
    store, stops = MemoryStateStore(), iter([False])
    with pretended_accelerator() as gpu:
        more: dict[str, Any] = {"dtype": dtype, "state_store": store, "checkpoint_interval": 1e9}
        with suppress(Interrupted):  # methods without a training are not asked
            method.fit(
                method.build(), device="cuda", event_interval=1e9,
                stop=lambda: next(stops, True), **more,
            )  # fmt: skip
        step_waits = StepWaits(gpu)
        method.levels = method.levels[:1]
        _, detection = on_accelerator(method, gpu, stop=step_waits, **more)
        numbers, sampling = on_cpu(detection), Counter(gpu.sampling_waits)
    assert detection.score.dtype == torch.float32
    assert all(value.isfinite().all() for value in numbers)
    for waits in step_waits.steps:
        assert waits.total() <= 1, f"a training step waits for the device:\n{table(waits)}"
    assert not sampling, f"a sampling step waits for the device:\n{table(sampling)}"


OTHER_LINES: dict[tuple[str, int], tuple[dict[str, Any], int]] = {
    ("anoddpm", 2): ({"gradual": True}, 0),
    ("lmd", 2): ({}, 0),
    ("lmd", 3): ({}, 0),  # whose planes are compared by a network made for images
    ("patchcore", 2): ({}, 1),  # how many of a vector's neighbours are others
    ("vae", 2): ({"judged": "elbo"}, 0),
}
"""By method and axes: settings whose lines the profile of the tests does not run, or lines after
the last call of a sampler; and how often a prediction waits for each sample."""


@pytest.mark.parametrize(("name", "axes"), OTHER_LINES)
def test_a_prediction_waits_no_more_than_it_must(name: str, axes: int) -> None:
    overrides, each = OTHER_LINES[name, axes]
    method = subject(name, axes)
    method.args |= overrides
    with pretended_accelerator() as gpu:
        fitted = method.fit(method.build(), device="cuda", event_interval=1e9)
        x, rng = method.x.to("cuda"), Rng(method.keys, 0, "cuda")
        gpu.waits.clear()
        with torch.no_grad():
            fitted.detect(x, method.levels[:1], rng)
    assert gpu.waits.total() == each * len(x), table(gpu.waits)


REFUSED: dict[str, Callable[[torch.Tensor], object]] = {
    "a mask of the host": lambda x: x.masked_fill_(torch.tensor([True, False]), 0.0),
    "an index of the host": lambda x: x.index_fill_(0, torch.tensor([1]), 0.0),
    "a number of the host in a list": lambda x: torch.stack([x.sum(), torch.tensor(1.0)]),
    "values of the host": lambda x: x.index_put_((torch.tensor([0, 1]),), torch.ones(2)),
    "a sum of both devices": lambda x: x + torch.ones(2),
    "a product of integers": lambda x: x.long() @ x.long(),
    "a generator of the host": lambda x: x.normal_(generator=torch.Generator()),
    "a generator of the host, for a new tensor": lambda x: torch.rand(
        2, device="cuda", generator=torch.Generator()
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_gpu_refuses_is_refused(what: str) -> None:
    with pretended_accelerator():
        x = torch.ones(2, device="cuda")
        with pytest.raises(RuntimeError, match=r"same device|'cuda' device|not implemented"):
            REFUSED[what](x)


def test_what_a_gpu_takes_is_taken() -> None:
    with pretended_accelerator() as gpu:
        x = torch.ones(2, device="cuda")
        x = torch.where(x > 0, torch.tensor(3.0), x) * torch.tensor(2.0)
        x.masked_fill_(x > 9, torch.tensor(0.0))
        assert not gpu.waits
        x[0] = torch.tensor(1.0)
        assert gpu.waits.total() == 1  # for a copy of what is not pinned
        assert x.cpu().tolist() == [1.0, 6.0]


class Uncopied(LowPrecisionModule):
    """A module that calibrates outside of `call_net`, as no method may."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(2, 2)


def test_the_precision_of_a_product_is_noted() -> None:
    with pretended_accelerator() as gpu, torch.no_grad():
        module = Uncopied().to("cuda").eval()
        module.dtype, x = torch.bfloat16, torch.ones(2, 2, device="cuda")
        module.net(x)
        assert {dtype for _, dtype in gpu.products} == {torch.float32}
        gpu.products.clear()
        module.call_net(lambda net, rows: net(rows), x)
        assert {dtype for _, dtype in gpu.products} == {torch.bfloat16}
        x.sum().item()
        module.call_net(lambda net, rows: net(rows), x)
        assert [waits.total() for waits in gpu.waits_before_calls[1:]] == [1]


@pytest.mark.parametrize("name", ["anoddpm", "template-z", "vae"])
def test_the_contract_is_kept_on_a_device(name: str) -> None:
    with pretended_accelerator():
        results = list(
            check_method(METHODS[name], axes=[1], context=TrainingContext(device="cuda"))
        )
    assert len(results) == 12
    assert not [result for result in results if result.violation]


def test_a_training_resumes_to_the_same_weights() -> None:
    """From a state of the device, by a device and by a CPU."""
    method = subject("anoddpm")
    store, stops = MemoryStateStore(), iter([False, False])
    with pretended_accelerator() as gpu:
        with pytest.raises(Interrupted):
            on_accelerator(method, gpu, state_store=store, stop=lambda: next(stops, True))
        saved = dict(store.states)
        resumed, _ = on_accelerator(method, gpu, state_store=store)
        weights = {key: value.cpu() for key, value in resumed.state_dict().items()}
    store.states = saved
    for fitted in (method.fitted, method.fit(method.build(), state_store=store)):
        for key, value in fitted.state_dict().items():
            assert torch.equal(weights[key], value), key


class MirroredTeam(Team):
    """A team of two, the other of which has the same numbers as this one."""

    size, device = 2, "cuda"

    def all_reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        return 2 * tensor


@pytest.mark.parametrize("layers", [1, 9])
def test_a_step_of_a_team_waits_once_however_many_weights_there_are(layers: int) -> None:
    net = torch.nn.Sequential(*[torch.nn.Linear(3, 3) for _ in range(layers)])
    with pretended_accelerator() as gpu:
        step_waits = StepWaits(gpu)
        context = TrainingContext(
            device="cuda", team=MirroredTeam(), stop=step_waits, event_interval=1e9
        )
        plan = Training(6, 4, 1e-2)
        train_module(lambda x, _, rng: denoising_error(net, x, rng), net, DATA, context, plan)
    assert len(step_waits.steps) == 4
    for waits in step_waits.steps:
        assert waits.total() == 1, table(waits)
