"""Profile `small` is `tiny` at twice the side with more steps, for the same methods and data."""

from __future__ import annotations

import pytest
import torch

from adbench.benchmark.registry.registry import Registry
from adbench.datasets.base import Spec

REGISTRY = Registry.read()
TINY, SMALL = REGISTRY.profile("tiny"), REGISTRY.profile("small")


@pytest.mark.parametrize("package", ["methods", "datasets"])
def test_small_knows_what_tiny_knows(package: str) -> None:
    assert SMALL.args[package].keys() == TINY.args[package].keys()
    assert SMALL.levels_by_method == TINY.levels_by_method


@pytest.mark.parametrize("name", TINY.args["methods"])
def test_small_trains_longer_and_never_narrower(name: str) -> None:
    tiny, small = (profile.args["methods"][name] for profile in (TINY, SMALL))
    for key in ("steps", "coder_steps", "classifier_steps"):
        assert (key in small) == (key in tiny)
        assert small.get(key, 4) >= 4 * tiny.get(key, 1)
    assert small.get("width", 0) >= tiny.get("width", 0)
    assert max(small.get("widths", [0])) >= max(tiny.get("widths", [0]))


@pytest.mark.parametrize(("profile", "side"), [("tiny", 32), ("small", 64)])
def test_every_setting_has_an_effect_on_the_profiles_own_samples(profile: str, side: int) -> None:
    for name, entry in REGISTRY.methods.items():
        cls = entry.load()
        shape = (side, side) if 2 in cls.ndims else (512,)
        spec = Spec(1, shape, labels=cls.supervision == "image-labels")
        with torch.device("meta"):
            method = entry.build(spec, **entry.arguments(profile))
        assert not method.ineffective_arguments, name
