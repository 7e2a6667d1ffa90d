"""Every registered method at a size that trains in a second, by argument name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from adbench.benchmark.registry import Registry
from adbench.datasets.base import Sample, Spec
from adbench.engine.rng import Rng

SMALL: dict[str, Any] = {
    "size": 16,
    "width": 8,
    "mults": (1, 2),
    "widths": (8, 16),
    "attention": (False, True),
    "res_blocks": 1,
    "heads": 1,
    "head_channels": 8,
    "steps": 3,
    "batch": 2,
    "patch": 8,
    "sampling_steps": 3,
    "skip": 1,
    "every": 50,
    "code": 8,
    "adapt_steps": 2,
    "adapt_batch": 2,
    "encoder_layers": (1, 1, 1, 1),
    "encoder_width": 4,
    "inpaint_steps": 2,
    "resamples": 2,
    "calibration": 4,
    "features": "effperc-random",
    "classifier_width": 8,
    "classifier_mults": (1, 2),
    "classifier_res_blocks": 1,
    "classifier_attention": (False, True),
    "classifier_head_channels": 8,
    "classifier_steps": 3,
    "layers": 2,
    "cycle": 2,
    "coder_widths": (8,),
    "coder_steps": 3,
    "coder_batch": 2,
    "latent_channels": 4,
    "codes": 8,
    "bits": 6,
    "coder_size": 8,
    "divergence": (400, 600, 2),
}

SHAPES = {1: (24,), 2: (18, 16), 3: (8, 6, 8)}


def arguments(name: str, **more: Any) -> dict[str, Any]:
    """What of SMALL the method takes, and what its entry says."""
    entry = Registry.read().method(name)
    takes = inspect.signature(entry.load()).parameters
    small = {key: value for key, value in SMALL.items() if key in takes} | dict(entry.args)
    if name == "anoddpm":
        small["attention"] = (8,)
    return small | {key: value for key, value in more.items() if key in takes}


def method(name: str, spec: Spec, **more: Any) -> Any:
    """The method, small; Any, so that a test may touch what is its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Registry.read().method(name).load()(spec, **arguments(name, **more))


def built(cls: type, spec: Spec, **more: Any) -> Any:
    """A method by its class, small, listed or not."""
    takes = inspect.signature(cls).parameters
    small = {key: value for key, value in SMALL.items() if key in takes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(spec, **small | more)


def samples(
    shape: Sequence[int], count: int = 5, channels: int = 2, name: str = "s"
) -> list[Sample]:
    """Smooth normal samples in [0, 1], each of its own group."""
    axes = torch.meshgrid(*[torch.linspace(0, 3, n) for n in shape], indexing="ij")
    made = []
    for i in range(count):
        phase = Rng([f"{name}{i}"]).uniform((channels, len(axes)))[0].float()
        waves = [[torch.sin(a + 6 * p) for a, p in zip(axes, row, strict=True)] for row in phase]
        x = torch.stack([torch.stack(row).sum(0) for row in waves])
        x = 0.5 + x / (2 * len(axes) + 1)
        made.append(Sample(x, f"{name}{i}", f"{name}{i}", False))
    return made
