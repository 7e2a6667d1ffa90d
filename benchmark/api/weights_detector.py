"""The detector of weights that were trained elsewhere: a checkpoint file in place of a record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...datasets.base import Dataset, Spec, Split
from ...engine.runtime.context import TrainingContext
from ...methods.base import Method
from ..evaluation.protocol import Protocol
from ..executors.launch import device_context
from ..experiments.fit_predict import load_method
from ..experiments.imported_weights import load_imported_weights
from ..experiments.matrix import Experiment, expand_matrix, resolve_overrides
from ..experiments.pipeline import fit_experiment
from ..experiments.resolve import build_method, resolve
from ..experiments.run_config import RunConfig
from ..registry.entry import Entry
from ..registry.registry import Registry
from ..sharing.imported_weights import import_weights, parts_of, resolve_imported
from ..store.artifact_store import Store
from .detector import Detector, DetectorError
from .storage import open_store


def load_weights(
    files: str | Path | Mapping[str, str | Path],
    method: str,
    *,
    dataset: str | None,
    spec: Spec | None,
    level: int | None,
    profile: str,
    settings: Mapping[str, Any] | Sequence[str],
    key: str | None,
    store: str | Path | None,
    data: str | Path | None,
    registry: Sequence[str | Path],
    device: str,
) -> Detector:
    """Import weights and return their detector, see `adbench.load`.

    Raises DetectorError where neither a dataset nor a spec is named, or both are.

    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> anoddpm = Registry.read().method("anoddpm")
    >>> method = anoddpm.build(Spec(1, (16, 16)), **anoddpm.arguments("check"))
    >>> with TemporaryDirectory() as folder:
    ...     torch.save(method.denoiser.net.state_dict(), f"{folder}/theirs.pt")
    ...     detector = load_weights(
    ...         f"{folder}/theirs.pt", "anoddpm", dataset=None, spec=Spec(1, (16, 16)), level=250,
    ...         profile="check", settings=(), key=None, store=f"{folder}/store", data=None,
    ...         registry=(), device="cpu")
    >>> detector.level, detector.threshold  # nothing was measured that a threshold could come from
    (250, None)
    """
    if (dataset is None) == (spec is None):
        raise DetectorError(
            "weights need samples to be applied to: name a dataset (dataset=), whose normal "
            "samples calibrate the method, or the images' channels and shape (spec=)"
        )
    entries, opened = Registry.read(*map(Path, registry)), open_store(store)
    config = RunConfig.from_options(
        methods=[method], datasets=[dataset] if dataset else [], profile=profile,
        settings=settings, baselines=False, levels=[level] if level else None, data=data,
        registry=registry,
    )  # fmt: skip
    config = config.resolve(entries, device)
    placed = config.settings
    overrides = resolve_overrides(placed, [method], config.datasets, entries).get(method, {})
    prepared = _prepared(config, entries) if spec is None else _NoSamples(spec)
    shape = prepared.spec
    name = _name(files, settings, key)
    import_weights(
        entries, opened, method, parts_of(files), name=name, channels=shape.channels,
        axes=len(shape.shape), profile=profile, settings=overrides, key=key,
    )  # fmt: skip
    imported = f"{method}@{name}"
    entries = resolve_imported(entries, opened, [imported])
    context = device_context(device, config.dtype)
    if spec is None:
        config = replace(config, methods=(imported,), settings=_renamed(placed, method, imported))
        experiment = expand_matrix(config, entries)[-1]
        resolved = resolve(experiment, prepared, context.numerics)
        checkpoint = fit_experiment(resolved, opened, replace(context, seed=experiment.seed))
        fitted = load_method(resolved.build_method(), checkpoint.path, context)
    else:
        experiment = experiment_of(entries.method(imported), overrides, profile, level)
        fitted = _fit_without_samples(experiment, shape, opened, context)
    chosen = level or type(fitted).published
    facts = {
        "method": {"name": imported, "args": dict(experiment.method_args)}, "seed": experiment.seed,
        "level": {"chosen": chosen}, "threshold": {"value": None},
        "keys": {"weights": experiment.method.weights},
    }  # fmt: skip
    if chosen not in type(fitted).levels and tuple(type(fitted).levels) == (0,):
        raise DetectorError(f"{method} has no noise levels: leave level out")
    return Detector(replace(experiment, levels=(chosen,)), prepared, fitted, facts, context)


class _NoSamples(Dataset):
    """Images of a shape, none of which is here."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec

    def train(self, *, labelled: bool = False) -> Split:
        return []

    def calibration(self) -> Split:
        return []

    def val(self) -> Split:
        return []

    def test(self) -> Split:
        return []


def _prepared(config: RunConfig, entries: Registry) -> Dataset:
    experiment = expand_matrix(config, entries)[-1]
    dataset: Dataset = experiment.dataset.build(**experiment.dataset_args)
    dataset.prepare()
    return dataset


def _fit_without_samples(
    experiment: Experiment, spec: Spec, store: Store, context: TrainingContext
) -> Method:
    method = build_method(experiment, spec)
    imported = load_imported_weights(experiment, store, method)
    context = replace(context, seed=experiment.seed, imported=imported)
    try:
        method.fit([], [], context)
    except (ValueError, IndexError, RuntimeError) as error:
        raise DetectorError(
            f"{experiment.method.name} needs more than weights: {error}. Name a dataset "
            "(dataset=) in place of spec="
        ) from error
    context.place(method)
    return method.eval()


def experiment_of(
    entry: Entry, overrides: Mapping[str, Any], profile: str, level: int | None
) -> Experiment:
    """Return the experiment of a method on images that no dataset has.

    >>> entry = Registry.read().method("anoddpm")
    >>> experiment = experiment_of(entry, {"steps": 7}, "check", 250)
    >>> experiment.method_args["steps"], experiment.levels, experiment.dataset.name
    (7, (250,), 'images of a shape')
    """
    nothing = Entry("images of a shape", "datasets", "", "", "")
    return Experiment(
        method=entry, method_args=entry.arguments(profile, overrides), dataset=nothing,
        dataset_args={}, seed=0, profile=profile, protocol=Protocol(),
        levels=(level,) if level else None,
    )  # fmt: skip


def _renamed(
    settings: Mapping[str, Mapping[str, Any]], old: str, new: str
) -> dict[str, Mapping[str, Any]]:
    return {new if name == old else name: values for name, values in settings.items()}


def _name(
    files: str | Path | Mapping[str, str | Path],
    settings: Mapping[str, Any] | Sequence[str],
    key: str | None,
) -> str:
    """A name for the weights in the store, another one for other files or settings."""
    parts = {part: path.resolve() for part, path in parts_of(files).items()}
    facts = [sorted((part, str(path), _age(path)) for part, path in parts.items()), settings, key]
    stem = next(iter(parts.values())).stem
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in stem)
    return f"{safe[:40]}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
