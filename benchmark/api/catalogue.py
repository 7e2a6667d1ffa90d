"""What can be run: tables of all methods and datasets, one dataset ready to use, and new names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..registry.registry import Entry, Registry, register_class

if TYPE_CHECKING:
    import pandas

    from ...datasets.base import Dataset, SampleStatistics
    from ...methods.base import Method


def list_methods(*, registry: Sequence[str | Path] = ()) -> pandas.DataFrame:
    """Every method by name: its label, what it does, its paper, and whether it is a baseline.

    registry: further registry files

    >>> list_methods().loc["anoddpm", "label"]
    'AnoDDPM'
    """
    return _frame(
        Registry.read(*map(Path, registry)).methods, ("label", "about", "paper", "baseline")
    )


def list_datasets(*, registry: Sequence[str | Path] = ()) -> pandas.DataFrame:
    """Every dataset by name: its label, what it holds, its licence, and where to get it.

    registry: further registry files

    >>> list_datasets().loc["phantom", "label"]
    'Phantom'
    """
    return _frame(
        Registry.read(*map(Path, registry)).datasets, ("label", "about", "licence", "where")
    )


def describe_profile(name: str, statistics: SampleStatistics | None = None, **options: Any) -> str:
    """What the profile changes of a dataset, in one line; "" for nothing.

    name: such as "mvtec/hazelnut"        statistics: of its samples, if they were read
    options: as of load_dataset

    >>> describe_profile("mvtec", profile="tiny")
    'data: mvtec, size 256 -> 32, gray (profile tiny); --set mvtec.size=256 keeps more'
    """
    from ..experiments.profile_changes import data_line, profile_changes

    entry, profile, overrides = _resolve_dataset(name, **options)
    return data_line(name, profile, profile_changes(entry, profile, overrides), statistics)


def load_dataset(
    name: str,
    *,
    data: str | Path | None = None,
    profile: str | None = None,
    settings: Any = None,
    registry: Sequence[str | Path] | None = None,
) -> Dataset:
    """The dataset as a run with the same options builds it; `prepare()` makes it ready.

    name: such as "brats" or "mvtec/hazelnut"        data: the folder of its files
    profile: None for the default of this machine    settings: its arguments, {"size": 64}
    registry: further registry files
    Raises RegistryError on an unknown name or argument.

    >>> load_dataset("phantom", settings={"shape": [16, 16]}).spec.shape
    (16, 16)
    """
    entry, chosen_profile, arguments = _resolve_dataset(
        name, data=data, profile=profile, settings=settings, registry=registry
    )
    return entry.build(**entry.arguments(chosen_profile, arguments))


def _resolve_dataset(name: str, **options: Any) -> tuple[Entry, str | None, dict[str, Any]]:
    """The entry of a dataset, the name of its profile, and the arguments that the user sets."""
    from ..executors.launch import device_context
    from ..experiments.matrix import resolve_overrides
    from ..experiments.run_config import RunConfig

    config = RunConfig.from_options(datasets=name, **options)
    names = Registry.read(*config.registry)
    config = config.resolve(names, device_context("auto", "auto").device)
    overrides = resolve_overrides(config.settings, [], [name], names)[name]
    return names.dataset(name), config.profile, overrides


def register(
    name: str, cls: type[Method] | type[Dataset], *, label: str = "", about: str = ""
) -> None:
    """Give a method's or dataset's class a name for this process, as a registry file would.

    name: what `run` takes; an earlier registration of it is replaced, a name of adbench is not
    cls: a subclass of Method or Dataset. One that is defined in a notebook is run in the notebook's
        own process (executor `inline`).
    Raises RegistryError on a name that there is already, and on another class.

    >>> import adbench
    >>> from adbench.methods.pca import PCA
    >>> adbench.register("my-pca", PCA, label="My PCA")
    >>> adbench.list_methods().loc["my-pca", "label"]
    'My PCA'
    >>> adbench.register("pca", PCA)
    Traceback (most recent call last):
    adbench...RegistryError: method 'pca' is registered already: choose
    another name
    """
    register_class(name, cls, label=label, about=about)


def describe(name: str, *, registry: Sequence[str | Path] = ()) -> dict[str, Any]:
    """Facts about a method or dataset: about, paper, axes, noise levels, licence, arguments with
    their defaults, the published numbers there are, and its full description.

    Raises RegistryError on an unknown name.

    >>> import adbench
    >>> facts = adbench.describe("anoddpm")
    >>> facts["published level"], facts["learns from"]
    (250, 'normal samples')
    """
    from ..leaderboard.reproduction import published_values
    from ..planning.descriptions import describe_entry as describe_entry

    entry = Registry.read(*map(Path, registry)).entry(name)
    facts = describe_entry(entry)
    if entry.package == "methods":
        facts["published numbers"] = published_values(name) or "none that could be checked"
    return facts


def _frame(entries: dict[str, Entry], columns: Sequence[str]) -> pandas.DataFrame:
    import pandas

    rows = {
        name: [entry.extra.get(column, getattr(entry, column, "")) for column in columns]
        for name, entry in entries.items()
    }
    frame = pandas.DataFrame.from_dict(rows, orient="index", columns=list(columns))
    return frame.rename_axis("name")
