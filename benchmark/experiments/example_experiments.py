"""Small experiments, to try out what takes an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..registry.registry import Registry
from .matrix import Experiment, expand_matrix
from .run_config import RunConfig


def example_experiments(
    methods: str | Sequence[str] = "template-z",
    *,
    shape: Sequence[int] | None = None,
    profile: str = "tiny",
    **options: Any,
) -> list[Experiment]:
    """Experiments on the phantom, one for each method, without further baselines.

    shape: of the phantom's samples, its own if None
    options: of RunConfig, such as limit, levels or seeds

    >>> [experiment.method.name for experiment in example_experiments(["dae", "pca"], shape=(16,))]
    ['dae', 'pca']
    """
    settings = {} if shape is None else {"phantom": {"shape": list(shape)}}
    config = RunConfig.from_options(
        methods=methods, datasets="phantom", profile=profile, baselines=False, settings=settings,
        **options,
    )  # fmt: skip
    return expand_matrix(config, Registry.read())
