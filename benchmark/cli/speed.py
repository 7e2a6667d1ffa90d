"""adbench speed: what predicting and evaluating cost on this machine, and what feeds them."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from ..scheduling.exit_codes import FAILED
from ..scheduling.signals import interrupt_on_sigterm
from .options import Traceback, echo, error_messages, print_json, rich_console
from .run_options import with_options

OPTIONS = (
    "methods",
    "profile",
    "registry",
    "settings",
    "data",
    "levels",
    "device",
    "dtype",
    "compile",
)


@with_options(OPTIONS)
def speed(
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="One name.")] = "phantom",
    images: Annotated[int, typer.Option(min=1, help="Test samples to predict.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Of which medians are taken.")] = 5,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Rows per network call; 64 on a GPU, 32 on a CPU.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="loop (plain, batch 1), separate (levels), fewer (steps); again for more."
        ),
    ] = None,
    loading: Annotated[bool, typer.Option("--loading", help="Does reading keep up?")] = False,
    noise: Annotated[bool, typer.Option("--noise", help="Simplex fields, too.")] = False,
    metrics: Annotated[
        int | None,
        typer.Option(min=2, help="Evaluate so many maps of 256 x 256; no method if none is named."),
    ] = None,
    growth: Annotated[
        list[str] | None,
        typer.Option(help="images=1000,3000, records=100,300, artifacts=1000,10000 made up."),
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="All that was measured, - for the terminal.")
    ] = None,
    out: Annotated[Path, typer.Option(help="speed/*.json and speed.md go here.")] = Path("results"),
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Measure evaluations, FLOPs, time, share of this machine's peak and memory per image.

    Nothing is trained: speed does not depend on what a network has learnt. --growth writes every
    size as soon as it is measured; interrupted, the same command goes on.

    Example: adbench speed -m anoddpm,pddpm --levels 250 --images 4 --against loop
    """
    with error_messages(traceback), interrupt_on_sigterm():
        from ..api.speed import measure_config
        from ..experiments.run_config import RunConfig
        from ..scheduling.console import ConsoleReporter
        from ..speed.report import print_tables, write_report
        from ..store.artifact_store import atomic_write

        config = RunConfig.from_options(datasets=dataset, baselines=False, **options)
        facts, failed = measure_config(
            config,
            ConsoleReporter(rich_console(err=True)),
            images=images,
            rounds=rounds,
            batch=batch,
            against=against or (),
            loading=loading,
            noise=noise,
            maps=metrics,
            growth=growth or (),
            out=out,
        )
        paths = write_report(facts, out)
        if str(json) == "-":
            print_json(facts)
        else:
            if json is not None:
                atomic_write(json, f"{json_.dumps(facts, indent=1)}\n")
            print_tables(facts, rich_console())
            echo(str(paths[-1]))
        if failed:
            raise typer.Exit(FAILED)
