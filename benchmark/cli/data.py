"""adbench data: prepare a dataset, look for what is wrong with its files, and with its splits."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from ..scheduling.exit_codes import GATE, NO_DATA
from .completion import complete_datasets
from .options import Json, Traceback, error_messages, print_json, rich_console
from .run_options import with_options

app = typer.Typer(
    no_args_is_help=True,
    help="Prepare datasets, and find what is wrong with their files and splits.",
)

Name = Annotated[
    str,
    typer.Argument(
        help="A dataset, such as brats or mvtec/hazelnut.", autocompletion=complete_datasets
    ),
]
OPTIONS = ("data", "profile", "registry", "settings")
"""What of a RunConfig decides which dataset is built."""


@app.command()
@with_options(OPTIONS)
def prepare(
    name: Name,
    json: Json = False,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Read, check and preprocess a dataset once. An interrupted call goes on where it stopped."""
    with error_messages(traceback):
        from ..api.catalogue import load_dataset
        from ..scheduling.console import ConsoleReporter

        dataset = load_dataset(name, **options)
        with ConsoleReporter(rich_console(err=True)).progress_of(f"prepare {name}") as progress:
            dataset.prepare(progress)
        parts = {
            part: len(getattr(dataset, part)()) for part in ("train", "calibration", "val", "test")
        }
        if json:
            print_json({"dataset": name, "samples": parts})
            return
        counts = ", ".join(f"{part} {count}" for part, count in parts.items())
        shape = " x ".join(map(str, (dataset.spec.channels, *dataset.spec.shape)))
        typer.echo(f"{name} is prepared: {counts} samples of {shape}")


@app.command()
@with_options(OPTIONS)
def verify(
    name: Name,
    json: Json = False,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Read every file to its last byte and list all that is wrong. Exit code 5 if anything is."""
    with error_messages(traceback):
        from ..api.catalogue import load_dataset
        from ..scheduling.console import ConsoleReporter

        dataset = load_dataset(name, **options)
        with ConsoleReporter(rich_console(err=True)).progress_of(f"verify {name}") as progress:
            found = dataset.verify(progress)
        if json:
            print_json({"dataset": name, **asdict(found)})
        else:
            for problem in found.problems:
                typer.echo(f"bad: {problem}")
            for note in found.notes:
                typer.echo(f"note: {note}")
            counts = ", ".join(f"{part} {count}" for part, count in found.samples.items())
            what = f"{len(found.problems)} problems" if found.problems else "nothing wrong"
            typer.echo(f"{name}: {what}; readable samples: {counts or 'none'}")
        if found.problems:
            raise typer.Exit(NO_DATA)


@app.command()
@with_options(OPTIONS)
def audit(
    name: Name,
    json: Json = False,
    traceback: Traceback = False,
    **options: Any,
) -> None:
    """Look for leaks between splits, and for cheap cues that alone tell normal from abnormal.

    Exit code 4 if a leak is found.
    """
    with error_messages(traceback):
        from ..api.catalogue import load_dataset
        from ..audit.audit import audit as look
        from ..scheduling.console import ConsoleReporter

        dataset = load_dataset(name, **options)
        with ConsoleReporter(rich_console(err=True)).progress_of(f"audit {name}") as progress:
            dataset.prepare(progress)
            found = look(dataset, progress=progress)
        if json:
            print_json({"dataset": name, **asdict(found)})
        else:
            for finding in found.findings:
                typer.echo(f"{finding.severity}: {finding}")
            leaks = sum(finding.severity == "leak" for finding in found.findings)
            typer.echo(f"{name}: {leaks or 'no'} leak{'' if leaks == 1 else 's'} found")
        if any(finding.severity == "leak" for finding in found.findings):
            raise typer.Exit(GATE)
