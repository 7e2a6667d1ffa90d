"""What predicting and evaluating cost on this machine, measured without any training."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..experiments.run_config import OptionError, RunConfig
from .growth import measure_growth, parse_growth

if TYPE_CHECKING:
    from ...engine.runtime.context import TrainingContext
    from ..experiments.matrix import Experiment
    from ..scheduling.console import ConsoleReporter

REFERENCES = ("loop", "separate", "fewer")
"""Slower ways of predicting to measure beside ours: a plain loop with batch 1, one level at a time,
and with fewer steps."""

Measurement = dict[str, Any]


def measure_speed(
    methods: str | Sequence[str] = (),
    dataset: str = "phantom",
    *,
    images: int = 8,
    rounds: int = 5,
    batch: int | None = None,
    against: Sequence[str] = (),
    loading: bool = False,
    noise: bool = False,
    maps: int | None = None,
    growth: Sequence[str] = (),
    progress: bool = True,
    **options: Any,
) -> list[Measurement]:
    """Evaluations, FLOPs, time, share of this machine's peak and memory per image and method.

    Nothing is trained: speed does not depend on what a network has learnt.

    methods: registry names; all if none is named, but none if only `maps` are asked for
    images: test samples to predict        rounds: of which medians are taken
    batch: rows of a network call; None for 64 on a GPU and 32 on a CPU
    against: reference implementations to measure too, of REFERENCES
    loading: whether reading training data keeps up        noise: time simplex noise too
    maps: evaluate so many maps of 256 x 256
    growth: how time and memory grow, as images=1000,3000,10000 or records=... or artifacts=...
    options: of RunConfig: levels, profile, settings, data, registry, device, dtype, compile

    >>> import adbench
    >>> adbench.measure_speed("anoddpm", against=["slower"])
    Traceback (most recent call last):
    adbench.benchmark.experiments.run_config.OptionError: --against takes loop, separate, fewer,
    not 'slower'
    """
    from .notebook import make_reporter

    config = RunConfig.from_options(methods=methods, datasets=dataset, baselines=False, **options)
    measurements, _ = measure_config(
        config, make_reporter(quiet=not progress), images=images, rounds=rounds, batch=batch,
        against=against, loading=loading, noise=noise, maps=maps, growth=growth,
    )  # fmt: skip
    return measurements


def measure_config(
    config: RunConfig,
    reporter: ConsoleReporter,
    *,
    images: int,
    rounds: int,
    batch: int | None,
    against: Sequence[str],
    loading: bool,
    noise: bool,
    maps: int | None,
    growth: Sequence[str] = (),
    out: Path | None = None,
) -> tuple[list[Measurement], int]:
    """Return the measurements of `measure_speed`, and how many methods failed.

    out: where growth is written size by size, where data for it is made up, and where an
        interrupted call goes on; None for nowhere and the system's folder of temporary files

    >>> from rich.console import Console
    >>> from adbench.benchmark.api.notebook import NotebookReporter
    >>> from adbench.benchmark.api.speed import measure_config
    >>> from adbench.benchmark.experiments.run_config import RunConfig
    >>> measure_config(
    ...     RunConfig(methods=("anodpm",)), NotebookReporter(Console(quiet=True)), images=1,
    ...     rounds=1, batch=None, against=(), loading=False, noise=False, maps=None)
    Traceback (most recent call last):
    adbench...RegistryError: unknown method 'anodpm'. Did you mean
    'anoddpm'? (adbench list methods)
    """
    against = parse_references(against)
    from ..executors.launch import device_context
    from ..experiments.matrix import expand_matrix
    from ..registry.registry import Registry
    from ..speed.inference import describe_machine
    from ..speed.metrics import measure_metrics
    from ..speed.report import read_measurements

    context = device_context(config.device, config.dtype)
    context = replace(context, compile=config.compile, batch=batch or context.batch)
    registry = Registry.read(*config.registry)
    measurements, failed = list[Measurement](), 0
    sizes = parse_growth(growth)
    if config.methods or (maps is None and not sizes):
        if not config.methods and not config.suite:
            config = replace(config, methods=tuple(registry.methods))
        experiments = expand_matrix(config.resolve(registry, context.device), registry)
        measurements, failed = _measure_methods(
            experiments, context, reporter, images, rounds, against, loading, noise
        )
    if maps is not None:
        reporter.print_line(f"pixel metrics of {maps} maps")
        where = describe_machine(device_context("cpu", "float32"))
        measurements.append(measure_metrics(maps, rounds=rounds, machine=where))
    if sizes:
        reporter.print_line(f"growth of {', '.join(sizes)}")
        where = describe_machine(device_context("cpu", "float32"))
        measurements += measure_growth(
            sizes, out or Path(tempfile.gettempdir()), where,
            earlier=read_measurements(out) if out else (),
            save=lambda of_subject: _save(of_subject, out, reporter),
        )  # fmt: skip
    return measurements, failed


def _save(
    measurements: Sequence[Mapping[str, Any]], out: Path | None, reporter: ConsoleReporter
) -> None:
    from ..speed.report import write_report

    size = max(measurements[0]["sizes"])
    reporter.print_line(f"{measurements[0]['task'].partition(':')[0]}  {size:,} measured")
    if out is not None:
        write_report(measurements, out)


def parse_references(texts: Sequence[str]) -> list[str]:
    """The reference implementations that texts with commas name, each once.

    Raises OptionError on another name.

    >>> parse_references(["loop,fewer"])
    ['loop', 'fewer']
    """
    references = [part for text in texts for part in text.split(",") if part]
    for reference in references:
        if reference not in REFERENCES:
            raise OptionError(f"--against takes {', '.join(REFERENCES)}, not {reference!r}")
    return list(dict.fromkeys(references))


def _measure_methods(
    experiments: Sequence[Experiment],
    context: TrainingContext,
    reporter: ConsoleReporter,
    images: int,
    rounds: int,
    against: Sequence[str],
    loading: bool,
    noise: bool,
) -> tuple[list[Measurement], int]:
    """What could be measured, and how many methods failed."""
    from ..executors.launch import incompatibility, prepare_dataset
    from ..speed.data_loading import measure_loading, measure_noise
    from ..speed.inference import describe_machine, measure_inference

    data, measurements, failed = prepare_dataset(experiments[0], reporter), list[Measurement](), 0
    reporter.print_line("peak of matrix products and convolutions")
    where = describe_machine(context)
    for experiment in experiments:
        name = experiment.method.name
        if reason := incompatibility(experiment, data):
            reporter.print_line(f"{name}  skipped: {reason}")
            continue
        try:
            reporter.print_line(f"{name}  predicting")
            measurements.append(
                measure_inference(
                    experiment, data, context, images=images, rounds=rounds,
                    references=list(against), machine=where,
                )
            )  # fmt: skip
            if loading:
                reporter.print_line(f"{name}  loading")
                measurements.append(measure_loading(experiment, data, context, machine=where))
        except Exception as error:  # the others are measured all the same
            failed += 1
            reporter.print_failure(name, f"{type(error).__name__}: {error}".splitlines()[0])
    if noise:
        reporter.print_line("simplex noise")
        measurements.append(measure_noise(context, rounds=rounds, machine=where))
    return measurements, failed
