"""The commands `adbench run` and `adbench plan`."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from ..scheduling.signals import interrupt_on_sigterm
from .options import Json, Traceback, echo, error_messages, print_json, rich_console
from .run_options import OPTIONS, WHERE, option, with_options

EXAMPLES = """Examples:

adbench run --profile tiny

adbench run -m anoddpm,pddpm -d brats --data ~/brats --levels 100,250 --seeds 0,1

adbench run --suite brains -d mvtec/hazelnut --executor slurm --slurm partition=gpu --detach
"""
"""Beneath the options of `adbench run --help`."""

Measure = Annotated[
    bool,
    option(WHERE, "--measure", help="Measure briefly what nothing stored tells the speed of."),
]

PLANNED = [name for name in OPTIONS if name not in (
    "out", "executor", "slots", "timeout", "workers", "micro", "compile", "checkpoint_interval",
    "tensorboard", "address", "slurm", "detach",
)]  # fmt: skip
"""Those that `plan` takes too: the others change where and how fast, not what."""


Extra = Annotated[list[str] | None, typer.Argument(hidden=True)]
"""Words that belong to no option."""


@with_options(OPTIONS)
def run(extra: Extra = None, traceback: Traceback = False, **options: Any) -> None:
    """Train, predict and evaluate every method on every dataset; what is stored is not redone."""
    with error_messages(traceback), interrupt_on_sigterm():
        _refuse_words(extra)
        from ..api.run import run_config
        from ..experiments.run_config import RunConfig
        from ..scheduling.console import ConsoleReporter

        config = RunConfig.from_options(**options)
        reporter = ConsoleReporter(rich_console(err=True))
        code = run_config(config, reporter)[0]
        if code == 0 and not config.detach and os.environ.get("RANK", "0") == "0":
            reporter.print_line(f"done: adbench report --out {config.out}")
        raise typer.Exit(code)


@with_options(PLANNED)
def plan(
    extra: Extra = None,
    measure: Measure = False,
    json: Json = False,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Show what run would do: what is cached, what is not and why; time, disk, memory.

    Prepares data, trains nothing.
    """
    with error_messages(traceback), interrupt_on_sigterm():
        _refuse_words(extra)
        from ..api.run import plan_config
        from ..experiments.run_config import RunConfig
        from ..planning.text import format_preview
        from ..scheduling.console import ConsoleReporter

        config = RunConfig.from_options(**options)
        reporter = ConsoleReporter(rich_console(err=True))
        rows, store, device = plan_config(config, reporter, measure=measure)
        if json:
            print_json(rows)
            return
        for line in format_preview(rows, store, device):
            echo(line)


def _refuse_words(words: list[str] | None) -> None:
    from ..experiments.run_config import OptionError

    if words:
        raise OptionError(
            f"{words[0]!r} belongs to no option; names and numbers of one option are separated by "
            "commas, without spaces: --methods anoddpm,pddpm --levels 100,250"
        )
