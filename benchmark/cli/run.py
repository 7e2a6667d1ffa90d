"""The commands `adbench run` and `adbench plan`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..scheduling.signals import interrupt_on_sigterm
from .options import Json, Traceback, echo, error_messages, print_json, rich_console
from .run_options import OPTIONS, WHAT, WHERE, option, with_options

if TYPE_CHECKING:
    from ..scheduling.console import ConsoleReporter
    from ..sharing.run_sources import RunRequest

EXAMPLES = """Examples:

adbench run --profile tiny

adbench run -m anoddpm,pddpm -d brats --data ~/brats --levels 100,250 --seeds 0,1

adbench run study.yaml --seeds 0,1

adbench run --like results --device cuda --out again

adbench run -m anoddpm -d synthbrain --log mlflow,wandb

adbench run --suite brains -d mvtec/hazelnut --executor slurm --slurm partition=gpu --detach
"""
"""Beneath the options of `adbench run --help`."""

Measure = Annotated[
    bool,
    option(WHERE, "--measure", help="Measure briefly what nothing stored tells the speed of."),
]

PLANNED = [name for name in OPTIONS if name not in (
    "out", "executor", "slots", "timeout", "workers", "micro", "compile", "checkpoint_interval",
    "log", "tensorboard", "address", "slurm", "detach", "skip_recorded",
)]  # fmt: skip
"""Those that `plan` takes too: the others change where and how fast, not what."""


Study = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STUDY.yaml]",
        help="A study file: options as YAML (adbench schema study). Options here replace its own.",
        show_default=False,
    ),
]
Like = Annotated[
    Path | None,
    option(WHAT, "--like", help="Repeat what a folder of results holds; options replace it."),
]


@with_options(OPTIONS)
def run(
    context: typer.Context,
    study: Study = None,
    like: Like = None,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Train, predict and evaluate every method on every dataset; what is stored is not redone."""
    with error_messages(traceback), interrupt_on_sigterm():
        from ..api.run import run_config
        from ..scheduling.console import ConsoleReporter

        reporter = ConsoleReporter(rich_console(err=True))
        request = _request(context, study, like, options, reporter)
        config = request.config
        code = run_config(config, reporter, request.parts)[0]
        if code == 0 and not config.detach and os.environ.get("RANK", "0") == "0":
            reporter.print_line(f"done: adbench report --out {config.out}")
        raise typer.Exit(code)


@with_options(PLANNED)
def plan(
    context: typer.Context,
    study: Study = None,
    like: Like = None,
    measure: Measure = False,
    json: Json = False,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Show what run would do: what is cached, what is not and why; time, disk, memory.

    Prepares data, trains nothing.

    Example: adbench plan -m anoddpm -d phantom --profile tiny
    """
    with error_messages(traceback), interrupt_on_sigterm():
        from ..api.run import plan_config
        from ..planning.text import format_preview
        from ..scheduling.console import ConsoleReporter

        reporter = ConsoleReporter(rich_console(err=True))
        request = _request(context, study, like, options, reporter)
        rows, store, device = plan_config(request.config, reporter, request.parts, measure=measure)
        if json:
            print_json(rows)
            return
        for line in format_preview(rows, store, device):
            echo(line)


def _request(
    context: typer.Context,
    words: list[str] | None,
    like: Path | None,
    options: dict[str, Any],
    reporter: ConsoleReporter,
) -> RunRequest:
    """What the command line asks for, with its notes printed."""
    from ..api.run import request_of

    study = _study_path(words)
    if (
        study is not None and like is None
    ):  # it stands above the environment, as the command line above both
        from ..sharing.study_file import read_study

        for name in read_study(study):
            source = context.get_parameter_source(name)
            if source is not None and source.name == "ENVIRONMENT":
                options = {**options, name: None}
    request = request_of(study=study, like=like, **options)
    for note in request.notes:
        reporter.print_line(note)
    return request


def _study_path(words: list[str] | None) -> Path | None:
    """The study file among the words that belong to no option. Raises OptionError on others."""
    from ..experiments.run_config import OptionError
    from ..sharing.study_file import ENDINGS

    if not words:
        return None
    path = Path(words[0])
    if len(words) == 1 and (path.suffix.casefold() in ENDINGS or path.is_file()):
        return path
    other = next((w for w in words if Path(w).suffix.casefold() not in ENDINGS), words[-1])
    if len(words) > 1 and other == words[-1] and Path(other).suffix.casefold() in ENDINGS:
        raise OptionError(f"a run takes one study file, not {len(words)}: {', '.join(words)}")
    raise OptionError(
        f"{other!r} belongs to no option and is no study file (.yaml); names and numbers of one "
        "option are separated by commas, without spaces: --methods anoddpm,pddpm --levels 100,250"
    )
