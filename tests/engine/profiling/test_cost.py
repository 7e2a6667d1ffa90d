"""What is counted is what was done: of networks known in closed form, and of real ones."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from adbench.engine.diffusion.denoiser import Denoiser
from adbench.engine.diffusion.schedule import linear_schedule
from adbench.engine.networks.diffusion_unet import build_unet
from adbench.engine.profiling.cost import (
    CostMeter,
    PeakMemory,
    count_flops,
    device_name,
    evaluation_flops,
    measure_utilization,
    peak_memory,
    single_row_batches,
    time_interleaved,
)
from adbench.engine.profiling.peak_throughput import measure_peak, workloads
from adbench.engine.runtime.context import BatchedModule
from adbench.engine.runtime.fixed_batches import apply_in_batches
from adbench.engine.runtime.rng import Rng
from adbench.engine.sampling.reconstruct import SamplingConfig, reconstruct

SIDE = 8


class Conv(nn.Module):
    """One convolution, 3 x 3, two channels to two: its FLOPs are known."""

    flops = 2 * SIDE**2 * 2 * 2 * 9

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.seen: list[int] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.conv(x)


class Features(BatchedModule):
    """A frozen network that is no denoiser and in no list of modules: a product of matrices."""

    flops = 2 * 2 * SIDE**2 * 5

    def __init__(self) -> None:
        super().__init__()
        self._held = [nn.Linear(2 * SIDE**2, 5)]

    def look(self, x: Tensor) -> Tensor:
        return apply_in_batches(self._held[0], self.batch, x.flatten(1))


class Detector(nn.Module):
    """Chains of a denoiser, and the features of each sample once."""

    def __init__(self, steps: int = 3) -> None:
        super().__init__()
        self.net, self.chain = Conv(), SamplingConfig(steps)
        self.denoiser, self.features = (
            Denoiser(self.net, linear_schedule(), clip=(-1, 1)),
            Features(),
        )

    @torch.no_grad()
    def detect(self, count: int, levels: list[int]) -> Tensor:
        rng = Rng([str(i) for i in range(count)])
        x = rng.fork("x").normal((2, SIDE, SIDE))
        self.features.look(x)
        return reconstruct(self.denoiser, x, levels, rng, sampling=self.chain)


@pytest.fixture
def detector() -> Iterator[Detector]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield Detector().eval()


@settings(max_examples=10)
@given(
    count=st.integers(1, 5),
    levels=st.lists(st.integers(3, 1000), min_size=1, max_size=3, unique=True),
    steps=st.integers(1, 3),
)
def test_flops_are_those_of_every_network_and_of_no_padding(
    count: int, levels: list[int], steps: int
) -> None:
    detector = Detector(steps).eval()
    price = count_flops(detector, lambda: detector.detect(count, levels))
    assert price.evaluations == count * len(levels) * steps
    assert price.denoiser_flops == price.evaluations * Conv.flops
    assert price.flops_per_evaluation == Conv.flops
    assert price.flops == price.denoiser_flops + count * Features.flops


def test_counting_leaves_no_trace(detector: Detector) -> None:
    before, state = detector.detect(3, [500]), copy.deepcopy(detector.state_dict())
    detector.denoiser.batch, detector.features.batch = 7, 5
    count_flops(detector, lambda: detector.detect(2, [200]))
    measure_utilization(detector, lambda: detector.detect(2, [200]))
    assert (detector.denoiser.batch, detector.features.batch) == (7, 5)
    assert not detector.net._forward_hooks and not detector.net._forward_pre_hooks
    detector.denoiser.batch = 8
    assert torch.equal(detector.detect(3, [500]), before)
    assert all(torch.equal(v, state[k]) for k, v in detector.state_dict().items() if k in state)


def test_one_by_one_ends_with_an_error_too(detector: Detector) -> None:
    with pytest.raises(ZeroDivisionError), single_row_batches(detector):
        detector.detect(2, [100])
        assert set(detector.net.seen) == {1}
        _ = 1 / 0
    assert detector.denoiser.batch == 8


def test_padding_shows(detector: Detector) -> None:
    utilization = measure_utilization(detector, lambda: detector.detect(2, [500]))
    assert utilization.rows == 3 * 8 and utilization.filled_share == 2 / 8
    assert 0 < utilization.network_share < 1
    assert measure_utilization(nn.Linear(1, 1), lambda: None)[:2] == (0, 0.0)


def test_a_meter_counts_rows_but_no_padding(detector: Detector) -> None:
    with CostMeter(detector) as meter:
        detector.detect(5, [100, 900])
    assert meter.evaluations == 5 * 2 * 3 and meter.seconds > 0


def test_what_is_paired_takes_turns() -> None:
    order: list[str] = []
    works = [lambda: order.append("a"), lambda: order.append("b"), lambda: time.sleep(0.02)]
    seconds = time_interleaved(works, 4, "cpu")
    assert order == ["a", "b", "b", "a", "a", "b", "a", "b"]
    assert [len(row) for row in seconds] == [4, 4, 4]
    assert min(seconds[2]) >= 0.02


def test_memory_sees_what_was_given_back_and_not_what_was_there() -> None:
    def used(megabytes: int) -> float:
        with PeakMemory() as memory:
            torch.ones(megabytes * 250_000)
        return memory.peak

    most = used(200)
    assert 180 < most < 260
    assert used(50) < 80, "200 MB were in use before, and no longer are"
    assert peak_memory("cpu") > 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_peak_is_of_work_that_is_counted_as_networks_are(dtype: torch.dtype) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    operations = workloads("cpu", dtype)
    assert len(operations) > 2
    for work in operations.values():
        with FlopCounterMode(display=False) as counter:
            result = work.run()
        assert counter.get_total_flops() == work.flops
        assert result.dtype == dtype and result.isfinite().all()


def test_the_peak_is_the_best_of_all_shapes() -> None:
    best = measure_peak("cpu", torch.float32, 0.0)
    assert best.flops == max(best.rates.values()) and min(best.rates.values()) > 0
    assert best.rates.keys() == workloads("cpu", torch.float32).keys()


def test_a_device_has_a_name() -> None:
    assert device_name("cpu").strip()


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_unet_costs_what_torchs_own_counter_says(axes: int) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    net = build_unet(
        axes, 2, (8, 16), res_blocks=1, attention=(False, True), head_channels=8
    ).eval()
    x, t = torch.zeros(1, 2, *[8] * axes), torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, t)
    assert evaluation_flops(net, 2, [8] * axes) == counter.get_total_flops() > 0
