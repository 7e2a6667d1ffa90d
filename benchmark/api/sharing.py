"""Sharing results: merging folders of several machines, publishing a leaderboard and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.run_config import OptionError, RunConfig
from ..registry.registry import Registry, RegistryError

if TYPE_CHECKING:
    from ..leaderboard.records import Record
    from ..sharing.merge import MergeReport
    from ..sharing.shared_weights import WeightsEntry
    from ..store.artifact_store import Store


@dataclass(frozen=True)
class Publication:
    """What was published, or would be.

    files: bytes of every file by its path in the site
    folder: where the site lies; None where it was only to be uploaded
    url: of the upload; None where nothing was uploaded
    notes: a line for everything that was left out

    >>> Publication({"index.html": 12}).url is None
    True
    """

    files: Mapping[str, int]
    folder: Path | None = None
    url: str | None = None
    notes: Sequence[str] = ()


def merge(
    folders: Sequence[str | Path], to: str | Path, *, separate_boards: bool = False
) -> MergeReport:
    """Merge folders of results into one: see `sharing.merge.merge_results`.

    folders: of several machines      to: a new folder, or one of them
    separate_boards: accept folders that share no leaderboard of a dataset
    Raises MergeError, with all that does not belong together, before anything is written.

    >>> import adbench
    >>> adbench.merge(["no/such/folder"], "all")
    Traceback (most recent call last):
    adbench.benchmark.leaderboard.records.ReportError: no records in no/such/folder/records: ...
    """
    from ..sharing.merge import merge_results

    return merge_results(folders, to, separate_boards=separate_boards)


def publish(
    folder: str | Path = "results",
    to: str | Path | None = None,
    *,
    hub: str | None = None,
    weights: str | Sequence[str] = (),
    datasets: str | Sequence[str] = (),
    samples: bool = False,
    figures: bool = False,
    upload: bool = False,
    private: bool = True,
    store: str | Path | None = None,
    data: str | Path | None = None,
    registry: Sequence[str | Path] = (),
) -> Publication:
    """Write the leaderboard of a folder as a static site, and upload it if asked for.

    Records lose logs, absolute paths and names of this user and host; nothing else of the folder is
    taken along. Without `upload` the publication says what would be uploaded, and nothing is.

    folder: of results            to: the site's folder: new, empty, or an earlier site
    hub: ORG/REPO of the Hugging Face Hub; a model card is added
    weights: methods, or beginnings of records' names, whose trained networks are published too
    datasets: whose records are published; all if none is named
    samples: results of single samples too        figures: all charts as SVG, PDF and PNG too
    upload: upload to `hub`                        private: of a repository that is created
    store: of the weights        data: the data's folder, as for `adbench.load`
    registry: further registry files
    Raises PublishError and ReportError on what cannot be published, HubError where the hub cannot
    be reached, OptionError on arguments.

    >>> publish("results")
    Traceback (most recent call last):
    adbench.benchmark.experiments.run_config.OptionError: name where to: a folder (--to) or ...
    """
    from ..experiments.run_config import parse_names
    from ..sharing import hub as hub_
    from ..sharing.site import build_site, finish_site, site_files, staging_site
    from ..store.atomic_files import atomic_write

    if to is None and hub is None:
        raise OptionError("name where to: a folder (--to) or a repository (--hub ORG/REPO)")
    if hub is not None:
        hub_.require_repository(hub)
    results, names = Path(folder), Registry.read(*map(Path, registry))
    with staging_site(None if to is None else Path(to)) as staging:
        records, notes = build_site(
            results, staging, datasets=parse_names(datasets), samples=samples, figures=figures
        )
        entries = [
            _export(results, record, staging, names, store, data, registry)
            for name in parse_names(weights)
            for record in _records_of(records, name)
        ]
        listed = [entry.as_dict() for entry in entries]
        if hub is not None:
            from ..sharing.model_card import model_card

            card = model_card(records, listed, _facts(records, registry), hub)
            atomic_write(staging / "README.md", card)
        finish_site(staging, listed, [results, Path.home(), Path.cwd()])
        files = {name: (staging / name).stat().st_size for name in site_files(staging)}
        url = None
        if upload and hub is not None:
            url = hub_.upload_site(staging, hub, list(files), private=private)
    return Publication(files, None if to is None else Path(to), url, notes)


def fetch_methods(config: RunConfig, store: Store) -> tuple[RunConfig, list[str]]:
    """A config whose `hub:` methods are the weights that they name, taken into the store; and a
    note on each.

    Their arguments are those that the weights were trained with, under the config's own.
    Raises HubError, CheckpointError and RegistryError on weights that cannot be had or do not fit.

    >>> from adbench.benchmark.api.storage import open_store
    >>> fetch_methods(RunConfig(["pca"]), open_store("store"))[1]
    []
    """
    from ..sharing.hub import PREFIX

    sources = [name for name in config.methods if name.startswith(PREFIX)]
    if not sources:
        return config, []
    registry = Registry.read(*config.registry)
    names, notes = dict[str, str](), list[str]()
    settings = {name: dict(values) for name, values in config.settings.items()}
    for source in sources:
        entry, name = _fetch(source, store, registry)
        names[source] = name
        unnamed = settings.get("", {})
        trained = {key: value for key, value in entry.args.items() if key not in unnamed}
        settings[name] = trained | settings.get(name, {}) | settings.pop(source, {})
        notes.append(f"{source}: {name}, SHA-256 {entry.sha256[:12]}…")
    methods = tuple(names.get(name, name) for name in config.methods)
    return replace(config, methods=methods, settings=settings), notes


def _fetch(text: str, store: Store, registry: Registry) -> tuple[WeightsEntry, str]:
    """The entry of weights that were fetched into the store, and the METHOD@NAME that has them."""
    from ..sharing import shared_weights
    from ..sharing.hub import fetch_files, fetch_index, parse_source

    source = parse_source(text)
    index = shared_weights.read_index(fetch_index(source))
    entry = shared_weights.select_weights(index, source.name, text.partition("#")[0])
    folder = fetch_files(source, [entry.file, entry.record])
    place = Path(source.place).name if source.is_local else source.place.replace("/", ".")
    name = f"{place[:50]}-{entry.sha256[:8]}".replace(" ", "-")
    shared_weights.import_shared(entry, folder, name, store, registry)
    return entry, f"{entry.method}@{name}"


def _records_of(records: Sequence[Record], name: str) -> list[Record]:
    """The records with results of a method, or whose names begin so. Raises PublishError."""
    from ..sharing.site import PublishError

    done = [record for record in records if record["status"] == "ok"]
    fitting = [
        record
        for record in done
        if name == record["method"]["name"] or str(record["file"]).startswith(name)
    ]
    if not fitting:
        names = ", ".join(sorted({record["method"]["name"] for record in done})) or "none"
        raise PublishError(
            f"--weights names {name!r}, of which there is no result; there are {names}"
        )
    return fitting


def _export(
    results: Path,
    record: Record,
    staging: Path,
    names: Registry,
    store: str | Path | None,
    data: str | Path | None,
    registry: Sequence[str | Path],
) -> WeightsEntry:
    from ..leaderboard.records import read_record
    from ..sharing.shared_weights import export_weights
    from .load import load
    from .storage import open_store

    path = results / "records" / str(record["file"])
    spec = load(path, store=store, data=data, registry=registry, device="cpu").spec
    original = read_record(path) | {"file": record["file"]}
    return export_weights(original, spec, open_store(store), names, staging)


def _facts(records: Sequence[Record], registry: Sequence[str | Path]) -> dict[str, dict[str, Any]]:
    """What `adbench info` says of the methods and datasets of records, by name."""
    from .catalogue import describe

    names = {record[kind]["name"] for record in records for kind in ("method", "dataset")}
    facts: dict[str, dict[str, Any]] = {}
    for name in sorted(names):
        with suppress(RegistryError):  # of a method that was brought in, or of a plugin
            facts[name] = describe(name.partition("@")[0], registry=registry)
    return facts
