"""Tuning: arguments of methods chosen on validation or synthetic anomalies, with equal trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Unpack

from ..experiments.run_config import OptionError, RunConfig
from ..registry.imports import did_you_mean
from .run import RunOptions, expand_config, raise_unless_run, request_of, run_config

if TYPE_CHECKING:
    from ...datasets.base import Dataset
    from ...engine.runtime.context import TrainingContext
    from ...engine.runtime.search_space import SearchSpace
    from ..experiments.matrix import Experiment
    from ..scheduling.console import ConsoleReporter
    from ..store.artifact_store import Store
    from ..tuning.search import Search
    from ..tuning.trial import Objective, TrialResult
    from .results import Results

OBJECTIVES = ("auto", "val", "pseudo")


def tune(
    methods: str | Sequence[str] = (),
    datasets: str | Sequence[str] | None = None,
    *,
    trials: int,
    objective: Literal["auto", "val", "pseudo"] = "auto",
    progress: bool = True,
    **options: Unpack[RunOptions],
) -> Results:
    """Tune every method with the same number of trials, run them with what was chosen, and return
    their results.

    A trial trains the method and evaluates it on the validation split, or on synthetic anomalies in
    calibration samples; the test split is seen once, by the run at the end. Trials are kept in the
    store: the same call goes on where it was stopped, with the same trials. Records say how many
    trials there were, what they cost and which values were chosen.

    methods, datasets, options: as of `run`; an argument that is set is not tuned. Trials have the
        first seed; the run at the end has all of them
    trials: of each method on each dataset, the method as it is among them
    objective: `val`, `pseudo`, or `auto`: `val` where it has normal and abnormal samples
    progress: show what is going on
    Raises OptionError on a value and where optuna is missing, and what `run` raises.

    >>> import adbench
    >>> results = adbench.tune(
    ...     "template-z", "phantom", trials=2, limit=8, settings={"shape": [8, 8]}, baselines=False,
    ...     executor="inline", profile="tiny", out="results", store="store", progress=False)
    >>> results.records[0]["tuning"]["trials"]
    2
    """
    from .notebook import make_reporter
    from .results import Results

    reporter = make_reporter(quiet=not progress)
    request = request_of(methods=methods, datasets=datasets, **options)
    for note in request.notes:
        reporter.print_line(note)
    code, experiments = tune_config(
        request.config, reporter, request.parts, trials=trials, objective=objective
    )
    raise_unless_run(code, reporter.failures)
    return Results(request.config.out, [experiment.name for experiment in experiments])


def tune_config(
    config: RunConfig,
    reporter: ConsoleReporter,
    parts: Sequence[RunConfig] = (),
    *,
    trials: int,
    objective: str = "auto",
) -> tuple[int, list[Experiment]]:
    """Tune the methods of a config and run them; return the exit code and the experiments.

    reporter: what shows the progress        parts: must be none: a folder of results is as it is

    >>> from adbench.benchmark.api.notebook import make_reporter
    >>> tune_config(RunConfig(["pca"]), make_reporter(quiet=True), trials=0)
    Traceback (most recent call last):
    adbench.benchmark.experiments.run_config.OptionError: --trials is at least 1, not 0
    """
    from ...engine.runtime.context import Interrupted
    from ..executors.launch import device_context
    from ..scheduling.exit_codes import STOPPED
    from ..scheduling.signals import stop_on_signals
    from ..store.atomic_files import check_folder
    from .storage import open_store

    _check(config, parts, trials, objective)
    check_folder(config.out, "--out")
    context = replace(
        device_context(config.device, config.dtype),
        checkpoint_interval=config.checkpoint_interval,
        workers=config.workers,
        micro=config.micro,
        compile=config.compile,
    )
    if context.team.size > 1:
        raise OptionError("tuning is of one process: start it without torchrun")
    store = open_store(config.store)
    store.register_results(config.out)
    try:
        with stop_on_signals(reporter) as stop:
            experiments = _tune_all(
                config, store, replace(context, stop=stop), reporter, trials, objective
            )
    except Interrupted:
        return STOPPED, []
    return run_config(config, reporter, experiments=experiments)


def _check(config: RunConfig, parts: Sequence[RunConfig], trials: int, objective: str) -> None:
    if parts:
        raise OptionError("a folder of results (--like) is repeated as it is, not tuned")
    if trials < 1:
        raise OptionError(f"--trials is at least 1, not {trials}")
    if objective not in OBJECTIVES:
        hint = did_you_mean(objective, OBJECTIVES)
        raise OptionError(
            f"--objective is {', '.join(OBJECTIVES)}, not {objective!r}{hint.rstrip('.')}"
        )
    if config.protocol.level == "oracle":
        raise OptionError("level rule 'oracle' looks at test, and nothing is tuned on that")


def _tune_all(
    config: RunConfig,
    store: Store,
    context: TrainingContext,
    reporter: ConsoleReporter,
    trials: int,
    objective: str,
) -> list[Experiment]:
    """The experiments of a config with the arguments that were chosen for them."""
    from ..executors.launch import prepare_dataset
    from ..experiments.matrix import resolve_overrides
    from ..registry.registry import Registry
    from ..scheduling.executor import group_by_dataset
    from ..scheduling.worker import incompatibility

    every = expand_config(config, (), context.device)
    names = list(dict.fromkeys(experiment.method.name for experiment in every))
    fixed = resolve_overrides(
        config.settings, names, config.datasets, Registry.read(*config.registry)
    )
    tuned: list[Experiment] = []
    for _, group in group_by_dataset(every):
        dataset = prepare_dataset(group[0], reporter, context.stop)
        tuned_on = _objective(objective, dataset)
        for name in dict.fromkeys(experiment.method.name for experiment in group):
            own = [experiment for experiment in group if experiment.method.name == name]
            if incompatibility(own[0], dataset):
                tuned += own  # the run says why
                continue
            chosen, facts = _tune_one(
                own[0], dataset, store, context, reporter, trials, tuned_on, fixed[name]
            )
            tuned += [
                replace(each, method_args={**each.method_args, **chosen}, tuning=facts)
                for each in own
            ]
    return tuned


def _tune_one(
    experiment: Experiment,
    dataset: Dataset,
    store: Store,
    context: TrainingContext,
    reporter: ConsoleReporter,
    trials: int,
    objective: Objective,
    fixed: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values chosen for a method, and what its record says of the tuning."""
    from ..scheduling.events import progress_event
    from ..tuning.search import Search, search, search_seed
    from ..tuning.trial import run_trial

    method, data = experiment.method, experiment.dataset.name
    space = _space(experiment, fixed)
    title = f"{method.name} on {data}"
    if not space:
        why = "declares no search space" if not fixed else "has no argument left to search"
        reporter.print_line(f"{title}: {why}; it runs as it is")
        return {}, _facts(Search(), space, objective, experiment.seed)

    def arguments(values: Mapping[str, Any]) -> dict[str, Any]:
        return {**experiment.method_args, **values}

    def log(event: str, facts: Mapping[str, Any]) -> None:
        reporter.on_progress(title, progress_event(event, facts))

    def run(values: Mapping[str, Any]) -> TrialResult:
        tried = replace(experiment, method_args=arguments(values))
        return run_trial(tried, dataset, store, replace(context, on_event=log), objective)

    def report(number: int, values: Mapping[str, Any], result: TrialResult) -> None:
        shown = ", ".join(f"{k}={_short(v)}" for k, v in values.items()) or "as it is"
        outcome = f"failed: {result.reason or 'the metric is undefined'}"
        if result.value is not None:
            outcome = f"{objective} {result.metric} {result.value:.4f}"
        reporter.print_line(f"{title}  trial {number}/{trials}  {outcome}  ({shown})")

    defaults = {name: experiment.method_args[name] for name in space}
    seed = search_seed("tune", method.name, data, experiment.seed)
    outcome = search(space, defaults, trials, seed, run, report)
    if outcome.value is None:
        reporter.print_line(f"{title}: every trial failed; it runs as it is")
    return outcome.chosen, _facts(outcome, space, objective, experiment.seed)


