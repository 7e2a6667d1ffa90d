"""What goes to a device and comes back without a wait of the host."""

from __future__ import annotations

import pytest
import torch

from accelerator import pretended_accelerator
from adbench.engine.noise.noise import Simplex, gaussian
from adbench.engine.runtime.rng import Rng
from adbench.engine.runtime.transfer import HostCopies, to_device

KEYS, INDEX = ["a", "b", "c"], torch.tensor([2, 0])


def test_a_copy_does_not_wait_and_a_late_read_only_for_what_is_new() -> None:
    with pretended_accelerator() as gpu:
        x = to_device(torch.arange(3), "cuda")
        assert x.is_cuda and to_device(x, "cuda") is x
        early = HostCopies({"x": x})
        for _ in range(30):
            x = x + 1
        assert early.read()["x"].tolist() == [0, 1, 2] and not gpu.waits
        assert HostCopies({"x": x}).read()["x"].tolist() == [30, 31, 32] and gpu.waits.total() == 1
        torch.tensor([1], device="cuda")
        assert gpu.waits.total() == 2


def test_streams_and_noise_of_a_device_are_the_cpus_and_wait_for_nothing() -> None:
    def draws(device: str) -> list[torch.Tensor]:
        rng = Rng(KEYS, 3, device).at(torch.tensor([5, 6, 7]))
        level = to_device(torch.tensor([100, 200]), device)
        some = rng.rows(INDEX).fork("noise")
        both = Rng.cat([some, some.shared()])
        return [
            gaussian(some, (1, 4, 4), level),
            Simplex()(some, (2, 8, 8), level),
            Simplex(generator="2d")(some, (1, 8, 8), level),
            both.uniform((3,)),
            both.seeds(2),
            both.uniform((3,)),
        ]

    with pretended_accelerator() as gpu:
        on_device = draws("cuda")
        assert not gpu.waits
        values = [value.cpu() for value in on_device]
    assert all(map(torch.equal, values, draws("cpu")))


@pytest.mark.parametrize("known", [True, False])
def test_seeds_are_drawn_on_the_host_if_the_step_is_known_there(known: bool) -> None:
    step = torch.tensor([1, 2, 3])
    with pretended_accelerator():
        rng = Rng(KEYS, 0, "cuda").at(step if known else step.to("cuda"))
        assert rng.step.is_cuda == rng.seeds(1).is_cuda == (not known)
        seeds = rng.seeds(1).cpu()
    host = Rng(KEYS).at(step)
    host.seeds(1)
    assert torch.equal(host.seeds(1), seeds)
