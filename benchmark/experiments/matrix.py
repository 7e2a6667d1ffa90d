"""The matrix: which cells there are, what each depends on, and what of it is there already."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..evaluation.protocol import Protocol
from ..registry.code_fingerprint import loaded_code_digest
from ..registry.registry import Entry, Registry, RegistryError
from ..store.artifact_store import canonical_json
from .run_config import OptionError, RunConfig

if TYPE_CHECKING:
    from ...datasets.base import Dataset

PREDICTED_SPLITS = ("held_out", "val", "test")
"""What a method looks at, in this order."""


@dataclass(frozen=True)
class Experiment:
    """One method on one dataset with one seed: a training, a look at every level, a judgement.

    levels: to sweep, None for the method's own. limit: of samples per split; stamped as partial.
    skip_reason: why there is nothing to do.
    implicit_baseline: a baseline that nobody asked for: where it does not fit the data, it stays
    away
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

    @property
    def name(self) -> str:
        """Of its files: readable, the same for a repeated command, another for other settings."""
        what = [self.method_args, self.dataset_args, self.protocol.as_dict(), self.levels]
        digest = hashlib.sha256(canonical_json([*what, self.limit]).encode()).hexdigest()[:8]
        dataset = self.dataset.name.replace("/", "-")
        return f"{dataset}.{self.method.name}.{self.profile}.s{self.seed}.{digest}"


def expand_matrix(config: RunConfig, registry: Registry) -> list[Experiment]:
    """One cell per dataset, method and seed, the cheap baselines first.

    Raises RegistryError on a name or an argument that is not there.
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
        loaded_code_digest(entry.load())  # as it is now, whatever is edited while the cells run
    made = []
    for dataset_name in config.datasets:
        dataset = registry.dataset(dataset_name)
        data_args = dataset.arguments(config.profile, overrides.get(dataset_name, {}))
        for method in entries:
            args = method.arguments(config.profile, overrides.get(method.name, {}))
            levels = config.levels or profile.levels(method.name)
            for seed in config.seeds:
                made.append(
                    Experiment(
                        method,
                        args,
                        dataset,
                        data_args,
                        seed,
                        config.profile,
                        config.protocol,
                        levels,
                        config.limit,
                        implicit_baseline=method.name not in config.methods,
                    )
                )
    return made


def resolve_overrides(
    overrides: Mapping[str, Mapping[str, Any]],
    methods: Sequence[str],
    datasets: Sequence[str],
    registry: Registry,
) -> dict[str, dict[str, Any]]:
    """The arguments asked for, by the names of this run. "mvtec" speaks for "mvtec/hazelnut", and
    no name for everything that takes the argument.

    Raises RegistryError on a name that is not part of the run, or an argument nothing takes.
    """
    entries = {name: registry.method(name) for name in methods}
    entries |= {name: registry.dataset(name) for name in datasets}
    made: dict[str, dict[str, Any]] = {name: {} for name in entries}
    for given in sorted(overrides, key=len):  # what is said more precisely wins
        mine = [name for name in entries if given in (name, name.partition("/")[0])]
        if given and not mine:
            raise RegistryError(f"--set names {given!r}, which is not part of this run")
        for key, value in overrides[given].items():
            takers = mine or [n for n, entry in entries.items() if key in entry.parameters()]
            if not takers:
                raise RegistryError(f"--set {key}=…: nothing in this run takes {key!r}")
            for name in takers:
                made[name][key] = value
    return made


def data_key_inputs(
    dataset: Dataset, experiment: Experiment, split_names: Sequence[str], labelled: bool = False
) -> dict[str, Any]:
    """What the named splits hold: the dataset's arguments and every sample, by content."""
    args = {k: v for k, v in experiment.dataset_args.items() if k not in dataset.cache_key_ignores}
    return {
        "dataset": experiment.dataset.name,
        "args": args,
        "samples": {
            part: split_digest(dataset, part, experiment.limit, labelled and part == "train")[0]
            for part in split_names
        },
    }


def split_digest(
    dataset: Dataset, split_name: str, limit: int | None, labelled: bool = False
) -> tuple[str, int]:
    """A digest of every sample in a split, and how many there are. A dataset that is ready does
    not change: what was found is kept beside it, for all methods, seeds and protocols."""
    from ...datasets.base import manifest

    known: dict[Any, tuple[str, int]] = vars(dataset).setdefault("_described", {})
    which = split_name, limit, labelled
    if which not in known:
        entries = manifest(load_split(dataset, split_name, limit, labelled))
        digest = hashlib.sha256(canonical_json(entries).encode()).hexdigest()[:32]
        known[which] = digest, len(entries)
    return known[which]


def load_split(dataset: Dataset, split_name: str, limit: int | None, labelled: bool = False) -> Any:
    """A split by name, `limit` of its samples if limited; of tiled images, as many whole ones.
    `pseudo` is what is held out, with made-up lesions."""
    if split_name == "pseudo":
        from ..evaluation.synthetic_anomalies import SyntheticAnomalies

        return SyntheticAnomalies(load_split(dataset, "held_out", limit))
    split = (
        dataset.train(labelled=labelled) if split_name == "train" else dataset.get_split(split_name)
    )
    if limit is None or len(split) <= limit:
        return split
    if split[0].tile is None:
        step = len(split) / limit  # spread, so that both kinds stay in
        return [split[int(i * step)] for i in range(limit)]
    tiles = [sample.tile for sample in map(split.__getitem__, range(len(split)))]
    wholes = list(dict.fromkeys(tile.image_key for tile in tiles if tile))
    kept = {wholes[int(i * max(1, len(wholes) / limit))] for i in range(min(limit, len(wholes)))}
    return [split[i] for i, tile in enumerate(tiles) if tile and tile.image_key in kept]


def checkpoint_key_inputs(
    experiment: Experiment, dataset: Dataset, method_class: Any, code: str, dtype: str
) -> dict[str, Any]:
    """Everything a checkpoint depends on."""
    train_args = {
        k: v for k, v in experiment.method_args.items() if k not in method_class.inference
    }
    labelled = method_class.supervision == "image-labels"
    return {
        "data": data_key_inputs(dataset, experiment, ["train", "held_out"], labelled),
        "method": experiment.method.class_path,
        "supervision": method_class.supervision,
        "args": train_args,
        "seed": experiment.seed,
        "numerics": dtype,
        "code": code,
    }


def predicted_splits(experiment: Experiment) -> tuple[str, ...]:
    """What a method looks at in a experiment: made-up lesions too, where the protocol chooses by
    them."""
    return (
        (*PREDICTED_SPLITS, "pseudo") if experiment.protocol.level == "pseudo" else PREDICTED_SPLITS
    )


def maps_key_inputs(
    experiment: Experiment,
    dataset: Dataset,
    method_class: Any,
    checkpoint: Mapping[str, Any],
    split_name: str,
) -> dict[str, Any]:
    """Everything the maps of one split depend on."""
    return {
        "train": checkpoint,
        "data": data_key_inputs(dataset, experiment, [split_name]),
        "args": {k: v for k, v in experiment.method_args.items() if k in method_class.inference},
        "levels": sweep_levels(experiment, method_class),
        "part": split_name,
    }


def sweep_levels(experiment: Experiment, method_class: Any) -> list[int]:
    """The levels to sweep: those asked for, the published one always; or the method's own."""
    if experiment.levels is None or tuple(method_class.levels) == (0,):
        return sorted(method_class.levels)
    return sorted({*experiment.levels, method_class.published})
