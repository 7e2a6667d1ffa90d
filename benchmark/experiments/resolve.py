"""Resolving an experiment: its method's class, splits, levels and cache keys, worked out once.

The parts are then handed to fit, predict and evaluate, which know no `Experiment`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from ...datasets.base import DataError, Dataset, Spec
from ...engine.checkpoints.imported_networks import apply_networks
from ...methods.base import Method
from .cache_keys import KeyInputs, experiment_key_inputs
from .matrix import Experiment, sweep_levels
from .splits import SYNTHETIC, Splits
from .training_samples import TrainingSamples


@dataclass(frozen=True)
class ResolvedExperiment:
    """What an experiment means on a prepared dataset.

    method_class: of the method
    splits: loaded when they are first used
    levels: the noise levels to sweep, ascending
    numerics: what networks compute in

    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments()
    >>> from adbench.datasets.phantom import Phantom
    >>> resolved = resolve(experiment, Phantom(shape=(8, 8)), "float32")
    >>> resolved.levels, resolved.build_method().spec.shape
    ([0], (8, 8))
    """

    experiment: Experiment
    method_class: type[Method]
    splits: Splits
    levels: list[int]
    numerics: str

    @cached_property
    def key_inputs(self) -> KeyInputs:
        """The inputs of its cache keys. Reads every sample of a dataset that is not prepared in
        files, the first time."""
        return experiment_key_inputs(
            self.experiment, self.method_class, self.splits, self.levels, self.numerics
        )

    def build_method(self) -> Method:
        """The method with its first weights."""
        return build_method(self.experiment, self.splits.dataset.spec)


def resolve(experiment: Experiment, dataset: Dataset, numerics: str) -> ResolvedExperiment:
    """Work out an experiment's method class, splits, levels and cache keys.

    dataset: prepared
    numerics: what networks compute in, as DeviceContext.numerics names it; it changes results, so
        it is in the keys

    Raises DataError where there is nothing to train on, or nothing to evaluate.

    >>> from adbench.benchmark.experiments.resolve import resolve
    >>> from adbench.datasets.phantom import Phantom
    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments("anoddpm", limit=4, levels=(100,))
    >>> resolved = resolve(experiment, Phantom(shape=(8, 8)), "float32")
    >>> resolved.method_class.__name__, resolved.levels, len(resolved.splits["test"])
    ('AnoDDPM', [100, 250], 4)
    """
    method_class: type[Method] = experiment.method.load()
    splits = Splits(
        dataset,
        limit=experiment.limit,
        labelled=method_class.supervision == "image-labels",
        synthetic=experiment.protocol.level == SYNTHETIC,
        training=TrainingSamples(experiment.fraction, experiment.contamination, experiment.seed),
    )
    for name, purpose in (("train", "train on"), ("test", "evaluate")):
        if not len(splits[name]):
            raise DataError(f"dataset '{experiment.dataset.name}' has no samples to {purpose}")
    levels = sweep_levels(experiment, method_class)
    return ResolvedExperiment(experiment, method_class, splits, levels, numerics)


def build_method(experiment: Experiment, spec: Spec) -> Method:
    """Construct an experiment's method with its first weights, which depend on the seed alone.

    spec: of the samples

    >>> from adbench.benchmark.experiments.example_experiments import example_experiments
    >>> (experiment,) = example_experiments("dae")
    >>> weights, again = (
    ...     build_method(experiment, Spec(1, (16, 16))).state_dict().values() for _ in range(2)
    ... )
    >>> all(map(torch.equal, weights, again))
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(experiment.seed)
        method = experiment.method.build(spec, **experiment.method_args)
        if experiment.method.networks:
            apply_networks(method, experiment.method.networks)
        return method
