"""The penalty of weights: its value and gradient, on a CPU to the bit, on a GPU by few kernels."""

from __future__ import annotations

import pytest
import torch

from accelerator import pretended_accelerator
from adbench.engine.runtime.rng import Rng
from adbench.engine.training.weight_penalty import squared_norm

SHAPES = [(3, 4), (7,), (2, 3, 5)]


def weights(device: str = "cpu") -> list[torch.nn.Parameter]:
    draws = [Rng(["w"]).fork(i).normal(shape)[0] for i, shape in enumerate(SHAPES)]
    return [torch.nn.Parameter(value.to(device)) for value in draws]


def test_it_is_autograds_sum_of_squares_to_the_bit() -> None:
    fused, plain = weights(), weights()
    total = squared_norm(fused)
    expected = sum((p.square().sum() for p in plain), torch.zeros(()))
    assert isinstance(expected, torch.Tensor) and torch.equal(total, expected)
    (0.3 * total).backward()
    (0.3 * expected).backward()
    for one, other in zip(fused, plain, strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_on_a_gpu_it_takes_the_same_operations_for_any_number_of_weights() -> None:
    counts = list[int]()
    for several in (1, 20):
        with pretended_accelerator() as gpu:
            values = weights("cuda") * several
            before = gpu.operations
            total = squared_norm(values)
            total.backward()
            counts.append(gpu.operations - before)
            number = total.cpu().item()
        assert number == pytest.approx(
            several * sum(p.double().square().sum().item() for p in weights()), rel=1e-6
        )
    assert counts[1] - counts[0] <= 3 * 20 * len(SHAPES)  # accumulating gradients
