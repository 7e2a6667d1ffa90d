"""Maps and scores of other programs on the leaderboard, and maps of runs for other programs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.run_config import OptionError, RunConfig
from .storage import open_store

if TYPE_CHECKING:
    from ...datasets.base import Dataset
    from ..evaluation.protocol import Protocol
    from ..registry.registry import Registry
    from .results import Results

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


def evaluate_maps(
    maps: str | Path,
    dataset: str,
    *,
    name: str | None = None,
    scores: str | Path | None = None,
    seed: int = 0,
    published_level: int | None = None,
    out: str | Path = "results",
    data: str | Path | None = None,
    profile: str | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    limit: int | None = None,
    protocol: Protocol | str | None = None,
    registry: Sequence[str | Path] = (),
    progress: Any = None,
    **rules: Any,
) -> Results:
    """Evaluate maps or scores of another program, and return the result, which is on the board.

    Files are matched to samples by key: KEY.npy, .tif, .png or .nii.gz (`/` makes folders), arrays
    of an HDF5 file, or rows of a table (key,score). All test samples need one. Results of the
    validation samples choose level and threshold as for a run, those of the calibration samples the
    threshold `healthy@5%`; without them there is no threshold. `export_maps` writes this layout.

    maps: a folder, a file .h5, or a table .csv of scores alone
    name: of the method on the leaderboard; without one that of the folder or file
    scores: a table of the method's own scores; without one scores.csv of the folder, if it has one
    seed: of the training, to tell several apart
    published_level: the paper's level, of maps at several (level-100/KEY.npy)
    data, profile, settings, limit, protocol, registry: of the dataset and the protocol, as for
        `run`; and its parts threshold, level_rule, reducer and post
    progress: called with (task, done, total) while the dataset is prepared
    Raises DataError with every map that is missing, left over, of a wrong shape or not finite.

    >>> import numpy as np, tempfile, adbench
    >>> settings = {"phantom.shape": [16], "phantom.test": 8}
    >>> data = adbench.load_dataset("phantom", settings=settings)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for sample in data.test():
    ...         path = Path(folder, "maps", f"{sample.key}.npy")
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         np.save(path, sample.mask)
    ...     results = adbench.evaluate_maps(f"{folder}/maps", "phantom", name="perfect",
    ...                                     profile="tiny", settings=settings, out=folder)
    ...     results.to_frame()[["method", "external", "image_auroc", "pixel_ap"]].values.tolist()
    [['perfect', True, 1.0, 1.0]]
    """
    from ..experiments.run_config import default_profile
    from ..external.evaluate_results import ExternalMethod, evaluate_results, external_experiment
    from ..external.map_files import find_results
    from ..registry.registry import Registry
    from ..store.atomic_files import check_folder
    from .results import Results

    maps, out = Path(maps), Path(out)
    name = maps.name.partition(".")[0] if name is None else name
    protocols = {} if protocol is None else {"protocol": protocol}
    config = RunConfig.from_options(
        datasets=[dataset], settings=settings, data=data, limit=limit, **protocols, **rules
    )
    entries = Registry.read(*map(Path, registry))
    _check_name(name, entries)
    check_folder(out, "--out")
    results = find_results(maps, None if scores is None else Path(scores))
    if profile is None:
        import torch

        profile = default_profile("cuda" if torch.cuda.is_available() else "cpu")
    config = replace(config, profile=profile, methods=())
    entry, arguments = _dataset_arguments(config, entries)
    prepared: Dataset = entry.build(**arguments)
    prepared.prepare(*([] if progress is None else [progress]))
    method = ExternalMethod(name, seed, published_level)
    experiment = external_experiment(method, entry, arguments, config.protocol, config.limit)
    evaluate_results(results, method, prepared, experiment, out)
    return Results(out, [experiment.name])


def export_maps(
    record: str | Path,
    to: str | Path,
    *,
    format: str = "npy",
    all_levels: bool = False,
    store: str | Path | None = None,
    data: str | Path | None = None,
    registry: Sequence[str | Path] = (),
) -> list[Path]:
    """Write the maps of a record's calibration, validation and test samples; return the paths.

    record: the file, such as results/records/X.json
    to: the folder; its layout is the one that `evaluate_maps` reads
    format: npy, hdf5, nifti (volumes, and slices stacked), tiff (float), or png (16 bits, of which
        white is the highest value of all maps; the others hold maps to the bit)
    all_levels: of every noise level, in level-100/ and so on; else of the chosen one
    store, data, registry: as for `load`
    Raises ExportError on a record without maps in the store, DataError where the data have changed.

    >>> from tempfile import TemporaryDirectory
    >>> import adbench
    >>> sizes = {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 1}
    >>> with TemporaryDirectory() as folder:
    ...     results = adbench.run("pca", "phantom", settings={"phantom": sizes}, profile="check",
    ...                           out=folder, store=f"{folder}/store", executor="inline",
    ...                           baselines=False, progress=False)
    ...     maps = Path(folder, "maps")
    ...     paths = adbench.export_maps(results.paths()[0], maps, store=f"{folder}/store")
    ...     [path.relative_to(maps).as_posix() for path in paths if "test" in str(path)]
    ['test/00000.npy', 'test-abnormal/00000.npy']
    """
    from ..external.export_maps import ExportError, export_results
    from ..leaderboard.records import read_record
    from ..registry.registry import Registry

    try:
        facts = read_record(Path(record))
    except (ValueError, OSError) as error:
        raise ExportError(f"{record} is no record: {error}") from None
    if facts["status"] != "ok":
        raise ExportError(f"{record} is of a run that is {facts['status']}: {facts['reason']}")
    if facts.get("external"):
        raise ExportError(f"{record} is of maps that another program made; they are not stored")
    entry = Registry.read(*map(Path, registry)).dataset(facts["dataset"]["name"])
    root = {"root": str(data)} if data is not None and "root" in entry.parameters() else {}
    dataset: Dataset = entry.build(**{**facts["dataset"]["args"], **root})
    dataset.prepare()
    return export_results(
        facts, dataset, open_store(store), Path(to), format=format, all_levels=all_levels
    )


def _dataset_arguments(config: RunConfig, registry: Registry) -> tuple[Any, dict[str, Any]]:
    """The entry of the config's dataset, and its arguments as `run` would resolve them."""
    from ..experiments.matrix import resolve_overrides

    (name,) = config.datasets
    entry = registry.dataset(name)
    settings = {target: dict(values) for target, values in config.settings.items()}
    if config.data is not None and "root" in entry.parameters():
        settings.setdefault(name, {})["root"] = str(config.data)
    overrides = resolve_overrides(settings, [], [name], registry)
    return entry, entry.arguments(config.profile, overrides.get(name, {}))


def _check_name(name: str, registry: Registry) -> None:
    if not NAME.fullmatch(name):
        raise OptionError(
            f"--name takes letters, digits, '.', '-', '_' and '+', 64 at most, not {name!r}"
        )
    if name in registry.methods:
        raise OptionError(f"{name!r} is a method of adbench: --name {name}-external, for example")
