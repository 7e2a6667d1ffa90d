"""Arguments that are valid each by itself and not together are refused before data are prepared."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import pytest

from adbench.benchmark.experiments.argument_conflicts import argument_conflict
from adbench.benchmark.experiments.matrix import expand_matrix
from adbench.benchmark.experiments.run_config import RunConfig
from adbench.benchmark.registry.registry import Registry, RegistryError
from adbench.datasets.base import Spec

REGISTRY = Registry.read()

CONFLICTS: list[tuple[str, dict[str, Any], str]] = [
    ("anoddpm", {"heads": 3}, "heads=3 do not divide the 16 channels"),
    ("anoddpm", {"heads": 20}, "heads=20 do not divide"),
    ("anoddpm", {"eval_heads": 3}, "heads=3 do not divide"),
    ("anoddpm", {"mults": [0.1, 0.2]}, "a layer without channels"),
    ("pddpm", {"stride": 9}, "a stride lies in 1..8"),
    ("ddpm-ood", {"widths": [5, 7]}, "divisible"),
    ("autoddpm", {"attention": [True]}, "attention"),
    ("deco-diff", {"cells": [1000]}, "every cell size has a chance"),
    ("pddpm", {"patch": 64}, "patch=64 covers all of"),
    ("mddpm", {"patch": 32}, "patch=32 covers all of"),
    ("anoddpm", {"attention": [7]}, "attention=7 is none of the longest sides"),
    ("anoddpm", {"attention": [8, 7]}, "attention=7 is none of the longest sides"),
    ("ddad", {"attention": [5]}, "attention=5 is none of the longest sides"),
    ("autoddpm", {"attention": [False]}, "attention"),
    ("ddpm-ood", {"skip": 2000}, "skip=2000 passes over all 3 sampling_steps"),
    ("ldm-ood", {"skip": 3}, "skip=3 passes over all 3 sampling_steps"),
    ("wavenet-ood", {"skip": 2000}, "skip=2000 passes over all"),
    ("andi", {"every": 1001}, "every=1001 evaluates one level"),
    ("andi", {"every": 200, "T": 100}, "every=200 evaluates one level"),
    ("thor", {"every": 1001}, "every"),
    ("anoddpm", {"sampling_steps": 5000}, "more than the T=1000 levels"),
    ("autoddpm", {"inpaint_steps": 1001}, "more than the T=1000 levels"),
    ("disyre", {"sampling_steps": 101}, "more than the T=100 levels"),
    ("thor", {"sampling_steps": 5000}, "more than the T=1000 levels"),
    ("anoddpm", {"T": 10}, "the noise levels 50 and 100 are the same step"),
    ("anoddpm", {"solver": "heun"}, "solver is of process=flow"),
    ("anoddpm", {"process": "flow", "eta": 0.5}, "eta is of Gaussian diffusion"),
    ("anoddpm", {"process": "flow", "gradual": True}, "gradual and index_shift are of Gaussian"),
    ("ddad", {"process": "flow", "conditioning": "linear_mix"}, "linear_mix is of Gaussian"),
    ("ddpm-ood", {"process": "flow", "snr_shift": 2.0}, "snr_shift is of Gaussian diffusion"),
    ("ddpm-ood", {"process": "flow", "lagged": True}, "the sampler euler has no history"),
    ("andi", {"T": 4}, "are the same step"),
    ("guided-ddim", {"T": 1}, "T is"),
    ("autoddpm", {"size": 1}, "4 pixels a side at least, not 2 x 2"),
    ("thor", {"size": 1.0}, "4 pixels a side at least, not 2 x 2"),
    ("ddpm-ood", {"size": 1, "perceptual": "effperc-random"}, "4 pixels a side at least"),
    ("anoddpm", {"width": 1e6}, "parameters, more than 1e"),
    ("cddpm", {"encoder_width": 10**6}, "parameters, more than 1e"),
    ("anoddpm", {"size": 10**6}, "1000000 x 1000000, more than 1e"),
    ("ae1d", {"calibration": 1}, "calibration is"),
    (
        "dae",
        {"select": "best"},
        "no loss on calibration samples to select by; select=last",
    ),
    ("ddpm-ood", {"calibration": 1}, "calibration is"),
    ("diffpath", {"calibration": 2, "mixture_sizes": [3, 5]}, "fewer than the 3 parts"),
]
"""A method, what is set and cannot work or would have no effect, and the reason."""


@pytest.mark.parametrize(("name", "settings", "reason"), CONFLICTS)
def test_a_conflict_is_refused_in_one_line(
    name: str, settings: dict[str, Any], reason: str
) -> None:
    axes = {"phantom": {"shape": [64]}} if REGISTRY.method(name).load().ndims == {1} else {}
    overrides = {name: settings, **axes}
    config = RunConfig([name], ["phantom"], "check", settings=overrides, baselines=False)
    with pytest.raises(RegistryError, match=reason) as caught:
        expand_matrix(config, REGISTRY)
    text = str(caught.value)
    assert "\n" not in text and name in text and all(key in text for key in settings)


@pytest.mark.parametrize("name", [n for n, e in REGISTRY.methods.items() if not e.base])
def test_every_method_can_be_built_without_memory(name: str) -> None:
    method = REGISTRY.methods[name]
    extra = {"size": 15} if "size" in method.parameters() else {}
    for axes in method.load().ndims:
        spec = Spec(1, (16,) * axes, labels=True)
        assert argument_conflict(method, method.arguments("check", extra), "check", spec) == ""


@pytest.mark.parametrize("name", [n for n, e in REGISTRY.methods.items() if not e.base])
def test_best_weights_are_selected_where_a_training_measures_a_loss_and_refused_elsewhere(
    name: str,
) -> None:
    method = REGISTRY.methods[name]
    measures = "validation=calibration" in inspect.getsource(sys.modules[method.load().__module__])
    assert method.load().selects_best == measures
    for argument in (each for each in method.parameters() if each.endswith("select")):
        arguments = method.arguments("check", {argument: "best"})
        conflict = argument_conflict(method, arguments, "check", None)
        assert (conflict == "") == (measures and argument == "select"), argument


def test_a_network_is_refused_before_very_many_layers_are_built() -> None:
    for name, settings in (
        ("anoddpm", {"res_blocks": 10**6}),
        ("cddpm", {"encoder_layers": [101] * 4}),
    ):
        with pytest.raises(RegistryError, match="from 1 to 100"):
            REGISTRY.methods[name].arguments("check", settings)


def test_without_a_form_of_the_samples_a_conflict_is_one_of_every_size() -> None:
    method = REGISTRY.methods["anoddpm"]
    for heads, conflict in ((3, True), (2, False)):
        arguments = method.arguments("check", {"heads": heads})
        assert bool(argument_conflict(method, arguments, "check", None)) == conflict


@pytest.mark.parametrize(
    ("method", "settings", "words"),
    [
        ("vae", {"select": "best"}, "method 'vae': select=best: this training measures no loss"),
        ("anoddpm", {"heads": 3}, "method 'anoddpm': heads=3 do not divide the 16 channels"),
        (
            "anoddpm",
            {"mults": [0.1, 0.2]},
            "mults=[0.1, 0.2] does not go together with the other arguments or the samples: den",
        ),
        (
            "anoddpm",
            {"mults": [0.1, 0.2], "steps": 4},
            "mults=[0.1, 0.2] steps=4 do not go together with each other, the other arguments or",
        ),
    ],
)
def test_a_conflict_names_the_settings_in_a_sentence(
    method: str, settings: dict[str, Any], words: str
) -> None:
    config = RunConfig(
        methods=[method], datasets=["phantom"], profile="check", settings={method: settings}
    )
    with pytest.raises(RegistryError) as caught:
        expand_matrix(config, REGISTRY)
    assert words in str(caught.value) and str(caught.value).count("select=best") <= 1
