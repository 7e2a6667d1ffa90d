"""Running experiments and previewing what a run would do, from one RunConfig."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from ..experiments.run_config import OptionError, RunConfig
from ..sharing.run_sources import RunRequest, read_request

if TYPE_CHECKING:
    import pandas

    from ..evaluation.protocol import Protocol
    from ..experiments.matrix import Experiment
    from ..scheduling.console import ConsoleReporter
    from .results import Results


class RunOptions(TypedDict, total=False):
    """The options of `run` and `plan` beside methods and datasets, as RunConfig describes them.

    >>> from adbench.benchmark.api.run import RunOptions
    >>> from adbench.benchmark.experiments.run_config import RunConfig
    >>> options: RunOptions = {"levels": "100,250", "seeds": [0, 1]}
    >>> config = RunConfig.from_options(methods="anoddpm", **options)
    >>> config.levels, config.seeds
    ((100, 250), (0, 1))
    """

    study: str | Path | None
    like: str | Path | None
    suite: str | None
    baselines: bool
    settings: Mapping[str, Any] | Sequence[str]
    profile: str | None
    registry: str | Path | Sequence[str | Path]
    data: str | Path | None
    limit: int | None
    fraction: str | float | Sequence[float]
    contaminate: str | float | Sequence[float]
    levels: str | int | Sequence[int] | None
    seeds: str | int | Sequence[int]
    protocol: Protocol | str
    threshold: str
    level_rule: str
    reducer: str
    post: str | Sequence[str]
    budget: int | None
    device: str
    dtype: str
    compile: bool | str
    workers: int | None
    micro: int | None
    checkpoint_interval: float
    skip_recorded: bool
    out: str | Path
    store: str | Path | None
    log: str | Sequence[str]
    tensorboard: str | Path | None
    executor: str
    slots: int | None
    timeout: float | None
    address: str | None
    slurm: str | Sequence[str]


def run(
    methods: str | Sequence[str] = (),
    datasets: str | Sequence[str] | None = None,
    *,
    progress: bool = True,
    **options: Unpack[RunOptions],
) -> Results:
    """Train, predict and evaluate every method on every dataset, and return their results.

    What is stored already is not computed again. A method that fails is a result of status
    `failed`, and the others go on.

    methods, datasets: registry names; all methods and synthbrain if none is named
    progress: show what is going on
    study: among the options, a study file that holds options; like: a folder of results whose
        experiments are repeated. What is given beside either replaces what it holds
    options: as RunConfig describes them: levels, seeds, profile, settings, data, limit, out, store,
        device, dtype, executor, and of the protocol threshold, level_rule, reducer and post
    Raises RegistryError on an unknown name or argument, OptionError and ProtocolError on a value,
    DataError on data that are missing or bad, and KeyboardInterrupt when it is interrupted; each of
    ours has the `exit_code` of the command line.

    >>> from tempfile import TemporaryDirectory
    >>> import adbench
    >>> settings = {"phantom": {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 2}}
    >>> with TemporaryDirectory() as folder:
    ...     results = adbench.run("pca", "phantom", settings=settings, profile="check", out=folder,
    ...                           store=f"{folder}/store", executor="inline", baselines=False,
    ...                           progress=False)
    >>> [(record["method"]["name"], record["status"]) for record in results.records]
    [('pca', 'ok')]
    """
    from .notebook import make_reporter
    from .results import Results

    reporter = make_reporter(quiet=not progress)
    request = request_of(methods=methods, datasets=datasets, **options)
    for note in request.notes:
        reporter.print_line(note)
    config = request.config
    code, experiments = run_config(config, reporter, request.parts)
    raise_unless_run(code, reporter.failures)
    return Results(config.out, [experiment.name for experiment in experiments])


def raise_unless_run(code: int, failures: Mapping[str, str]) -> None:
    """Raise KeyboardInterrupt or DataError for the exit codes that mean them.

    failures: why, by the name of what failed

    >>> raise_unless_run(5, {"prepare brats": "no such folder"})
    Traceback (most recent call last):
    adbench.datasets.base.DataError: data are missing or bad ...
    """
    from ...datasets.base import DataError
    from ..scheduling.exit_codes import NO_DATA, STOPPED

    if code == STOPPED:
        raise KeyboardInterrupt("interrupted with everything kept; the same call goes on")
    if code == NO_DATA:
        raise DataError("data are missing or bad", [f"{k}: {v}" for k, v in failures.items()])


def plan(
    methods: str | Sequence[str] = (),
    datasets: str | Sequence[str] | None = None,
    *,
    measure: bool = False,
    progress: bool = True,
    **options: Unpack[RunOptions],
) -> pandas.DataFrame:
    """What `run` with the same options would do, one row per stage of each experiment.

    Columns: experiment, skip (why it cannot be), stage, state (`cached` or `to do`), why, kind,
    key, seconds, bytes, memory_mb, source. Prepares data, trains nothing.

    measure: run for a moment what nothing stored tells the speed of

    >>> import adbench
    >>> settings = {"phantom": {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 2}}
    >>> frame = adbench.plan("pca", "phantom", settings=settings, profile="check", baselines=False,
    ...                      store="no/such/store", progress=False)
    >>> frame[["stage", "state"]].values.tolist()
    [['train', 'to do'], ['predict calibration', 'to do'], ['predict val', 'to do'], ['predict
    test', 'to do'], ['evaluate', 'to do']]
    """
    import pandas

    from .notebook import make_reporter

    reporter = make_reporter(quiet=not progress)
    request = request_of(methods=methods, datasets=datasets, **options)
    for note in request.notes:
        reporter.print_line(note)
    rows = plan_config(request.config, reporter, request.parts, measure=measure)[0]
    stages = [
        {"experiment": row["experiment"], "skip": row["skip"], **stage}
        for row in rows
        for stage in (row["stages"] or [{}])
    ]
    return pandas.DataFrame(stages)


def request_of(
    *, study: str | Path | None = None, like: str | Path | None = None, **options: Any
) -> RunRequest:
    """What the options of `run` ask for; see `sharing.run_sources.read_request`.

    >>> from adbench.benchmark.api.run import request_of
    >>> request_of(methods="anoddpm", seeds="0,1").config.seeds
    (0, 1)
    """
    from .sharing import fetch_methods
    from .storage import open_store

    store = open_store(options.get("store"))
    request = read_request(options, study=study, like=like, store=store)
    config, notes = fetch_methods(request.config, open_store(request.config.store))
    return replace(request, config=config, notes=[*request.notes, *notes])


def run_config(
    config: RunConfig,
    reporter: ConsoleReporter,
    parts: Sequence[RunConfig] = (),
    experiments: list[Experiment] | None = None,
) -> tuple[int, list[Experiment]]:
    """Run a config; return the exit code and its experiments.

    reporter: what shows the progress
    parts: configs whose experiments are run in place of the config's own
    experiments: those that are run in place of both

    >>> from tempfile import TemporaryDirectory
    >>> from rich.console import Console
    >>> from adbench.benchmark.api.notebook import NotebookReporter
    >>> from adbench.benchmark.api.run import run_config
    >>> from adbench.benchmark.experiments.run_config import RunConfig
    >>> small = {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 2}
    >>> with TemporaryDirectory() as folder:
    ...     config = RunConfig.from_options(
    ...         methods="pca", datasets="phantom", settings={"phantom": small}, profile="check",
    ...         out=folder, store=f"{folder}/store", executor="inline", baselines=False)
    ...     code, experiments = run_config(config, NotebookReporter(Console(quiet=True)))
    >>> code, [experiment.method.name for experiment in experiments]
    (0, ['pca'])
    """
    from ..executors.fork_server import start_early
    from ..store.atomic_files import check_folder
    from ..tracking.tracker import check_loggers

    check_folder(config.out, "--out")
    check_loggers(config.loggers)
    with start_early(config.executor) as fork_server:  # it imports while the registry is read
        from ..executors.launch import run_experiments
        from ..executors.selection import ExecutorSelection
        from .storage import open_store

        selection = ExecutorSelection(config.executor, config.address, config.slurm, config.detach)
        context = selection.device_context(config.device, config.dtype)
        if experiments is None:
            experiments = expand_config(config, parts, context.device)
        if context.team.rank == 0:
            profiles = ", ".join(dict.fromkeys(each.profile for each in experiments))
            reporter.print_line(f"profile {profiles} on {context.device}")
            for line in dict.fromkeys(map(_data_line, experiments)):
                if line:
                    reporter.print_line(line)
        context = replace(
            context,
            checkpoint_interval=config.checkpoint_interval,
            workers=config.workers,
            micro=config.micro,
            compile=config.compile,
        )
        store = open_store(config.store)
        if context.team.size > 1 and any(e.method.weights for e in experiments):
            raise OptionError("imported weights (method@NAME) are loaded by one process alone")
        if context.team.rank == 0:
            store.register_results(config.out)
        if config.detach:
            more = {"loggers": config.loggers, "timeout": config.timeout}
            reporter.print_line(
                selection.submit_detached(experiments, context, store, config.out, **more)
            )
            return 0, experiments
        if _interactive(experiments) and config.executor == "local":
            # no other process can import the class
            selection = replace(selection, executor="inline")
        executor = selection.create_executor(
            context, experiments, config.slots, config.out, fork_server
        )
        code = run_experiments(
            experiments, context, store, config.out, reporter, config.loggers, executor,
            timeout=config.timeout,
        )  # fmt: skip
        return code, experiments


def plan_config(
    config: RunConfig,
    reporter: ConsoleReporter,
    parts: Sequence[RunConfig] = (),
    *,
    measure: bool = False,
) -> tuple[list[dict[str, Any]], Path, str]:
    """What running a config would do: rows of preview_run, the store's folder and the device.

    parts: configs whose experiments are run in place of the config's own

    >>> from rich.console import Console
    >>> from adbench.benchmark.api.notebook import NotebookReporter
    >>> from adbench.benchmark.api.run import plan_config
    >>> from adbench.benchmark.experiments.run_config import RunConfig
    >>> small = {"shape": [16, 16], "train": 4, "held_out": 2, "val": 2, "test": 2}
    >>> config = RunConfig.from_options(
    ...     methods="pca", datasets="phantom", settings={"phantom": small}, profile="check",
    ...     store="no/such/store", device="cpu", baselines=False)
    >>> rows, store, device = plan_config(config, NotebookReporter(Console(quiet=True)))
    >>> [stage["stage"] for stage in rows[0]["stages"]], str(store), device
    (['train', 'predict calibration', 'predict val', 'predict test', 'evaluate'], 'no/such/store',
    'cpu')
    """
    from ..executors.launch import device_context
    from ..planning.preview import preview_run
    from .storage import open_store

    context = device_context(config.device, config.dtype)
    experiments = expand_config(config, parts, context.device)
    store = open_store(config.store)
    rows = preview_run(experiments, context, store, reporter, measure=measure)
    return rows, store.root, context.device


def _data_line(experiment: Experiment) -> str:
    """What the profile changes of an experiment's dataset, in one line; "" for nothing."""
    from ..experiments.profile_changes import data_line

    entry, arguments = experiment.dataset, experiment.dataset_args
    plain, profiled = entry.arguments(None), entry.arguments(experiment.profile)
    changes = {
        name: (plain[name], value)
        for name, value in profiled.items()
        if value != plain[name] and arguments[name] == value
    }
    return data_line(entry.name, experiment.profile, changes)


def _interactive(experiments: Sequence[Experiment]) -> bool:
    """Whether a method or dataset is defined in the script or notebook that runs."""
    targets = [entry.import_path for e in experiments for entry in (e.method, e.dataset)]
    return any(target.startswith("__main__:") for target in targets)


def expand_config(config: RunConfig, parts: Sequence[RunConfig], device: str) -> list[Experiment]:
    """The experiments of a config, or of its parts, each once, with their imported weights.

    device: what `auto` has become, which the default profile depends on

    >>> config = RunConfig.from_options(methods="pca", datasets="phantom", baselines=False)
    >>> [experiment.profile for experiment in expand_config(config, [], "cpu")]
    ['tiny']
    """
    from ..experiments.matrix import expand_matrix
    from ..registry.registry import Registry
    from .storage import open_store

    registry = Registry.read(*config.registry)
    parts = [part.resolve(registry, device) for part in parts or [config]]
    names = [name for part in parts for name in part.methods]
    if any("@" in name for name in names):
        from ..sharing.imported_weights import resolve_imported

        registry = resolve_imported(registry, open_store(config.store), names)
    listed = [experiment for part in parts for experiment in expand_matrix(part, registry)]
    experiments = [*{experiment.name: experiment for experiment in listed}.values()]
    return experiments