def _space(experiment: Experiment, fixed: Mapping[str, Any]) -> SearchSpace:
    """What is searched of a method: what it declares and the user did not set. Of imported weights,
    only what changes no training."""
    from ...engine.runtime.search_space import SearchSpace

    cls = experiment.method.load()
    free = {name: part for name, part in cls.search_space.items() if name not in fixed}
    if experiment.method.weights:
        free = {name: part for name, part in free.items() if name in cls.inference}
    return SearchSpace(**free)


def _objective(objective: str, dataset: Dataset) -> Objective:
    """Validation, where it has normal and abnormal samples; else synthetic anomalies."""
    if objective == "val" or objective == "pseudo":
        return objective
    split = dataset.get_split("val")
    labels = {bool(split[index].label) for index in range(len(split))}
    return "val" if labels == {True, False} else "pseudo"


def _facts(outcome: Search, space: SearchSpace, objective: Objective, seed: int) -> dict[str, Any]:
    """The field `tuning` of a record. A training that several trials share is counted once."""
    trained = {result.checkpoint: result for result in outcome.results if result.checkpoint}
    return {
        "trials": outcome.trials,
        "objective": objective,
        "metric": next((result.metric for result in outcome.results if result.metric), ""),
        "seed": seed,
        "space": {name: str(part) for name, part in space.items()},
        "chosen": outcome.chosen,
        "value": outcome.value,
        "default": outcome.default,
        "failed": outcome.failed,
        "train_steps": sum(result.train_steps for result in trained.values()),
        "train_seconds": sum(result.train_seconds for result in trained.values()),
    }


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
