"""The matrix of experiments that a user asks for: every method on every dataset with every seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..evaluation.protocol import Protocol
from ..registry.code_fingerprint import loaded_code_digest
from ..registry.registry import Entry, Registry, RegistryError
from ..store.artifact_store import canonical_json
from .argument_conflicts import argument_conflict
from .run_config import OptionError, RunConfig

if TYPE_CHECKING:
    from ...datasets.base import Spec

PREDICTED_SPLITS = ("held_out", "val", "test")
"""Names of the splits that a method predicts, in this order; held_out holds the calibration
samples."""


@dataclass(frozen=True)
class Experiment:
    """The configuration of one method on one dataset with one seed: plain values, nothing loaded.

    method, dataset: entries of the registry        method_args, dataset_args: of their constructors
    levels: noise levels to sweep; None for the method's own
    limit: samples per split at most; None for all. The record is marked as partial
    fraction, contamination: of the training samples, in percent (`TrainingSamples`)
    skip_reason: why the experiment cannot be run; empty if it can
    implicit_baseline: whether it is a baseline that nobody asked for: where it does not fit the
        data it is left out
    tuning: how its arguments were chosen, as the record has it; None where nobody tuned them
    skip_recorded: whether an earlier record of the same inputs is taken as it is, so that nothing
        is computed where the store has lost what it was made from

    >>> from adbench.benchmark.registry.registry import Registry
    >>> config = RunConfig(["dae"], ["phantom"], "tiny", seeds=(3,), baselines=False)
    >>> (experiment,) = expand_matrix(config, Registry.read())
    >>> experiment.name.rpartition(".")[0]
    'phantom.dae.tiny.s3'
    """

    method: Entry
    method_args: Mapping[str, Any]
    dataset: Entry
    dataset_args: Mapping[str, Any]
    seed: int
    profile: str
    protocol: Protocol
    levels: tuple[int, ...] | None = None
    limit: int | None = None
    skip_reason: str = ""
    implicit_baseline: bool = False
    tuning: Mapping[str, Any] | None = None
    fraction: float = 100.0
    contamination: float = 0.0
    skip_recorded: bool = False

    @property
    def name(self) -> str:
        """The name of its files: readable, equal for a repeated command, and different for other
        settings (by a hash of them)."""
        settings: list[Any] = [
            self.method_args,
            self.dataset_args,
            self.protocol.as_dict(),
            self.levels,
        ]
        settings.append(self.limit)
        if (self.fraction, self.contamination) != (100, 0):
            settings += [self.fraction, self.contamination]
        digest = hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:8]
        dataset = self.dataset.name.replace("/", "-")
        method = self.method.name.replace(":", "-")
        return f"{dataset}.{method}.{self.profile}.s{self.seed}.{digest}"


def expand_matrix(config: RunConfig, registry: Registry) -> list[Experiment]:
    """List one experiment for each dataset, method and seed, the cheap baselines first.

    Raises RegistryError on a name or an argument that does not exist.

    >>> from adbench.benchmark.experiments.matrix import expand_matrix
    >>> from adbench.benchmark.experiments.run_config import RunConfig
    >>> from adbench.benchmark.registry.registry import Registry
    >>> config = RunConfig(["anoddpm"], ["phantom"], "tiny", seeds=(0, 1), baselines=False)
    >>> [(e.method.name, e.dataset.name, e.seed) for e in expand_matrix(config, Registry.read())]
    [('anoddpm', 'phantom', 0), ('anoddpm', 'phantom', 1)]
    """
    names = [*config.methods]
    if config.baselines:
        names = [n for n, e in registry.methods.items() if e.baseline and n not in names] + names
    overrides = resolve_overrides(config.settings, names, config.datasets, registry)
    if config.profile is None:
        raise OptionError("a config is resolved before it is expanded: it names no profile")
    profile = registry.profile(config.profile)
    entries = [registry.method(name) for name in dict.fromkeys(names)]
    for entry in entries:
        loaded_code_digest(entry.load())  # as it is now, whatever is edited during the run
    experiments = []
    for dataset_name in config.datasets:
        dataset = registry.dataset(dataset_name)
        dataset_args = dataset.arguments(config.profile, overrides.get(dataset_name, {}))
        spec = _check_together(dataset, dataset_args)
        for method in entries:
            method_args = method.arguments(config.profile, overrides.get(method.name, {}))
            levels = tuple(config.levels or ()) or profile.levels(method.name)
            if conflict := argument_conflict(method, method_args, config.profile, spec, levels):
                raise RegistryError(
                    f"{method.title}: {_conflict_text(overrides.get(method.name, {}), conflict)} "
                    f"(adbench info {method.name})"
                )
            experiments += [
                Experiment(
                    method,
                    method_args,
                    dataset,
                    dataset_args,
                    seed,
                    config.profile,
                    config.protocol,
                    levels=levels,
                    limit=config.limit,
                    implicit_baseline=method.name not in config.methods,
                    fraction=fraction,
                    contamination=contamination,
                    skip_recorded=config.skip_recorded,
                )
                for seed in config.seeds
                for fraction in config.fraction
                for contamination in config.contaminate
            ]
    return experiments


def resolve_overrides(
    overrides: Mapping[str, Mapping[str, Any]],
    methods: Sequence[str],
    datasets: Sequence[str],
    registry: Registry,
) -> dict[str, dict[str, Any]]:
    """Assign overridden arguments to the methods and datasets of a run, by their names.

    "mvtec" stands for "mvtec/hazelnut" too; the longer name wins. "" stands for the one method or
    dataset that takes the argument.

    overrides: arguments by such a name, as `parse_settings` returns
    methods, datasets: names of the run

    Raises RegistryError on a name that is not part of the run, an argument that nothing takes, and
    one without a name that several take.

    >>> from adbench.benchmark.experiments.matrix import resolve_overrides
    >>> from adbench.benchmark.registry.registry import Registry
    >>> overrides = {"": {"shape": [8, 8]}, "mvtec": {"seed": 4}}
    >>> resolve_overrides(overrides, [], ["mvtec/hazelnut", "phantom"], Registry.read())
    {'mvtec/hazelnut': {'seed': 4}, 'phantom': {'shape': [8, 8]}}
    """
    entries = {name: registry.method(name) for name in methods}
    entries |= {name: registry.dataset(name) for name in datasets}
    resolved: dict[str, dict[str, Any]] = {name: {} for name in entries}
    for target in sorted(overrides, key=len):  # the more precise name wins
        named = [name for name in entries if target in (name, name.partition("/")[0])]
        if target and not named:
            raise RegistryError(f"--set names {target!r}, which is not part of this run")
        for key, value in overrides[target].items():
            takers = named or [n for n, entry in entries.items() if key in entry.parameters()]
            if not takers:
                raise RegistryError(f"--set {key}=…: nothing in this run takes {key!r}")
            homes = list(dict.fromkeys(name.partition("/")[0] for name in takers))
            if not target and len(homes) > 1:
                choices = ", ".join(f"{home}.{key}" for home in homes)
                raise RegistryError(
                    f"--set {key}=…: {len(homes)} of this run take {key!r}; name one or more of "
                    f"{choices}"
                )
            for name in takers:
                resolved[name][key] = value
    return resolved


def _conflict_text(settings: Mapping[str, Any], conflict: str) -> str:
    """Which settings do not go together, and why; a reason that begins with them says so itself."""
    texts = [f"{name}={value}" for name, value in settings.items()]
    if not texts or (len(texts) == 1 and conflict.startswith(texts[0])):
        return conflict
    others = "the other arguments or the samples"
    if len(texts) == 1:
        return f"{texts[0]} does not go together with {others}: {conflict}"
    return f"{' '.join(texts)} do not go together with each other, {others}: {conflict}"


def _check_together(dataset: Entry, arguments: Mapping[str, Any]) -> Spec | None:
    """Raise RegistryError where a dataset refuses arguments that are valid each by itself.

    Its constructor reads no file. Returns the form of its samples, None where its files tell.
    """
    from ...datasets.base import DataError  # here: torch comes with it

    try:
        return getattr(dataset.build(**arguments), "spec", None)
    except DataError:
        raise
    except ValueError as error:
        raise RegistryError(f"{dataset.title}: {error}") from error


def sweep_levels(experiment: Experiment, method_class: Any) -> list[int]:
    """Return the noise levels that an experiment sweeps, ascending.

    Those of the experiment, and always the published one; or the method's own. A method without a
    noise level has level 0 alone.

    >>> from types import SimpleNamespace
    >>> method_class = SimpleNamespace(levels=(50, 250, 500), published=250)
    >>> sweep_levels(SimpleNamespace(levels=(400, 100)), method_class)
    [100, 250, 400]
    >>> sweep_levels(SimpleNamespace(levels=None), method_class)
    [50, 250, 500]
    """
    if experiment.levels is None or tuple(method_class.levels) == (0,):
        return sorted(method_class.levels)
    return sorted({*experiment.levels, method_class.published})


def content_arguments(experiment: Experiment, ignored: frozenset[str]) -> dict[str, Any]:
    """Return the arguments of an experiment's dataset that say what it holds, not where it lies.

    ignored: names of the others

    >>> from types import SimpleNamespace
    >>> experiment = SimpleNamespace(dataset_args={"root": "/data", "seed": 0})
    >>> content_arguments(experiment, frozenset({"root"}))
    {'seed': 0}
    """
    return {k: v for k, v in experiment.dataset_args.items() if k not in ignored}
